"""Whatever a cell does, its row says it in one status and one line."""

import pytest

from eval.speed import failures
from eval.speed.failures import from_exception, from_exit_code, from_silence
from eval.speed.protocol import Stage
from zoo.config import FieldError


@pytest.mark.parametrize(
    ("error", "stage", "status", "said"),
    [
        (MemoryError(), Stage.CALLING, "out_of_memory", "no memory"),
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), Stage.CALLING, "out_of_memory", "9 bytes"),
        (RuntimeError("std::bad_alloc"), Stage.BUILDING, "out_of_memory", "bad_alloc"),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes"), Stage.CALLING, "out_of_memory", "9 bytes"),
        (RuntimeError("[matmul] shapes differ"), Stage.CALLING, "crashed", "RuntimeError: [matmul] shapes differ"),
        (FieldError("causal must be true"), Stage.CALLING, "unavailable", "causal must be true"),
        (ValueError("[matmul] shapes"), Stage.BUILDING, "crashed", "ValueError: [matmul] shapes"),
        (ValueError("[reshape] wrong size"), Stage.CALLING, "crashed", "ValueError: [reshape] wrong size"),
        (TypeError("one\nlast line"), Stage.CHECKING, "crashed", "TypeError: last line (while it was checked)"),
    ],
)
def test_an_exception_becomes_a_status_and_a_line(error: Exception, stage: Stage, status: str, said: str) -> None:
    found, reason = from_exception(error, stage)
    assert found == status
    assert said in reason
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [(-9, "out_of_memory", "SIGKILL"), (-11, "crashed", "SIGSEGV"), (-6, "crashed", "SIGABRT"), (3, "crashed", "3")],
)
def test_a_dead_process_becomes_a_status_and_a_line(code: int, status: str, said: str) -> None:
    found, reason = from_exit_code(code, Stage.CALLING)
    assert found == status
    assert said in reason


def test_a_process_that_died_for_want_of_memory_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_exit_code(-9, Stage.CALLING, killed_for_memory=True)[0] == "out_of_memory"
    assert from_exit_code(-11, Stage.CALLING, killed_for_memory=True)[0] == "out_of_memory"
    assert from_exit_code(3, Stage.CALLING, killed_for_memory=True)[0] == "crashed"
    monkeypatch.setattr(failures, "address_space_is_limited", lambda: True)
    for code in (-11, -6, -7):
        status, reason = from_exit_code(code, Stage.CALLING)
        assert status == "out_of_memory"
        assert "ulimit" in reason
    assert from_exit_code(-8, Stage.CALLING)[0] == "crashed"


def test_a_hanging_cell_says_how_long_it_was_waited_for() -> None:
    assert from_silence(2.5, Stage.CALLING) == (
        "crashed",
        "took longer than 2.5 s over one step while it was called, and was stopped",
    )
