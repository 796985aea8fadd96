"""Whatever a cell does, its row says it in one status and one line, and what it is at is announced."""

import multiprocessing

import pytest

from eval.bench import MeasureOptions, process
from eval.bench.process import Stage, Step, from_exception, from_exit_code, serve
from eval.bench.worker import measure_memory
from tests.eval.rows_factory import planted
from zoo.config import FieldError


@pytest.mark.parametrize(
    ("error", "stage", "status", "said"),
    [
        (MemoryError(), Stage.CALLED, "out_of_memory", "no memory"),
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), Stage.CALLED, "out_of_memory", "9 bytes"),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes"), Stage.CALLED, "out_of_memory", "9 bytes"),
        (RuntimeError("[matmul] shapes differ"), Stage.CALLED, "crashed", "RuntimeError: [matmul] shapes differ"),
        (FieldError("causal must be true"), Stage.CALLED, "unavailable", "causal must be true"),
        (ValueError("[matmul] shapes"), Stage.BUILT, "crashed", "ValueError: [matmul] shapes (while it was built)"),
        (TypeError("one\nlast line"), Stage.CHECKED, "crashed", "TypeError: last line (while it was checked)"),
    ],
)
def test_an_exception_becomes_a_status_and_a_line(error: Exception, stage: Stage, status: str, said: str) -> None:
    outcome = from_exception(error, stage)
    assert outcome.status == status
    assert said in outcome.reason
    assert len(outcome.reason.splitlines()) == 1


@pytest.mark.parametrize("killed_for_memory", [False, True])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    ("code", "said"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-6, "SIGABRT"), (-7, "SIGBUS"), (-8, "SIGFPE"), (3, "3")]
)
def test_a_dead_process_is_out_of_memory_or_crashed(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, limited: bool, killed_for_memory: bool
) -> None:
    monkeypatch.setattr(process, "address_space_is_limited", lambda: limited)
    outcome = from_exit_code(code, Stage.CALLED, killed_for_memory=killed_for_memory)
    starved = code == -9 or (killed_for_memory and code < 0) or (limited and code in (-11, -6, -7))
    assert outcome.status == ("out_of_memory" if starved else "crashed")
    assert killed_for_memory or said in outcome.reason
    assert "while it was called" in outcome.reason
    assert ("ulimit" in outcome.reason) == (limited and not killed_for_memory and code in (-11, -6, -7))


def test_each_call_is_a_step_when_memory_is_measured_so_that_slow_ones_together_do_not_count_as_hung() -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send("begin")
    step = Step()
    serve(measure_memory, [planted("adds")], MeasureOptions(workloads="tests.eval.bench.planted"), theirs, step)
    index, outcome = ours.recv()
    assert (index, outcome.status, outcome.memory.analytic_bytes) == (0, "ok", 2 * 2**20)
    assert ours.recv() is None
    # One build, a call that compiles, and at least five whose peaks are compared.
    assert step.count >= 1 + 1 + 5
