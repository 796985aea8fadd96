"""The optional package of compiled kernels for processors, `attention-zoo-native` (the folder `native/`).

`make setup` builds it where there is a C++20 compiler. ZOO_NATIVE=none does without it.
"""

import functools
import importlib
from types import ModuleType

import mlx.core as mx

from zoo.config import UserError
from zoo.runtime.pool import PACKAGE, is_switched_off, num_threads

# Of the package's functions, as the package itself counts them.
INTERFACE = 3


def native_kernels() -> ModuleType:
    """The package.

    Raises:
        UserError: If it is not there, does not load, or arrays are computed on a GPU.
    """
    kernels = native_kernels_if_any()
    if kernels is None:
        raise UserError(f"attention.implementation must be another one here, since {why_no_native()}; got 'native'")
    return kernels


def native_kernels_if_any() -> ModuleType | None:
    """The package; None where it cannot be used."""
    return None if why_no_native() is not None else _found()[0]


def kernels_for(*arrays: mx.array | None) -> ModuleType | None:
    """The package, where it computes these arrays: it is there, and all are float32 on a CPU; otherwise None.

    None among the arrays stands for one that is left out.
    """
    if any(array is not None and array.dtype != mx.float32 for array in arrays):
        return None
    return native_kernels_if_any()


def why_no_native() -> str | None:
    """Why the kernels cannot be used, in words; None if they can."""
    if mx.default_device().type != mx.cpu:
        return "its kernels are for processors, and arrays are on a GPU (device=cpu changes that)"
    return _found()[1]


def instruction_set() -> str | None:
    """What results say of the kernels: the instruction set that they run on; None where they cannot be used."""
    kernels = native_kernels_if_any()
    return None if kernels is None else str(kernels.isa())


@functools.cache
def _found() -> tuple[ModuleType, None] | tuple[None, str]:
    if is_switched_off():
        return None, "ZOO_NATIVE=none switches its package off"
    try:
        package = importlib.import_module(PACKAGE)
        # Which instruction set is settled at the first call, and the environment may name one that is not there.
        package.isa()
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        return None, "its package is not installed (`make native` builds it with a C++20 compiler)"
    except (ImportError, ValueError) as error:
        return None, f"its package does not load: {error}"
    if getattr(package, "INTERFACE", None) != INTERFACE:
        return None, "its package is older or newer than this code (`make native` builds the one that fits)"
    package.set_num_threads(num_threads())
    return package, None
