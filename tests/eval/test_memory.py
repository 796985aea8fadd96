"""Peak memory is that of one call in a fresh process."""

from collections.abc import Callable

import mlx.core as mx

from eval.memory import peak_bytes_in_fresh_process

MEBIBYTE = 2**20


def _sum_of_two(mebibytes: int) -> Callable[[], object]:
    a = mx.ones((mebibytes, MEBIBYTE // 4))
    mx.eval(a)
    return lambda: a + 1


def test_the_peak_counts_inputs_and_outputs_and_nothing_of_this_process() -> None:
    ballast = mx.zeros((64, MEBIBYTE))
    mx.eval(ballast)
    peak = peak_bytes_in_fresh_process(_sum_of_two, 8)
    assert 16 * MEBIBYTE <= peak < 20 * MEBIBYTE
    assert ballast.nbytes > 20 * MEBIBYTE
