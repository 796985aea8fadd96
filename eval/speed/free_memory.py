"""How many bytes arrays may take on this machine now."""

import os
from pathlib import Path

import mlx.core as mx

from zoo.runtime.backend import backend

_MEMINFO = Path("/proc/meminfo")
# The limit of a container, version 2 and version 1 of Linux's control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# Of what an accelerator or a Mac has in all: the rest is the system's and other programs'.
_SHARE = 0.75
_KIBIBYTE = 1024


def free_bytes() -> int:
    """Bytes that a new process may use without pushing others out.

    On a Linux CPU what the kernel calls available, held to the container's limit; elsewhere a share of the device's
    memory, since no portable call says how much of it is free.
    """
    if backend() == "cpu" and _MEMINFO.is_file():
        return min([_available(), *_container_limits()])
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


def _container_limits() -> list[int]:
    texts = [path.read_text(encoding="ascii").strip() for path in _LIMITS if path.is_file()]
    return [int(text) for text in texts if text.isdigit()]
