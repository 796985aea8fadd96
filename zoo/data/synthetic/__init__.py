"""Synthetic tasks: what a mechanism can recall, copy and find, with answers that are right or wrong. One file each."""

from collections.abc import Mapping
from typing import Any

from zoo.config import UserError, from_mapping
from zoo.data.synthetic.copying import Copying
from zoo.data.synthetic.induction import Induction
from zoo.data.synthetic.mqar import MultiQueryRecall
from zoo.data.synthetic.needle import Needle
from zoo.data.synthetic.selective_copying import SelectiveCopying
from zoo.data.synthetic.task import Setting, SyntheticLoader, SyntheticTask

__all__ = [
    "SYNTHETIC_TASKS",
    "Copying",
    "Induction",
    "MultiQueryRecall",
    "Needle",
    "SelectiveCopying",
    "Setting",
    "SyntheticLoader",
    "SyntheticTask",
    "synthetic_task_from_mapping",
]

SYNTHETIC_TASKS: dict[str, type[SyntheticTask]] = {
    task.name: task for task in (MultiQueryRecall, Copying, Induction, Needle, SelectiveCopying)
}


def synthetic_task_from_mapping(mapping: Mapping[str, Any], *, path: str = "data") -> SyntheticTask:
    """Builds a task from what `configs/data/*.yaml` or a checkpoint holds.

    Args:
        mapping: `corpus`, which names the task, and the task's fields.
        path: Config path for messages.

    Returns:
        The task.

    Raises:
        UserError: On an unknown task, key or value.
    """
    rest = dict(mapping)
    name = rest.pop("corpus", None)
    if not isinstance(name, str) or name not in SYNTHETIC_TASKS:
        raise UserError(
            f"{path}: corpus must be a synthetic task; got {name!r} (choices: {', '.join(SYNTHETIC_TASKS)})"
        )
    return from_mapping(SYNTHETIC_TASKS[name], rest, path=path)
