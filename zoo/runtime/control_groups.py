"""Linux's control groups, versions 1 and 2: where the limits of this process stand. What is malformed says nothing."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNT = "sys/fs/cgroup"


def group_folders(root: Path, *, controller: str) -> Iterator[Path]:
    """Folders of the process's group and of those above it, nearest first; some may not be there.

    Args:
        root: Where `proc/self/cgroup` and `sys/fs/cgroup` are looked for.
        controller: Name of a controller of version 1; empty for version 2, which has one hierarchy for all.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) < 3 or number(fields[0]) is None:
            continue
        _, controllers, path = fields
        if controller in controllers.split(",") and ".." not in path.split("/"):
            group = PurePosixPath(path.lstrip("/"))
            yield from (root / MOUNT / controller / each for each in (group, *group.parents))
            return


def read_text(path: Path) -> str:
    """A small file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except (OSError, ValueError):
        return ""


def number(text: str) -> int | None:
    """A whole number of at most 20 digits, which hold every count of the kernel's; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def entry(text: str, name: str) -> int:
    """The number that follows a name in a table of lines; 0 if there is none."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0].rstrip(":") == name:
            return number(fields[1]) or 0
    return 0
