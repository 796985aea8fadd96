"""Whatever a cell does, its row says it in one status and one line."""

import pytest

from eval.bench import job
from eval.bench.job import Stage, from_exception, from_exit_code, from_silence
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
        (TypeError("one\nlast line"), Stage.CHECKING, "crashed", "TypeError: last line (while it was checked)"),
    ],
)
def test_an_exception_becomes_a_status_and_a_line(error: Exception, stage: Stage, status: str, said: str) -> None:
    found, reason = from_exception(error, stage)
    assert found == status
    assert said in reason
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize("killed_for_memory", [False, True])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    ("code", "said"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-6, "SIGABRT"), (-7, "SIGBUS"), (-8, "SIGFPE"), (3, "3")]
)
def test_a_dead_process_is_out_of_memory_or_crashed(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, limited: bool, killed_for_memory: bool
) -> None:
    monkeypatch.setattr(job, "address_space_is_limited", lambda: limited)
    status, reason = from_exit_code(code, Stage.CALLING, killed_for_memory=killed_for_memory)
    starved = code == -9 or (killed_for_memory and code < 0) or (limited and code in (-11, -6, -7))
    assert status == ("out_of_memory" if starved else "crashed")
    assert killed_for_memory or said in reason
    assert ("ulimit" in reason) == (limited and not killed_for_memory and code in (-11, -6, -7))


def test_a_hanging_cell_says_how_long_it_was_waited_for() -> None:
    assert from_silence(2.5, Stage.CALLING) == (
        "crashed",
        "took longer than 2.5 s over one step while it was called, and was stopped",
    )
