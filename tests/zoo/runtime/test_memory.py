"""What the allocator holds, how much this process may use on made-up machines, and what is refused."""

import resource
from pathlib import Path

import mlx.core as mx
import pytest

from zoo.config import UserError
from zoo.runtime import memory
from zoo.runtime.memory import (
    active_bytes,
    is_exhaustion,
    oom_kills,
    peak_bytes,
    readable_bytes,
    require_room,
    reset_peak,
    usable_bytes,
)

GIBIBYTE = 2**30


def test_the_peak_counts_what_is_gone_again_until_it_is_reset() -> None:
    reset_peak()
    before = active_bytes()
    array = mx.zeros((1031, 1000), dtype=mx.float32)
    mx.eval(array)
    assert active_bytes() - before >= 4 * 1031 * 1000
    del array
    assert peak_bytes() - before >= 4 * 1031 * 1000
    reset_peak()
    assert peak_bytes() <= before


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine with 8 GiB available and no limit."""
    monkeypatch.setattr(memory, "backend", lambda: "cpu")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write(tmp_path, "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {8 * 2**20} kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def limit(root: Path, group: str, most: str, used: int, droppable: int = 0) -> None:
    """A limit by version 2 of control groups."""
    write(root, f"sys/fs/cgroup{group}/memory.max", f"{most}\n")
    write(root, f"sys/fs/cgroup{group}/memory.current", f"{used}\n")
    write(root, f"sys/fs/cgroup{group}/memory.stat", f"anon 5\ninactive_file {droppable}\n")


def test_without_a_limit_it_is_what_the_kernel_calls_available(machine: Path) -> None:
    assert usable_bytes(root=machine) == 8 * GIBIBYTE
    write(machine, "proc/self/cgroup", "0::/job\n")
    limit(machine, "/job", "max", 3 * GIBIBYTE)
    assert usable_bytes(root=machine) == 8 * GIBIBYTE


def test_a_limit_leaves_what_is_not_in_use_but_for_files_that_can_go(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/job\n")
    limit(machine, "/job", str(4 * GIBIBYTE), 3 * GIBIBYTE)
    assert usable_bytes(root=machine) == GIBIBYTE
    limit(machine, "/job", str(4 * GIBIBYTE), 3 * GIBIBYTE, droppable=GIBIBYTE)
    assert usable_bytes(root=machine) == 2 * GIBIBYTE
    limit(machine, "/job", str(GIBIBYTE), 3 * GIBIBYTE)
    assert usable_bytes(root=machine) == 0


def test_the_tightest_limit_among_the_groups_above_wins(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/user/job\n")
    limit(machine, "/user/job", str(64 * GIBIBYTE), 0)
    limit(machine, "/user", str(5 * GIBIBYTE), 3 * GIBIBYTE)
    assert usable_bytes(root=machine) == 2 * GIBIBYTE
    # Inside a container the outer groups' names lead nowhere, and its own is the root.
    write(machine, "proc/self/cgroup", "0::/not/to/be/seen/here\n")
    limit(machine, "", str(3 * GIBIBYTE), 2 * GIBIBYTE)
    assert usable_bytes(root=machine) == GIBIBYTE


def test_a_limit_of_version_1_counts_too(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "4:memory:/job\n2:cpu:/other\n0::/\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{4 * GIBIBYTE}\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{3 * GIBIBYTE}\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.stat", f"total_inactive_file {GIBIBYTE}\n")
    assert usable_bytes(root=machine) == 2 * GIBIBYTE


@pytest.mark.parametrize(("kind", "name"), [(resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")])
def test_a_limit_of_the_process_leaves_what_it_does_not_have_yet(
    kind: int, name: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {kind: (3 * GIBIBYTE, 3 * GIBIBYTE)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: limits.get(asked, unlimited))
    write(machine, "proc/self/status", f"Name: x\n{name}:\t {2**20} kB\n")
    assert usable_bytes(root=machine) == 2 * GIBIBYTE


@pytest.mark.parametrize("most", ["", "much", "-1", "9" * 5000, "1.5", "²"])
def test_malformed_limits_say_nothing(most: str, machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/job\n:::\n\n5\n")
    (machine / "sys/fs/cgroup/job").mkdir(parents=True)
    (machine / "sys/fs/cgroup/job/memory.max").write_text(most, encoding="utf-8")
    write(machine, "sys/fs/cgroup/job/memory.current", "none\n")
    write(machine, "sys/fs/cgroup/job/memory.stat", "inactive_file\n\ninactive_file x\n")
    write(machine, "sys/fs/cgroup/job/memory.events", "oom_kill\n")
    assert usable_bytes(root=machine) == 8 * GIBIBYTE
    assert oom_kills(root=machine) == 0


def test_killed_processes_of_the_group_are_counted(machine: Path) -> None:
    assert oom_kills(root=machine) == 0
    write(machine, "proc/self/cgroup", "4:memory:/job\n0::/\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert oom_kills(root=machine) == 2
    write(machine, "proc/self/cgroup", "0::/job\n")
    write(machine, "sys/fs/cgroup/job/memory.events", "low 0\noom 4\noom_kill 3\n")
    assert oom_kills(root=machine) == 3


def test_what_does_not_fit_is_refused_with_what_it_needs_and_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_bytes", lambda: 2_000_000_000)
    limits: list[int] = []
    monkeypatch.setattr(mx, "set_memory_limit", limits.append)
    require_room(2_000_000_000, "the thing", allow_large=False, remedy="make it smaller")
    require_room(10**30, "the thing", allow_large=True, remedy="make it smaller")
    with pytest.raises(UserError) as caught:
        require_room(2_340_000_000, "the thing", allow_large=False, remedy="make it smaller")
    assert str(caught.value) == (
        "the thing must fit into memory; it would need about 2.3 GB, and this process may use 2.0 GB "
        "(make it smaller, or allow_large=true to insist)"
    )
    assert all(limit >= 2_000_000_000 for limit in limits)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_234, "1.2 kB"), (5_000_000, "5.0 MB"), (10**27, "1.0e+18 GB")],
)
def test_bytes_are_shown_for_people(count: int, shown: str) -> None:
    assert readable_bytes(count) == shown


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (MemoryError(), True),
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("[matmul] shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_exhaustion_is_told_from_other_errors(error: Exception, exhausted: bool) -> None:
    assert is_exhaustion(error) is exhausted
