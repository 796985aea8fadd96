import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zoo.runtime import kernels

ROOT = Path(__file__).resolve().parents[3]
# A kernel that no run has compiled before: its constant is new.
COMPILE = """
import time, zoo, mlx.core as mx
constant = time.time_ns() % 10**9 / 7
mx.eval(mx.compile(lambda x: mx.exp(x * constant) - mx.sin(x))(mx.ones(3)))
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The temporary directory of this process, and no other."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kernels, "_bases", lambda: iter([tmp_path]))
    return tmp_path / f"attention-zoo-{os.getuid()}"


def test_the_folder_is_the_users_alone(temporary):
    assert kernels.private_folder() == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert kernels.private_folder() == temporary


def test_a_process_that_inherits_the_folder_takes_the_same_one(temporary, monkeypatch):
    folder = kernels.private_folder()
    monkeypatch.setattr(kernels, "_bases", lambda: iter([folder]))
    assert kernels.private_folder() == folder


@pytest.mark.parametrize("squatter", ["a file", "a link", "open to all", "another user's"])
def test_a_folder_that_others_could_change_is_not_used(squatter, temporary, tmp_path, monkeypatch):
    if squatter == "a file":
        temporary.write_text("")
    elif squatter == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        temporary.symlink_to("elsewhere")
    else:
        temporary.mkdir(mode=0o700)
    if squatter == "open to all":
        temporary.chmod(0o770)
    if squatter == "another user's":
        monkeypatch.setattr(os, "getuid", lambda: 12345678)
        temporary.rename(tmp_path / "attention-zoo-12345678")
    assert kernels.private_folder() is None


@pytest.mark.parametrize("name", ["a$HOME", 'a"b', "a`b", "a\\b", "a\nb", "a!b"])
def test_a_name_that_a_shell_would_read_is_passed_over(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(kernels, "_bases", lambda: iter([tmp_path / name, tmp_path]))
    assert kernels.private_folder().parent == tmp_path


def test_pythons_own_temporary_files_stay_where_the_user_has_them(tmp_path):
    code = "import tempfile, subprocess, zoo; print(tempfile.gettempdir()); subprocess.run(['printenv', 'TMPDIR'])"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-u", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path), str(tmp_path / f"attention-zoo-{os.getuid()}")]


@pytest.mark.parametrize("case", ["missing", "strange name and another's folder"])
def test_mlx_compiles_whatever_the_temporary_directory_is(case, tmp_path):
    folder = tmp_path / "missing"
    if case != "missing":
        folder = tmp_path / "a$b"
        folder.mkdir()
        (folder / "mlx").write_text("in the way")
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _unnamed(library):
    """A library's content without the name that its source had while it was compiled."""
    return re.sub(rb"tmp_[0-9a-f]{8}\.cpp", b"", library.read_bytes())


def test_a_compiler_that_was_prepared_makes_the_same_libraries(tmp_path):
    code = COMPILE.replace("time.time_ns()", "77")
    prepared = f"from zoo.runtime.backend import choose_backend\nchoose_backend()\n{code}"
    environment = {name: value for name, value in os.environ.items() if name != "CPLUS_INCLUDE_PATH"}
    libraries = []
    for name, text in (("plain", code), ("prepared", prepared)):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, env={**environment, "TMPDIR": str(folder)}, check=True)
        assert bool([*folder.rglob("*.gch")]) == (name == "prepared")
        libraries.append({each.name: _unnamed(each) for each in folder.rglob("*.so")})
    assert libraries[0] == libraries[1]
    assert libraries[0]
