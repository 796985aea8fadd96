"""How many cores this process may use: the smaller of its CPU affinity and its control groups' quotas."""

import math
import os
from pathlib import Path, PurePosixPath


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
    for group in _groups(root, controller=""):
        fields = _read(root / "sys/fs/cgroup" / group / "cpu.max").split()
        if len(fields) == 2 and fields[0] != "max":
            quotas.append(int(fields[0]) / int(fields[1]))
    return quotas


def _quotas_v1(root: Path) -> list[float]:
    """The same for version 1 of control groups, where -1 means no quota."""
    quotas = []
    for group in _groups(root, controller="cpu"):
        folder = root / "sys/fs/cgroup/cpu" / group
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return quotas


def _groups(root: Path, *, controller: str) -> list[PurePosixPath]:
    """The process's control group and those above it; version 2 lists its one hierarchy under an empty controller."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            return [group, *group.parents]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
