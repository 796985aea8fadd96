"""How scripts start: their folder hides nothing, the packages are this checkout's, and signals end them in one line."""

import os
import runpy
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "scripts" / "_start.py"


@pytest.fixture
def start():
    return runpy.run_path(str(START))


def script(*arguments, path=(), flags=(), name=ROOT / "scripts" / "variants.py", **more):
    """A script as its own process, with folders before this checkout on the path."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.Popen(
        [sys.executable, *flags, str(name), *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_the_folder_of_the_scripts_is_taken_off_the_path(start, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(ROOT / "scripts")
    others = [str(tmp_path), "", str(ROOT)]
    own = [str(ROOT / "scripts"), str(tmp_path / "link"), f"{ROOT}/tests/../scripts/"]
    monkeypatch.setattr(sys, "path", [*own, *others])
    start["_leave_off_the_path"](ROOT / "scripts")
    assert sys.path == others


@pytest.mark.parametrize("name", ["recipes", "eval", "zoo"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_foreign_package_of_our_name_is_named_in_one_line(name, kind, start, tmp_path, monkeypatch, capsys):
    if kind == "package":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    else:
        (tmp_path / f"{name}.py").touch()
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as end:
        start["_require_own_packages"]()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith(f"error: {name} must be the package beside this script; Python finds ")
    assert str(tmp_path / name) in line


def test_our_own_packages_pass(start):
    start["_require_own_packages"]()


def test_a_script_starts_through_a_link_from_any_folder_without_its_own_on_the_path(tmp_path):
    (tmp_path / "link.py").symlink_to(ROOT / "scripts" / "variants.py")
    with script(name=tmp_path / "link.py", flags=["-P"], cwd=tmp_path) as process:
        shown, errors = process.communicate()
    assert process.returncode == 0, errors
    assert shown.startswith('{"variants"')


# Each takes half a second and more to import; a command pays for those that it uses.
HEAVY = (
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "datasets",
    "pandas",
    "scipy",
    "matplotlib",
    "jinja2",
    "lm_eval",
)
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{module.partition(".")[0] for module in sys.modules})
"""


def test_a_command_starts_without_the_packages_that_it_may_not_need():
    names = [f"recipes.{path.stem}" for path in (ROOT / "scripts").glob("[!_]*.py")]
    command = [sys.executable, "-c", IMPORT_ALL, "recipes.app", *names]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "mlx_lm" in shown
    assert sorted(set(HEAVY) & set(shown)) == []


IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), signal.{signal})
    for _ in range(10**7): pass
except BaseException:
    # As native modules do, which turn an interruption into another error.
    raise ImportError("no")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_the_imports_is_one_line(name, code, tmp_path):
    (tmp_path / "hydra.py").write_text(textwrap.dedent(IMPORT.format(signal=name)), encoding="utf-8")
    with script(path=[tmp_path]) as process:
        shown, errors = process.communicate()
    assert (process.returncode, shown, errors) == (code, "", "error: interrupted\n")


def test_signals_are_as_before_after_the_imports(start):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with start["_interruptible"]():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_missing_package_is_named_in_one_line(tmp_path):
    (tmp_path / "hydra.py").write_text("import a_package_that_is_missing\n", encoding="utf-8")
    with script(path=[tmp_path]) as process:
        shown, errors = process.communicate()
    assert (process.returncode, shown) == (2, "")
    assert errors == "error: the package a_package_that_is_missing must be installed; run make setup\n"
