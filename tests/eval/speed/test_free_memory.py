"""What a container's processes hold already is not free, but what they have read from files is."""

from pathlib import Path

import pytest

from eval.speed import free_memory

GIBIBYTE = 2**30


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    facts = tmp_path / "meminfo"
    facts.write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * 2**20} kB\n", encoding="ascii")
    monkeypatch.setattr(free_memory, "_MEMINFO", facts)
    monkeypatch.setattr(free_memory, "_GROUPS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    monkeypatch.setattr(free_memory, "backend", lambda: "cpu")
    (tmp_path / "memory.current").write_text(f"{3 * GIBIBYTE}\n", encoding="ascii")
    return tmp_path


def test_without_a_limit_it_is_what_the_kernel_calls_available(group: Path) -> None:
    assert free_memory.free_bytes() == 8 * GIBIBYTE
    (group / "memory.max").write_text("max\n", encoding="ascii")
    assert free_memory.free_bytes() == 8 * GIBIBYTE


def test_a_limit_leaves_what_is_not_in_use(group: Path) -> None:
    (group / "memory.max").write_text(f"{4 * GIBIBYTE}\n", encoding="ascii")
    assert free_memory.free_bytes() == GIBIBYTE
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {GIBIBYTE}\n", encoding="ascii")
    assert free_memory.free_bytes() == 2 * GIBIBYTE
    (group / "memory.max").write_text(f"{GIBIBYTE}\n", encoding="ascii")
    assert free_memory.free_bytes() == 0


def test_a_limit_above_what_is_available_changes_nothing(group: Path) -> None:
    (group / "memory.max").write_text(f"{64 * GIBIBYTE}\n", encoding="ascii")
    assert free_memory.free_bytes() == 8 * GIBIBYTE
