"""Measures and never trains: interleaved timing, peak memory, and the figures that follow from them.

Suites, builders of their own and quality tasks are found by being in their folders.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import zoo  # noqa: F401 - puts the BLAS in place before any module here imports MLX

# The instrument's own suites, and those that only repeat a published experiment, which nothing imports.
SUITES = ("eval.suites", "eval.replications")


def modules(folders: tuple[str, ...]) -> list[ModuleType]:
    """The modules of the folders, in the order of their names."""
    found = []
    for folder in folders:
        names = sorted(each.name for each in pkgutil.iter_modules(importlib.import_module(folder).__path__))
        found += [importlib.import_module(f"{folder}.{each}") for each in names]
    return found


def declared(name: str, folders: tuple[str, ...]) -> list[Any]:
    """The attribute of that name of each module of the folders that has one."""
    return [vars(module)[name] for module in modules(folders) if name in vars(module)]
