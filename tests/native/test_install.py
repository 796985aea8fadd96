"""Setting up the package of compiled kernels: one line where it cannot be built, and no second build of the same."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from zoo.runtime.cache import default_cache_dir

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """The script on a copy of its folder, with a cache of its own and a pip that does nothing but take notes."""
    folder = tmp_path / "checkout" / "native"
    shutil.copytree(ROOT / "native", folder, ignore=shutil.ignore_patterns("build", "__pycache__"))
    shutil.copyfile(ROOT / "constraints.txt", folder.parent / "constraints.txt")
    spec = importlib.util.spec_from_file_location("native_install", folder / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []
    # Of pip's commands those that fail, and of wheels those that do not load.
    module.failing, module.broken = set(), set()

    def pip(command, *arguments, log=None):
        module.calls.append(command)
        if command == "wheel":
            made = Path(arguments[arguments.index("--wheel-dir") + 1])
            (made / "attention_zoo_native-0.1.0-cp311-cp311-any.whl").write_bytes(b"built")
        if command in module.failing and log is not None:
            with open(log, "wb", closefd=False) as stream:
                stream.write(b"what pip said\n")
        return command not in module.failing

    monkeypatch.setattr(module, "pip", pip)
    real = module.ran
    monkeypatch.setattr(module, "ran", lambda command, *rest, **more: "-c" in command or real(command, *rest, **more))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZOO_NATIVE", raising=False)
    monkeypatch.setattr(sys, "argv", ["install.py"])
    compiler(tmp_path, monkeypatch, "exit 0")
    return module


def compiler(tmp_path, monkeypatch, does):
    """A C++ compiler, the only one on PATH; None for none."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "c++").unlink(missing_ok=True)
    if does is not None:
        (tmp_path / "bin" / "c++").write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)


def lines(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize(
    ("does", "why"), [(None, "there is no C++ compiler"), ("exit 1", "c++ does not compile C++20")]
)
def test_without_a_compiler_one_line_says_so_and_setup_goes_on(does, why, install, tmp_path, monkeypatch, capsys):
    compiler(tmp_path, monkeypatch, does)
    assert install.main() == 0
    (line,) = lines(capsys)
    assert line.startswith("The compiled kernels are left out: ")
    assert f"{why}. All else works; `make native` tries again." in line
    # Kernels of earlier sources would be worse than none.
    assert install.calls == ["uninstall"]


def test_a_compiler_that_the_environment_names_is_the_one_that_is_asked(install, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert install.main() == 0
    assert "no-such-compiler does not compile C++20" in lines(capsys)[-1]


@pytest.mark.parametrize(("failing", "why"), [("wheel", "the build failed"), ("install", "their build tools")])
def test_a_build_that_fails_is_one_line_which_names_the_log(failing, why, install, capsys):
    install.failing = {failing}
    assert install.main() == 0
    started, line = lines(capsys)
    assert started.startswith("Compiling")
    assert line.startswith(f"The compiled kernels are left out: {why}")
    assert "as said in native/build/log.txt." in line
    assert "what pip said" in install.LOG.read_text()
    assert install.kept_wheel() is None


def test_whoever_asks_for_a_build_is_shown_what_fails_and_told_by_the_exit_code(install, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["install.py", "--force"])
    install.failing = {"wheel"}
    assert install.main() == 1
    assert "the build failed, as said above." in lines(capsys)[-1]


def test_the_same_sources_are_compiled_once(install, capsys):
    assert install.main() == 0
    assert install.main() == 0
    assert install.calls.count("wheel") == 1
    assert install.calls.count("install") == 3  # the tools, the wheel, the kept wheel
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize("changed", ["source", "mlx", "flags", "tool"])
def test_whatever_changes_the_code_has_it_compiled_again(changed, install, monkeypatch):
    assert install.main() == 0
    if changed == "source":
        (install.FOLDER / "src" / "pool.cpp").write_bytes(b"// another\n")
    elif changed == "mlx":
        monkeypatch.setattr(install.importlib.metadata, "version", lambda name: "0.0.1")
    elif changed == "flags":
        monkeypatch.setenv("CXXFLAGS", "-O1")
    else:
        pins = install.CONSTRAINTS.read_text(encoding="utf-8")
        install.CONSTRAINTS.write_text(pins.replace("nanobind==", "nanobind==9."), encoding="utf-8")
    assert install.kept_wheel() is None


def test_a_kept_wheel_that_does_not_load_is_built_again(install, monkeypatch):
    assert install.main() == 0
    install.kept_wheel().write_bytes(b"half a file")
    fine = install.installed
    monkeypatch.setattr(install, "installed", lambda wheel, **more: wheel.read_bytes() == b"built" and fine(wheel))
    assert install.main() == 0
    assert install.kept_wheel().read_bytes() == b"built"


def test_a_wheel_that_others_could_have_written_is_not_taken(install):
    assert install.main() == 0
    install.kept_wheel().chmod(0o666)
    assert install.kept_wheel() is None


def test_a_cache_that_cannot_be_written_costs_only_the_next_build(install, tmp_path, capsys):
    (tmp_path / "cache").write_bytes(b"no folder")
    assert install.main() == 0
    assert len(lines(capsys)) == 1


def test_a_user_can_do_without(install, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_NATIVE", "none")
    assert install.main() == 0
    assert len(lines(capsys)) == 1
    assert "wheel" not in install.calls


@pytest.mark.parametrize("chosen", ["/somewhere/else", "~/kept", "./~/kept", "", None])
def test_wheels_are_kept_in_the_projects_cache(chosen, install, monkeypatch):
    if chosen is None:
        monkeypatch.delenv("ZOO_CACHE")
    else:
        monkeypatch.setenv("ZOO_CACHE", chosen)
    assert install.cache_dir() == default_cache_dir()
