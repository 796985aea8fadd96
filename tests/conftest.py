"""Shared set-up: the runtime's BLAS is in place before anything imports MLX, and random tests repeat."""

import gc
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Workers of pytest-xdist share the cores; with a thread pool each they would fight over them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest

from zoo.runtime import kernels
from zoo.runtime.cache import default_cache_dir

# The suite makes about a thousand kernels on a fresh machine.
if "PYTEST_XDIST_WORKER" not in os.environ and (_include := kernels.prepare_compiler()) is not None:
    os.environ["CPLUS_INCLUDE_PATH"] = _include


def _skip_sync(fd: object) -> None:
    """No test cuts the power, and a killed process needs no disk to keep what it wrote."""


# A tiny run asks for it forty times, and each time waits for the disk.
os.fsync = _skip_sync

# What a test leaves in cycles is little, and looking for it among all that is imported took a tenth of the time.
gc.set_threshold(50_000, 20, 100)


def pytest_collection_finish() -> None:
    """Nothing that is there before the first test is ever garbage; each search for garbage would look at all of it."""
    gc.freeze()


# The same examples in every run, and no deadline: a shared machine may stall.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

# The user's cache without this device's calibration, which would change what adaptive attention chooses, and without
# libraries, which are not taken from behind a link. Not in a fixture: some suites are asked for their groups when tests
# are collected.
_cache = tempfile.TemporaryDirectory(prefix="zoo-tests-")
for _entry in default_cache_dir().iterdir() if default_cache_dir().is_dir() else ():
    if _entry.name not in ("calibration", "blas"):
        (Path(_cache.name) / _entry.name).symlink_to(_entry)
os.environ["ZOO_CACHE"] = _cache.name

# The runs of whoever works in this checkout; no test may add to them.
_USERS_RUNS = Path(__file__).resolve().parents[1] / "runs"


def _protect_runs(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.mkdir" and isinstance(arguments[0], (str, os.PathLike)):
        path = Path(arguments[0]).absolute()
        if path.is_relative_to(_USERS_RUNS):
            raise AssertionError(f"a test must write into its own folder; it makes {path}")


sys.addaudithook(_protect_runs)


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests are started in a folder of their own: what a command leaves under `runs/` stays out of the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield folder


@pytest.fixture(scope="session")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real text, small enough to tokenise in a moment: modules of the standard library."""
    folder = tmp_path_factory.mktemp("corpus")
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    for source in sources:
        (folder / source.name).write_text(source.read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    return folder
