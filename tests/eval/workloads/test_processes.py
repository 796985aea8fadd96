"""Several processes are timed as one is, and the gate sees whether they compute what one does."""

import json

import pytest

from eval.bench import Workload
from eval.workloads import processes
from tests.eval.workloads.settings import cell


def several(number: int, mode: str, **changes: object) -> Workload:
    detail = json.dumps({"processes": number, "threads": 1})
    return processes.build(cell("processes", "mha", mode=mode, detail=detail, **changes))


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_again_and_again() -> None:
    workload = several(2, "step", model="gpt_tiny", length=16, batch_size=4)
    found = workload.check()
    assert found.passed, found
    assert found.checks == "loss of step 1 beside one process; loss of step 2 beside one process"
    assert workload.call() != workload.call()
    assert workload.work.tokens == 64


@pytest.mark.slow
def test_gradients_that_are_not_averaged_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the process beside: as if the several had seen other gradients.
    monkeypatch.setattr(processes, "LEARNING_RATE", 3 * processes.LEARNING_RATE)
    found = several(1, "step", model="gpt_tiny", length=16, batch_size=4).check()
    assert not found.passed
    assert found.checks.startswith("loss of step 2 beside one process: error ")


@pytest.mark.slow
def test_an_exchange_adds_up_what_every_process_has() -> None:
    workload = several(2, "all_sum", length=300)
    assert workload.call() == 2
    assert workload.check().passed


def test_rows_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_sizes must be multiples of 2; got 3"):
        several(2, "step", model="gpt_tiny", length=16, batch_size=3)
