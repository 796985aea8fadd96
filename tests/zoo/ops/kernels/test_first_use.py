"""On a GPU the kernels are compared with the plain implementation before they are used."""

import pytest

from zoo.ops import native
from zoo.ops.softmax import fused
from zoo.ops.tiled import tiled


def raises(error):
    def op(*_):
        raise error

    return op


@pytest.fixture
def reason(monkeypatch, caplog):
    """What is said of kernels that compute something."""

    def found(op):
        monkeypatch.setattr(native, "gpu_attention", op)
        native._why_not_on_gpu.cache_clear()
        said = native._why_not_on_gpu()
        assert bool(caplog.records) == (said is not None)
        return said

    yield found
    native._why_not_on_gpu.cache_clear()


# Where a query may attend to nothing the kernels give zeros, as tiles do, and the plain implementation does not.
@pytest.mark.parametrize("op", [fused, tiled])
def test_kernels_that_agree_are_used(op, reason):
    assert reason(op) is None


def test_kernels_that_disagree_are_left_out_with_a_warning(reason):
    assert "disagree with the plain implementation on this device, by" in reason(lambda *given: 1.1 * fused(*given))


def test_a_wrong_gradient_is_a_disagreement_too(reason):
    def other_gradient(q, k, v, spec):
        import mlx.core as mx

        return fused(q, k, mx.stop_gradient(v), spec)

    assert "disagree" in reason(other_gradient)


@pytest.mark.parametrize("error", [RuntimeError("no\ncompiler"), ValueError("only the GPU"), FileNotFoundError("text")])
def test_kernels_that_do_not_run_are_left_out(error, reason):
    assert f"do not run on this device: {' '.join(str(error).split())}" in reason(raises(error))
