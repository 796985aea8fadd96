"""Copies of models that take no memory: modules of their own around the same arrays."""

import copy
from typing import Any, TypeVar

import mlx.nn as nn

Part = TypeVar("Part")


def copied(part: Part) -> Part:
    """A model that can be changed, trained and frozen without the one it was copied from.

    Args:
        part: A module. MLX's arrays never change, so copies share them, and whatever else is no module.
    """
    made: Any = part
    if isinstance(part, nn.Module):
        made = copy.copy(part)
        # What is frozen is a set, which freezing changes in place.
        vars(made).update({name: set(value) for name, value in vars(part).items() if isinstance(value, set)})
        for name, value in part.items():
            made[name] = copied(value)
    elif isinstance(part, list):
        made = [copied(each) for each in part]
    return made
