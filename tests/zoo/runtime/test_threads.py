"""Cores this process may use, on made-up machines."""

import os
from pathlib import Path

import pytest

from zoo.runtime.threads import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "nonsense\n0\n::\n"},
        {"proc/self/cgroup": "0::/../../job\n"},
        {"proc/self/cgroup": "\x00\xff 0::\n", "sys/fs/cgroup/cpu.max": "1 1\n"},
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "many 100000\n"},
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "100000 0\n"},
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "-1 100000\n"},
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "9" * 5000 + " 100000\n"},
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max/file": ""},
        {
            "proc/self/cgroup": "2:cpu:/job\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "ten\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "0\n",
        },
    ],
)
def test_malformed_files_say_nothing(files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)
    assert usable_cores(root=tmp_path) == 16


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert usable_cores(root=tmp_path) == 16


@pytest.mark.parametrize(("quota", "cores"), [("max", 16), ("700000", 7), ("250000", 3), ("10000", 1), ("9900000", 16)])
def test_a_quota_of_version_2_is_rounded_up(quota: str, cores: int, tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": f"{quota} 100000\n"})
    assert usable_cores(root=tmp_path) == cores


def test_the_tightest_quota_among_the_groups_above_wins(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/job/step\n",
            "sys/fs/cgroup/user/job/step/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user/job/cpu.max": "500000 100000\n",
            "sys/fs/cgroup/user/cpu.max": "1100000 100000\n",
        },
    )
    assert usable_cores(root=tmp_path) == 5


@pytest.mark.parametrize(("quota", "cores"), [("-1", 16), ("300000", 3)])
def test_a_quota_of_version_1_counts_too(quota: str, cores: int, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/other\n2:cpu,cpuacct:/job\n0::/\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": f"{quota}\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        },
    )
    assert usable_cores(root=tmp_path) == cores
