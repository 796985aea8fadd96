"""Starts a recipe: what has to be in order before anything that takes a second to import is imported.

The scripts run this file instead of importing it, because Python need not have their folder on its path.
"""

import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("recipes", "eval", "zoo")


def start(name: str) -> None:
    """Runs the recipe of this name as a script's whole life; does not return."""
    _leave_off_the_path(_ROOT / "scripts")
    _require_own_packages()
    try:
        with _interruptible():
            from recipes.app import run

            main = importlib.import_module(f"recipes.{name}").main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _PACKAGES:
            raise
        print(f"error: the package {error.name} must be installed; run make setup", file=sys.stderr)
        sys.exit(2)
    run(name, main)


def _leave_off_the_path(folder: Path) -> None:
    """Python puts a script's folder first, where `evaluate.py` would hide another package's `evaluate`."""
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]


def _require_own_packages() -> None:
    """Ends the script with one line if another package has the name of one of ours; they are common names."""
    for name in _PACKAGES:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        folders = [] if found is None else [Path(each).resolve() for each in found.submodule_search_locations or ()]
        if folders == [_ROOT / name]:
            continue
        where = folders[0] if folders else found.origin if found is not None else None
        got = "nothing of that name is installed" if where is None else f"Python finds {str(where)!r} first"
        remedy = f"run make setup, or put {str(_ROOT)!r} first in PYTHONPATH"
        print(f"error: {name} must be the package beside this script; {got} ({remedy})", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ends the process at once at a signal: imports leave nothing to save, and some turn a Ctrl-C into other errors."""

    def end(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, b"error: interrupted\n")
        os._exit(128 + number)

    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    # A signal that whoever started us ignores stays ignored.
    changed = {number: default for number, default in defaults.items() if signal.getsignal(number) is default}
    for number in changed:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, default in changed.items():
            signal.signal(number, default)
