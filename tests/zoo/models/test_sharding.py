"""A model that two processes share gives the logits of the whole one, and each holds half of it, or is refused."""

from typing import Any

import pytest

from tests.ring import told_by_leader
from tests.zoo.models.sharded import CASES

# Sums of two parts are rounded otherwise than whole ones.
TOLERANCE = 1e-5
# Norms are whole in both.
SHARE = 0.55


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the first of two processes found out, as MLX's launcher would start them."""
    lines = told_by_leader("tests.zoo.models.sharded", tmp_path_factory.mktemp("ring"))
    assert len(lines) == len(CASES)
    return {line.pop("name"): line for line in lines}


REFUSED = {
    "alibi": "launch.processes must be 1 with ALiBi, whose biases count the heads; got 2",
    "one head": "launch.processes must divide the 1 heads of model.num_kv_heads (attention=mqa); got 2",
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_two_processes_share_a_model_or_say_why_not(name: str, found: dict[str, dict[str, Any]]) -> None:
    case = found[name]
    if "refused" in case:
        assert str(case["refused"]).startswith("launch.processes must ")
        assert case["refused"] == REFUSED.get(name, case["refused"])
        return
    assert name not in REFUSED
    assert max(case["difference"], case["cached_difference"]) < TOLERANCE, case
    assert max(case["weights"], case["cache"]) <= SHARE, case
