"""The worker pool of the package `attention-zoo-native`, which is loaded before MLX is.

On Linux its library exports a `cblas_sgemm` that cuts a product into parts for the pool. Each part is one call of
OpenBLAS on one thread or, with AVX-512, tiles that the library computes itself. OpenBLAS's own threads spin while they
wait for each other, so that two trainings on the same cores made a sixth of what one makes alone.
"""

import ctypes
import importlib.util
import os
from pathlib import Path

from zoo.runtime.threads import usable_cores

PACKAGE = "attention_zoo_native"
# What OpenBLAS itself reads; a user who set one of these has chosen.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
_LIBRARY = "libattention_zoo_pool.so"


def is_switched_off() -> bool:
    """Whether the environment asks to do without the package."""
    return os.environ.get("ZOO_NATIVE") == "none"


def num_threads() -> int:
    """Threads that work is shared out to: the cores that this process may use, or fewer if the environment says so."""
    asked = [int(value) for name in THREAD_VARIABLES if (value := os.environ.get(name, "")).isdigit()]
    return max(1, min([usable_cores(), *(value for value in asked if value > 0)]))


def library() -> Path | None:
    """The pool's library, or None where the package is not installed. Does not import the package, nor MLX."""
    spec = None if is_switched_off() else importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders if (path := Path(folder) / _LIBRARY).is_file()), None)


def take_products(products: "tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]", opened: Path) -> None:
    """Has the products of a BLAS computed in parts on the pool; call it before that BLAS's names become global.

    Args:
        products: Its `cblas_sgemm` and `cblas_sgemv`, which compute a part; it must use one thread from now on.
        opened: The pool's library.

    Raises:
        OSError: If the library does not load, or is of another version than this code.
    """
    # Not global before it is known to be the right one.
    pool = ctypes.CDLL(str(opened))
    try:
        use_products = pool.attention_zoo_use_products
    except AttributeError:
        raise OSError(f"{opened.name} is older than this code; `make native` builds the one that fits") from None
    pool = ctypes.CDLL(str(opened), mode=ctypes.RTLD_GLOBAL)
    pool.attention_zoo_set_num_threads(num_threads())
    use_products(*(ctypes.cast(function, ctypes.c_void_p) for function in products))
