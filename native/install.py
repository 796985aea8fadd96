"""Builds the package in this folder and installs it into the environment of the Python that runs this file.

A wheel is kept under the project's cache, named by everything that it is made of, so that another checkout or another
environment compiles nothing. Where there is no C++20 compiler, or the build fails, one line says so and set-up goes on:
everything works without the package. `--force` compiles in any case, shows what the tools say, and fails if they do.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CONSTRAINTS = FOLDER.parent / "constraints.txt"
LOG = FOLDER / "build" / "log.txt"
PACKAGE = "attention-zoo-native"
SOURCES = ("CMakeLists.txt", "pyproject.toml", "src/*", "attention_zoo_native/*")
TOOLS = ("cmake", "nanobind", "ninja", "scikit-build-core")
# What changes the compiled code and is no file of ours.
VARIABLES = ("CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS")
COMPILERS = ("c++", "g++", "clang++")
# Of the language and of its library, what the sources use most of.
TRIAL = "#include <atomic>\n#include <concepts>\ntemplate <std::integral T> T f(T x) { return x; }\nint i = f(1);\n"


class NotBuiltError(Exception):
    """Why there is no package, in words that follow "The compiled kernels are left out: "."""


def main() -> int:
    """Installs the package, or says in one line why not; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="compile again, show the tools' output, fail if they fail")
    force = parser.parse_args().force
    try:
        if os.environ.get("ZOO_NATIVE") == "none" and not force:
            raise NotBuiltError("ZOO_NATIVE=none says so")
        wheel = None if force else kept_wheel()
        if wheel is None or not installed(wheel):
            install_built(show=force)
    except NotBuiltError as error:
        # One that was built from other sources would be worse than none.
        pip("uninstall", "--yes", PACKAGE)
        say(f"The compiled kernels are left out: {error}. All else works; `make native` tries again.")
        return int(force)
    return 0


def install_built(*, show: bool) -> None:
    """Compiles and installs the package, and keeps the wheel.

    Raises:
        NotBuiltError: If that cannot be done.
    """
    require_compiler()
    say("Compiling the kernels for processors (about half a minute, once) …")
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as opened, tempfile.TemporaryDirectory() as made:
        log, where = (None, "above") if show else (opened.fileno(), f"in {LOG.relative_to(FOLDER.parent)}")
        if not pip("install", "--no-compile", "--constraint", str(CONSTRAINTS), *TOOLS, log=log):
            raise NotBuiltError(f"their build tools were not installed, as said {where}")
        if not pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, str(FOLDER), log=log):
            raise NotBuiltError(f"the build failed, as said {where}")
        wheel = next(Path(made).glob("*.whl"))
        if not installed(wheel, log=log):
            raise NotBuiltError(f"they do not load, as said {where}")
        # Without a place to keep it the next environment compiles again.
        with contextlib.suppress(OSError, RuntimeError):
            keep(wheel)


def installed(wheel: Path, *, log: int | None = subprocess.DEVNULL) -> bool:
    """Installs a wheel; whether that worked, and what it holds loads."""
    loads = [sys.executable, "-c", "import attention_zoo_native"]
    return pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel), log=log) and ran(loads, log)


def require_compiler() -> None:
    """Looks for a compiler that understands C++20, and for Python's headers.

    Raises:
        NotBuiltError: If one is missing.
    """
    named = os.environ.get("CXX", "").split()
    compiler = named or [each for each in map(shutil.which, COMPILERS) if each][:1]
    # Without Apple's tools its `c++` opens a window.
    if not compiler or (sys.platform == "darwin" and not ran(["xcode-select", "-p"])):
        raise NotBuiltError("there is no C++ compiler")
    trial = [*compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    if not ran(trial, given=TRIAL):
        raise NotBuiltError(f"{compiler[0]} does not compile C++20")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise NotBuiltError(f"the headers of Python {platform.python_version()} are not installed (Python.h)")


def kept_wheel() -> Path | None:
    """The wheel of these very sources, tools and versions, if it is kept, and nobody else can have written it."""
    with contextlib.suppress(OSError, RuntimeError):
        found = sorted(kept_folder().glob("*.whl"))
        if len(found) == 1 and all(is_own(path) for path in (found[0], found[0].parent, found[0].parent.parent)):
            return found[0]
    return None


def keep(wheel: Path) -> None:
    """Puts a wheel where `kept_wheel` looks: written beside and renamed, so that it is whole or absent."""
    folder = kept_folder()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        target = Path(beside, "kept")
        target.mkdir(mode=0o700)
        shutil.copyfile(wheel, target / wheel.name)
        (target / wheel.name).chmod(0o600)
        shutil.rmtree(folder, ignore_errors=True)
        target.rename(folder)


def kept_folder() -> Path:
    """Where a wheel made of what is here now is kept."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in FOLDER.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(FOLDER)} {path.stat().st_size}\n".encode() + path.read_bytes())
    pins = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith(pinned_names())]
    built_for = [sysconfig.get_config_var("SOABI"), sysconfig.get_platform(), *platform.libc_ver()]
    mlx = importlib.metadata.version("mlx")
    digest.update(repr([pins, built_for, mlx, [os.environ.get(name) for name in VARIABLES]]).encode())
    return cache_dir() / "native" / digest.hexdigest()[:32]


def cache_dir() -> Path:
    """The project's cache, as `zoo.runtime.cache` has it; importing that would load what is about to be replaced."""
    chosen = os.environ.get("ZOO_CACHE")
    if not chosen:
        return Path.home() / ".cache" / "attention_zoo"
    # A path forgets the ./ that it was typed with.
    return Path(chosen).expanduser() if chosen.startswith("~") else Path(chosen)


def pinned_names() -> tuple[str, ...]:
    """How the lines of the tools in the file of constraints begin."""
    return tuple(f"{spelled}==" for name in TOOLS for spelled in (name, name.replace("-", "_")))


def is_own(path: Path) -> bool:
    """Whether only this user and the system's can have written a file or folder."""
    facts = path.lstat()
    ours = facts.st_uid in (0, os.geteuid()) and not stat.S_ISLNK(facts.st_mode)
    return ours and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def pip(*arguments: str, log: int | None = subprocess.DEVNULL) -> bool:
    """Whether pip did it."""
    return ran([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], log)


def ran(command: Sequence[str], log: int | None = subprocess.DEVNULL, *, given: str = "") -> bool:
    """Whether a command ended well; what it says goes to a file, or is shown without one."""
    try:
        done = subprocess.run(command, input=given.encode(), stdout=log, stderr=log, check=False)
    except OSError:
        return False
    return done.returncode == 0


def say(line: str) -> None:
    """Tells whoever set the environment up; standard output is for results."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
