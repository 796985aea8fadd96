"""The model of a step's time over processes finds the constants that times were made of, and says what others take."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from eval.rows import Row
from eval.suites import scaling
from eval.suites.scaling import BATCHES, LINKS, MACHINES, PROCESSES, Scaling, plan, summary
from tests.eval.rows_factory import MACHINE, noisy, speed_row

TRUE = Scaling(fixed=0.02, row=0.03, crowding=0.2, latency=2e-4, per_byte=1e-9)
GRADIENT_BYTES = 4 * 1_121_024


def rows_of(by: Scaling) -> list[Row]:
    """What the suite would measure where every step takes what the model says."""
    found = []
    for cell in (cell for group in plan() for cell in group.cells):
        how = json.loads(cell.detail)
        if how["threads"] > 1:
            continue
        if cell.mode == "all_sum":
            seconds = by.exchange(how["processes"], 4 * cell.length, MACHINE.cores)
        else:
            seconds = by.step(how["processes"], cell.batch_size, GRADIENT_BYTES, MACHINE.cores)
        found.append(speed_row(cell, noisy(seconds, rounds=12)))
    return found


@pytest.fixture(scope="module")
def figures() -> Sequence[dict[str, Any]]:
    return summary(rows_of(TRUE))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Scaling)])
def test_the_constants_that_times_were_made_of_are_found(name: str, figures: Sequence[dict[str, Any]]) -> None:
    (found,) = (each for each in figures if each.get("name") == name)
    assert found["value"] == pytest.approx(getattr(TRUE, name), rel=0.15)
    assert found["low"] <= found["value"] * 1.0001
    assert found["value"] <= found["high"] * 1.0001


def test_the_largest_batch_is_predicted_and_not_fitted(figures: Sequence[dict[str, Any]]) -> None:
    held_out = [each for each in figures if each["figure"] == "seconds" and each["held_out"]]
    assert len(held_out) == len(PROCESSES)
    for each in held_out:
        assert f"B={BATCHES[-1]} " in each["group"]
        assert each["value"] == pytest.approx(each["measured"], rel=0.05)
    slower = [
        speed_row(row.cell, [2 * seconds for seconds in row.timing.samples_seconds])
        if row.cell and row.timing and row.cell.mode == "step" and row.cell.batch_size == BATCHES[-1]
        else row
        for row in rows_of(TRUE)
    ]
    again = [each for each in summary(slower) if each["figure"] == "seconds" and each["held_out"]]
    assert [each["value"] for each in again] == [each["value"] for each in held_out]
    assert [each["measured"] for each in again] != [each["measured"] for each in held_out]


def test_a_faster_link_makes_more_of_as_many_machines(figures: Sequence[dict[str, Any]]) -> None:
    speeds = {(each["link"], each["machines"]): each["value"] for each in figures if "link" in each}
    assert len(speeds) == len(LINKS) * len(MACHINES)
    for machines in MACHINES:
        of_links = [speeds[link, machines] for link in LINKS]
        assert of_links == sorted(of_links)
        assert 0 < of_links[0] < of_links[-1] <= machines


def test_too_few_measurements_make_no_model() -> None:
    (only,) = summary([row for row in rows_of(TRUE) if row.cell and row.cell.mode == "all_sum"])
    assert only["figure"] == "rows by status"


def test_more_processes_than_cores_take_turns() -> None:
    one, four = (TRUE.step(each, 8, 0, 2) for each in (1, 4))
    assert four > 2 * one / 4
    assert scaling.Scaling(fixed=0, row=1, crowding=0, latency=0, per_byte=0).step(4, 8, 0, 2) == pytest.approx(4)
