"""Lets modules of mlx-lm be imported without all that the package itself imports.

Its caches, rotary positions and adapters need MLX alone. The package around them imports transformers, which took half
of the time in which a command of ours starts. So the package imports what it does at the first use of a name of it.
"""

import importlib.util
import os
import sys
import threading
from typing import Any

# The outer one first.
_PACKAGES = ("mlx_lm", "mlx_lm.tuner")
_executing = threading.RLock()


def activate() -> None:
    """Defers what these packages import, unless they are there already; once per process."""
    # mlx-lm itself says so, which is too late for modules of it that import transformers first.
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    for name in _PACKAGES:
        if name not in sys.modules:
            defer(name)


def defer(name: str) -> None:
    """Puts a package among the imported modules that is executed when a name is missing in it; or nothing, if none."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader, package = spec.loader, importlib.util.module_from_spec(spec)
    begun = False

    def find(attribute: str) -> Any:
        nonlocal begun
        # Other threads wait; what the package imports asks in this one.
        with _executing:
            if not begun:
                begun = True
                try:
                    loader.exec_module(package)
                except BaseException:
                    begun = False
                    raise
                if vars(package).get("__getattr__") is find:
                    del package.__getattr__
                return getattr(package, attribute)
            if attribute in vars(package):
                return vars(package)[attribute]
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    package.__getattr__ = find  # type: ignore[method-assign]
    sys.modules[name] = package
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, package)
