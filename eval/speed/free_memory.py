"""How many bytes arrays may take on this machine now."""

import os
from pathlib import Path

import mlx.core as mx

from zoo.runtime.backend import backend

_MEMINFO = Path("/proc/meminfo")
# Linux's control groups, version 2 and version 1: folder, limit, what is in use, and how much of that is files that the
# kernel drops when memory is short.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# Of what an accelerator or a Mac has in all: the rest is the system's and other programs'.
_SHARE = 0.75
_KIBIBYTE = 1024


def free_bytes() -> int:
    """Bytes that a new process may use without pushing others out.

    On a Linux CPU what the kernel calls available, held to what the container's limit leaves; elsewhere a share of the
    device's memory, since no portable call says how much of it is free.
    """
    if backend() == "cpu" and _MEMINFO.is_file():
        return min([_available(), *_left_in_containers()])
    facts = mx.device_info()
    named = [facts[key] for key in ("max_recommended_working_set_size", "total_memory", "memory_size") if key in facts]
    total = int(named[0]) if named else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_SHARE * total)


def _available() -> int:
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * _KIBIBYTE
    raise RuntimeError(f"{_MEMINFO} does not say what is available")


def _left_in_containers() -> list[int]:
    found = []
    for folder, limit, usage, droppable in _GROUPS:
        if not (folder / limit).is_file() or not (folder / usage).is_file():
            continue
        text = (folder / limit).read_text(encoding="ascii").strip()
        if text.isdigit():
            used = int((folder / usage).read_text(encoding="ascii")) - _droppable(folder / "memory.stat", droppable)
            found.append(max(0, int(text) - used))
    return found


def _droppable(statistics: Path, name: str) -> int:
    lines = statistics.read_text(encoding="ascii").splitlines() if statistics.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.split()[0] == name)
