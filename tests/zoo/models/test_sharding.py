"""A model that two processes share gives the logits of the whole one, and each holds half of it, or is refused."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.models.sharded import CASES

ROOT = Path(__file__).resolve().parents[3]
# Sums of two parts are rounded otherwise than whole ones.
TOLERANCE = 1e-5
# Norms are whole in both.
SHARE = 0.55


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the first of two processes found out, as MLX's launcher would start them."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(2)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        hosts = [[f"127.0.0.1:{port.getsockname()[1]}"] for port in ports]
    hostfile = tmp_path_factory.mktemp("hosts") / "hosts.json"
    hostfile.write_text(json.dumps(hosts))
    first, second = (
        subprocess.Popen(
            [sys.executable, "-m", "tests.zoo.models.sharded"],
            cwd=ROOT,
            env={**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hostfile)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    shown, errors = first.communicate()
    second.communicate()
    lines = [json.loads(line) for line in shown.splitlines()]
    assert len(lines) == len(CASES), errors
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
