"""Speed here beside PyTorch's and mlx-lm's: python -m tests.endurance.against_pytorch checkpoint=FOLDER

Every side is a process of its own that loads the same folder in Hugging Face's layout (a Llama or a GPT-2), takes the
same batches of random tokens, and answers one at a time, so that nothing else runs while one is timed; rounds alternate
in an order that turns around. What the sides find at first, the loss or the first token written, must agree to 1e-3.
The last line is JSON: for each side the median seconds of a call and the median of the paired ratios of the first
side's time to its own. Other words:

    sides=sdpa,native,fused,mlx_lm   native, fused and manual are implementations here, sdpa and eager PyTorch's;
                   mlx_lm is mlx-lm with products on our pool, mlx_lm_blas on the same BLAS with its own threads,
                   mlx_lm_stock on that of MLX's wheel; bare_native is the model without `generate.py`'s loop
    what=step      step (AdamW and clipping included), lora (the same of adapters on all linear layers, which needs
                   peft), backward (with the forward pass), forward, decode (`tokens=32` after `length` of a prompt,
                   which is read before the clock starts), op or op_backward (attention alone, without a checkpoint)
    batch_size=4 length=256 rounds=9 steps=3 (calls of a round)
    rows=FILE      adds the records to this file of records, which `report.py` reads
    peer=PYTHON    an interpreter that has torch and transformers; default: this one
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.endurance.peers import OP_HEAD_DIM, OP_HEADS, PEERS, work_of

_DEFAULTS = {"sides": "sdpa,native,fused,mlx_lm", "what": "step", "batch_size": "4", "length": "256", "rounds": "9"}
_DEFAULTS |= {"steps": "3", "tokens": "32", "peer": sys.executable, "checkpoint": ""}
_DIFFERENCE = 1e-3


def main(words: Sequence[str]) -> dict[str, Any]:
    """Runs the rounds."""
    given = _DEFAULTS | dict(word.partition("=")[::2] for word in words)
    names = given["sides"].split(",")
    sides = {name: _Side(name, given) for name in names}
    try:
        first = {name: side.ask(1) for name, side in sides.items()}
        found = [each["found"] for each in first.values()]
        assert max(found) - min(found) < _DIFFERENCE, f"the sides compute different things: {first}"
        # The second call compiles what the first step of an optimizer has made.
        for side in sides.values():
            side.ask(1)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(int(given["rounds"])):
            for name in names if number % 2 else names[::-1]:
                seconds[name].append(sides[name].ask(int(given["steps"]))["seconds"] / int(given["steps"]))
    finally:
        for side in sides.values():
            side.process.kill()
    if "rows" in given:
        from tests.endurance.peer_records import write_records

        write_records(Path(given["rows"]), given, first, seconds, difference=max(found) - min(found))
    baseline = np.array(seconds[names[0]])
    tokens = int(given["tokens"]) if given["what"] == "decode" else int(given["batch_size"]) * int(given["length"])
    told: dict[str, Any] = {key: value for key, value in given.items() if key not in ("peer", "rows")}
    for name, each in seconds.items():
        median = float(np.median(each))
        told[name] = {
            "seconds": median,
            "tokens_per_second": tokens / median,
            f"times_{names[0]}": float(np.median(baseline / np.array(each))),
        }
        if given["what"].startswith("op"):
            told[name]["gflops_per_second"] = _op_flops(given) / median / 1e9
    return told


def _op_flops(given: Mapping[str, str]) -> float:
    """Useful work: two products forward and five more backward, over half of the score matrix."""
    scores = int(given["batch_size"]) * OP_HEADS * int(given["length"]) ** 2 / 2
    return 2 * OP_HEAD_DIM * scores * (7 if given["what"] == "op_backward" else 2)


class _Side:
    """A process that works when it is asked to."""

    def __init__(self, name: str, given: dict[str, str]) -> None:
        python = given["peer"] if name in PEERS else sys.executable
        without = {"mlx_lm_blas": {"ZOO_NATIVE": "none"}, "mlx_lm_stock": {"ZOO_NATIVE": "none", "ZOO_BLAS": "none"}}
        words = [f"{key}={value}" for key, value in given.items()]
        self.process = subprocess.Popen(
            [python, "-m", __spec__.name, f"side={name}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **without.get(name, {})},
            text=True,
        )

    def ask(self, calls: int) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer


def serve(given: dict[str, str]) -> None:
    """One side: for every number on stdin, that many calls."""
    work, vocab_size = work_of(given)
    generator = np.random.default_rng(0)
    shape = 1 if given["what"] == "decode" else int(given["batch_size"]), int(given["length"]) + 1
    for line in sys.stdin:
        tokens = generator.integers(0, vocab_size, (int(line), *shape)).astype(np.int32)
        found, seconds = [], 0.0
        for each in tokens:
            began = time.perf_counter()
            found.append(work(each))
            # What a decoding side reads before is not counted.
            seconds += getattr(work, "seconds", time.perf_counter() - began)
        print(json.dumps({"seconds": seconds, "found": found[0]}), flush=True)


if __name__ == "__main__":
    asked = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if "side" in asked:
        serve(asked)
    else:
        print(json.dumps(main(sys.argv[1:])))
