import mlx.core as mx

from zoo.runtime.memory import active_bytes, peak_bytes, reset_peak


def test_the_peak_counts_what_is_gone_again_until_it_is_reset() -> None:
    reset_peak()
    before = active_bytes()
    array = mx.zeros((1031, 1000), dtype=mx.float32)
    mx.eval(array)
    assert active_bytes() - before >= 4 * 1031 * 1000
    del array
    assert peak_bytes() - before >= 4 * 1031 * 1000
    reset_peak()
    assert peak_bytes() <= before
