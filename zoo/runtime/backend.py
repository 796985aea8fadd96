"""Which back end MLX computes on, and the dtype that suits it; a recipe chooses both once, at its start."""

from typing import Literal, get_args

import mlx.core as mx

from zoo.config import UserError, require
from zoo.runtime.kernels import prepare_compiler

Backend = Literal["cpu", "metal", "cuda"]
BackendChoice = Literal["auto", "cpu", "metal", "cuda"]

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def backend() -> Backend:
    """The back end that arrays are computed on."""
    if mx.default_device().type == mx.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def choose_backend(name: str = "auto") -> Backend:
    """Makes a back end the process's default.

    Args:
        name: "auto" leaves MLX's own choice, a GPU where there is one; else "cpu", "metal" or "cuda".

    Returns:
        The back end now in use.

    Raises:
        UserError: If the name is none of these, or this machine's MLX lacks the back end.
    """
    require(name in get_args(BackendChoice), "device", "be a back end", name, allowed=get_args(BackendChoice))
    if name == "auto":
        return _prepared()
    available = {"cpu": True, "metal": mx.metal.is_available(), "cuda": mx.cuda.is_available()}
    if not available[name]:
        choices = ", ".join(["auto", *(each for each, there in available.items() if there)])
        raise UserError(f"device must be available in this machine's mlx; got {name!r} (choices: {choices})")
    mx.set_default_device(mx.cpu if name == "cpu" else mx.gpu)
    return _prepared()


def _prepared() -> Backend:
    chosen = backend()
    if chosen == "cpu":
        prepare_compiler()
    return chosen


def default_dtype() -> mx.Dtype:
    """float32 on the CPU, whose half-precision matrix products are forty times slower; bfloat16 on GPUs."""
    return mx.float32 if backend() == "cpu" else mx.bfloat16


def parse_dtype(name: str, *, field: str = "dtype") -> mx.Dtype:
    """The dtype of this name.

    Args:
        name: "float32", "bfloat16", "float16", or "auto" for the back end's default.
        field: Config path for the message.

    Raises:
        UserError: If it is none of these.
    """
    if name == "auto":
        return default_dtype()
    # What a checkpoint names need not be a text.
    require(
        isinstance(name, str) and name in DTYPES, field, "be a floating-point type", name, allowed=["auto", *DTYPES]
    )
    return DTYPES[name]


def dtype_name(dtype: mx.Dtype) -> str:
    """The name that `parse_dtype` understands."""
    return str(dtype).rpartition(".")[2]
