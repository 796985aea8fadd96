"""How many cores this process may use: the smaller of its CPU affinity and its control groups' quotas."""

import math
import os
from pathlib import Path

from zoo.runtime.control_groups import group_folders, number, read_text


def usable_cores(*, root: Path = Path("/")) -> int:
    """Cores that this process may use at the same time.

    Args:
        root: Where `proc/self/cgroup` and `sys/fs/cgroup` are looked for.

    Returns:
        At least 1. A quota that is no whole number of cores is rounded up.
    """
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return max(1, min([_affinity(), *(math.ceil(quota) for quota in quotas)]))


def _affinity() -> int:
    # macOS has no affinity and no such function.
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _quotas_v2(root: Path) -> list[float]:
    """Quotas of the process's group and of the groups above it: `cpu.max` holds "<microseconds|max> <period>"."""
    quotas = []
    for folder in group_folders(root, controller=""):
        fields = read_text(folder / "cpu.max").split()
        if len(fields) == 2:
            quotas += _quota(*fields)
    return quotas


def _quotas_v1(root: Path) -> list[float]:
    """The same for version 1 of control groups, where -1 means no quota."""
    quotas = []
    for folder in group_folders(root, controller="cpu"):
        quotas += _quota(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))
    return quotas


def _quota(microseconds: str, period: str) -> list[float]:
    """Cores, in a list that is empty where there is no quota."""
    allowed, each = number(microseconds), number(period)
    return [allowed / each] if allowed and each else []
