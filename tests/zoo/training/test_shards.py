"""Of several processes each keeps its share of the optimizer's state, or of the weights too; nothing else changes."""

from typing import Any

import pytest

from tests.ring import told_by_leader
from tests.zoo.training.sharded import CASES
from zoo.training.shards import largest_share, shared_out

PROCESSES = 4
# Gradients of scattered sums are rounded otherwise.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    lines = told_by_leader("tests.zoo.training.sharded", tmp_path_factory.mktemp("ring"), processes=PROCESSES)
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", sorted(CASES))
def test_shares_train_as_whole_states_do(name: str, found: dict[str, dict[str, Any]]) -> None:
    assert found[name]["same_names"]
    if name in ("adamw", "lion"):
        # Muon's products are of as many matrices at a time as a process updates, and a compiled graph is fused by what
        # is in it: both are rounded accordingly.
        assert found[name]["different"] == []
    assert found[name]["difference"] <= TOLERANCE


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_process_holds_about_its_share(name: str, found: dict[str, dict[str, Any]]) -> None:
    # The embeddings of so small a model are two fifths of it: one process has them, or all have.
    assert found[name]["share"] < 0.6
    shard, _ = CASES[name]
    rest = sorted(found[name]["held"])[:-1] if shard == "optimizer" else found[name]["held"]
    assert max(rest) < 1.1 * min(rest)


def test_a_back_end_that_cannot_share_weights_is_refused_by_name(found: dict[str, dict[str, Any]]) -> None:
    why = found["refused"]["why"]
    assert why.startswith("launch.shard must be optimizer or null with this back end, which lacks what nn.fully_shard")
    assert "sum_scatter" in why.lower() or "ring" in why.lower()


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_every_name_belongs_to_one_process_and_the_shares_are_even(processes: int) -> None:
    sizes = {f"layer {number}": 100 + number for number in range(23)}
    shares = shared_out(sizes, processes)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    held = [sum(sizes[name] for name in share) for share in shares]
    assert max(held) == largest_share(sizes, processes)
    assert max(held) - min(held) <= max(sizes.values())


def test_more_processes_than_parameters_leave_some_without() -> None:
    assert shared_out({"one": 5, "two": 9}, 3) == [["two"], ["one"], []]
