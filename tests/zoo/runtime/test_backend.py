import mlx.core as mx
import pytest

from zoo.config import UserError
from zoo.runtime import backend


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Metal, as far as MLX's answers go."""

    class Gpu:
        type = mx.gpu

    monkeypatch.setattr(backend.mx, "default_device", Gpu)
    monkeypatch.setattr(backend.mx.metal, "is_available", lambda: True)


def test_the_dtype_suits_the_back_end() -> None:
    expected = mx.float32 if mx.default_device().type == mx.cpu else mx.bfloat16
    assert backend.default_dtype() == expected == backend.parse_dtype("auto")


def test_a_gpu_computes_in_bfloat16(gpu: None) -> None:
    assert backend.backend() == "metal"
    assert backend.default_dtype() == mx.bfloat16


@pytest.mark.parametrize("name", backend.DTYPES)
def test_names_of_dtypes_go_both_ways(name: str) -> None:
    assert backend.dtype_name(backend.parse_dtype(name)) == name


def test_an_unknown_dtype_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"training\.dtype must .*got 'float8' \(choices: auto, float32, bfloat16"):
        backend.parse_dtype("float8", field="training.dtype")


def test_an_unknown_back_end_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"device must be a back end; got 'tpu' \(choices: auto, cpu, metal, cuda\)"):
        backend.choose_backend("tpu")


def test_a_back_end_that_this_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.mx.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device must be available .*got 'cuda' \(choices: auto, cpu"):
        backend.choose_backend("cuda")


def test_the_cpu_can_always_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    monkeypatch.setattr(backend.mx, "set_default_device", chosen.append)
    backend.choose_backend("cpu")
    assert chosen == [mx.cpu]
