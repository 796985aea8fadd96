"""The Makefile takes a Python that the project runs on, whichever others are there, and says which it passes over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A Python of another version: answers what it is asked about `sys.version_info`, and says who was to make the venv.
FAKE = """#!/bin/sh
case "$1" in
  -c) exec {real} -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2" ;;
  -m) echo "venv by $0" >&2; exit 3 ;;
esac
"""


def created_by(tmp_path, versions, **variables):
    """What `make` says while it sets the environment up, where only these Pythons are on the path."""
    for name, version in versions.items():
        (tmp_path / name).write_text(FAKE.format(real=sys.executable, version=version))
        (tmp_path / name).chmod(0o755)
    command = [
        "/usr/bin/make",
        "-f",
        str(ROOT / "Makefile"),
        f"VENV={tmp_path / 'venv'}",
        f"{tmp_path / 'venv'}/.runtime",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(tmp_path), **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return [line for line in done.stderr.splitlines() if "make:" not in line and "not found" not in line]


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="there is no /usr/bin/make")
@pytest.mark.parametrize(
    ("versions", "taken", "passed_over"),
    [
        ({"python3": (3, 11, 7)}, "python3", []),
        ({"python3": (3, 14, 0), "python3.13": (3, 13, 0)}, "python3.13", ["python3"]),
        ({"python3": (3, 10, 0), "python3.12": (3, 12, 0), "python3.11": (3, 11, 0)}, "python3.12", []),
        ({"python3": (3, 14, 0)}, None, ["python3"]),
        ({}, None, []),
    ],
)
def test_a_python_that_the_project_runs_on_is_taken(versions, taken, passed_over, tmp_path):
    lines = created_by(tmp_path, versions)
    assert lines[: len(passed_over)] == [
        f"{name} is passed over: Hydra does not run on Python 3.14 or newer yet" for name in passed_over
    ]
    last = f"venv by {tmp_path / taken}" if taken else "error: Python 3.11, 3.12 or 3.13 must be on PATH, or be named"
    assert lines[len(passed_over)].startswith(last)


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="there is no /usr/bin/make")
def test_bytecode_is_kept_where_the_environment_forbids_it(tmp_path):
    (tmp_path / "shown.mk").write_text("shown:\n\t@echo $${PYTHONDONTWRITEBYTECODE-kept}\n")
    command = ["/usr/bin/make", "-s", "-f", str(ROOT / "Makefile"), "-f", str(tmp_path / "shown.mk"), "shown"]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "kept\n"


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="there is no /usr/bin/make")
@pytest.mark.parametrize("target", ["setup", "train", "test"])
def test_kernels_that_cannot_be_built_stop_nothing_and_are_tried_once(target, tmp_path):
    """A Python that notes what it is asked for stands in for the environment's; every package is there already."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\ntest "$1" != native/install.py || { echo left out >&2; exit 0; }\necho "$@"\n')
    python.chmod(0o755)
    for made in (".runtime", ".dev", ".browser"):
        (tmp_path / made).touch()
    command = ["/usr/bin/make", "-s", "-f", str(ROOT / "Makefile"), f"VENV={tmp_path}", "ARGS=asked", target]
    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stderr == "left out\n"
    assert second.stderr == ""
    assert first.stdout == second.stdout
    assert ("asked" in first.stdout) == (target != "setup")
