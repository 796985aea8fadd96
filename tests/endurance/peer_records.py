"""The records of `tests.endurance.against_pytorch`: cells like any others, of which the peers' code is not ours."""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.bench.process import Outcome
from eval.bench.records import outcome_row
from eval.rows import Cell, Correctness, Memory, Samples, Work, current_machine
from eval.rows.store import only_writer
from tests.endurance.peers import OP_HEAD_DIM, OP_HEADS

SUITE = "peers"
_MODES = {"step": "step", "lora": "step", "backward": "forward_backward", "forward": "forward", "decode": "decode"}
_MODES |= {"op": "forward", "op_backward": "forward_backward"}
_NAMES = {"sdpa": "PyTorch, sdpa", "eager": "PyTorch, eager", "mlx_lm": "mlx-lm, our pool"}
_NAMES |= {"mlx_lm_blas": "mlx-lm, same BLAS", "mlx_lm_stock": "mlx-lm, stock BLAS"}


def write_records(
    path: Path,
    given: Mapping[str, str],
    first: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, Sequence[float]],
    *,
    difference: float,
) -> None:
    """Adds a record of each side; the first side is the baseline.

    Args:
        path: A file of records, new or not.
        given: The words of the run.
        first: Each side's answer to its first call.
        seconds: Of a call, for each round, by side.
        difference: Largest between what the sides found.
    """
    rounds_id = uuid.uuid4().hex
    found = [
        (
            _cell(given, name, is_baseline=index == 0),
            Outcome(
                correctness=Correctness(
                    passed=True,
                    checks="what all sides found at first: the loss, the first token, or the size of the result",
                    max_error=difference,
                    tolerance=1e-3,
                ),
                samples=Samples(
                    first_call_seconds=first[name]["seconds"],
                    warmup_calls=1,
                    calls_per_sample=int(given["steps"]),
                    samples_seconds=list(each),
                    rounds_id=rounds_id,
                ),
                memory=Memory(peak_bytes=None),
                work=Work(useful_flops=None, tokens=_tokens(given)),
                # Every side computes one function, in its own way.
                function="softmax",
            ),
        )
        for index, (name, each) in enumerate(seconds.items())
    ]
    machine = current_machine()
    with only_writer(path) as store:
        store.append(
            outcome_row(cell, outcome, machine=machine, limits={}, baseline=found[0]) for cell, outcome in found
        )


def _tokens(given: Mapping[str, str]) -> int:
    return int(given["tokens"]) if given["what"] == "decode" else int(given["batch_size"]) * int(given["length"])


def _cell(given: Mapping[str, str], side: str, *, is_baseline: bool) -> Cell:
    what, length = given["what"], int(given["length"])
    op = what.startswith("op")
    shape = {"num_heads": OP_HEADS, "head_dim": OP_HEAD_DIM} if op else _shape(Path(given["checkpoint"]))
    batch_size = 1 if what == "decode" else int(given["batch_size"])
    # Every side computes one function, in its own way.
    attention = {"name": "mha", "mechanism": "softmax"}
    if side not in _NAMES:
        attention["implementation"] = side.removeprefix("bare_")
    return Cell.model_validate(
        {
            "suite": SUITE,
            "group": f"{what} {shape.get('model') or 'attention'} B={batch_size} L={length}",
            "builder": SUITE,
            "variant": _NAMES.get(side, f"mha(implementation={side})"),
            "attention": json.dumps(attention),
            "role": "baseline" if is_baseline else "candidate",
            "level": "op" if op else "model",
            "mode": _MODES[what],
            "batch_size": batch_size,
            "length": length,
            "detail": what,
            **shape,
        }
    )


def _shape(folder: Path) -> dict[str, int | str]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_attention_heads") or config["n_head"]
    width = config.get("hidden_size") or config["n_embd"]
    return {
        "model": folder.resolve().name,
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or width // heads,
        "hidden_size": width,
    }
