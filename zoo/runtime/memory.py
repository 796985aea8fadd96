"""Memory: what MLX's allocator holds, how much this process may use, and whether what is asked for fits.

What the allocator holds is not the process's resident memory, which counts the interpreter and its libraries too.
"""

import os
import resource
from pathlib import Path

import mlx.core as mx

from zoo.config import UserError
from zoo.runtime.backend import backend
from zoo.runtime.control_groups import entry, group_folders, number, read_text

# Of what an accelerator or a Mac has in all: the rest is the system's and other programs'.
_SHARE = 0.75
_KIBIBYTE = 1024
# Limit, what is in use, and how much of that is files that the kernel drops when memory is short: of version 2 and of
# version 1 of control groups, by the name of the controller.
_LIMITS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
# How MLX's allocators and the C++ library word it; all of them arrive as RuntimeError.
_EXHAUSTED = ("[malloc", "malloc]", "bad_alloc", "out of memory", "unable to allocate", "insufficient memory")


def peak_bytes() -> int:
    """Most bytes held by arrays at one time since `reset_peak`, or since the process began."""
    return mx.get_peak_memory()


def active_bytes() -> int:
    """Bytes that arrays hold now."""
    return mx.get_active_memory()


def reset_peak() -> None:
    """Forgets the peak so far, and returns the buffers that the allocator kept for reuse."""
    mx.clear_cache()
    mx.reset_peak_memory()


def usable_bytes(*, root: Path = Path("/")) -> int:
    """Bytes of arrays that this process may still add without being refused or killed, or pushing others out.

    On a Linux CPU what the kernel calls available, held to what control groups and the process's own limits leave;
    elsewhere a share of the device's memory, since no portable call says how much of it is free.

    Args:
        root: Where `proc` and `sys` are looked for.
    """
    available = entry(read_text(root / "proc/meminfo"), "MemAvailable") * _KIBIBYTE
    if backend() == "cpu" and available:
        return max(0, min([available, *_left_in_groups(root), *_left_to_process(root)]))
    facts = mx.device_info()
    named = [facts[key] for key in ("max_recommended_working_set_size", "total_memory", "memory_size") if key in facts]
    total = int(named[0]) if named else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_SHARE * total)


def require_room(needed: int, what: str, *, allow_large: bool, remedy: str) -> None:
    """Refuses what does not fit into memory, and holds MLX to the memory there is.

    Without that hold MLX's main thread allocates ahead of the thread that computes and frees, up to the machine's
    memory, whatever this process may use of it.

    Args:
        needed: Bytes that it would need.
        what: What needs them, for the message.
        allow_large: Whether the user insists.
        remedy: What to make smaller, for the message.

    Raises:
        UserError: With what it would need and what there is.
    """
    usable = usable_bytes()
    if backend() == "cpu":
        mx.set_memory_limit(active_bytes() + usable)
    if needed > usable and not allow_large:
        raise UserError(
            f"{what} must fit into memory; it would need about {readable_bytes(needed)}, and this process may use "
            f"{readable_bytes(usable)} ({remedy}, or allow_large=true to insist)"
        )


def is_exhaustion(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in words for each in _EXHAUSTED)
    )


def readable_bytes(count: int) -> str:
    """A number of bytes for people: `1.2 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            amount = count / size
            return f"{amount:.1f} {unit}" if amount < 10**6 else f"{amount:.1e} {unit}"
    return f"{count} bytes"


def address_space_is_limited() -> bool:
    """Whether `ulimit -v` or `ulimit -d` bounds this process and those that it starts."""
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


def oom_kills(*, root: Path = Path("/")) -> int:
    """How many processes of this control group the kernel has killed for want of memory."""
    for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
        for folder in group_folders(root, controller=controller):
            text = read_text(folder / name)
            if text:
                return entry(text, "oom_kill")
    return 0


def _left_in_groups(root: Path) -> list[int]:
    found = []
    for controller, (limit, usage, droppable) in _LIMITS.items():
        for folder in group_folders(root, controller=controller):
            most, used = number(read_text(folder / limit)), number(read_text(folder / usage))
            if most is not None and used is not None:
                found.append(most - max(0, used - entry(read_text(folder / "memory.stat"), droppable)))
    return found


def _left_to_process(root: Path) -> list[int]:
    """What `ulimit -v` and `ulimit -d` leave of address space and data."""
    status = read_text(root / "proc/self/status")
    limits = {"VmSize": resource.RLIMIT_AS, "VmData": resource.RLIMIT_DATA}
    soft = {name: resource.getrlimit(kind)[0] for name, kind in limits.items()}
    return [limit - entry(status, name) * _KIBIBYTE for name, limit in soft.items() if limit != resource.RLIM_INFINITY]
