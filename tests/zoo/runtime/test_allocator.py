"""Freed memory stays in the process, counted by the kernel's own page faults."""

import os
import subprocess
import sys

import pytest

from zoo.runtime import allocator

# Ten rounds over arrays of 16 MiB, 4,096 pages each: mapped anew each time, or kept.
FAULTS = """
import zoo
import resource
import mlx.core as mx
def work():
    a = mx.ones((2048, 2048))
    mx.eval(((a + 1) * 2) - 3)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has the switch")
def test_an_array_reuses_the_memory_of_the_last_one() -> None:
    assert _faults() < 1_000
    assert _faults(MALLOC_MMAP_THRESHOLD_="131072") > 5_000


def test_an_environment_that_configures_the_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert allocator.activate() == "as the system has it"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.activate() == "as the system has it"
