"""Random rows that the schema takes: of few values, of one, of none, at the ends of what a field may be."""

import json
import random
from typing import Any, get_args

from eval.rows import Row
from eval.rows.cell import Level, Mode, Role
from eval.rows.schema import Budget, Status
from tests.eval.rows_factory import MACHINE, RECORDED_AT, attention, quality_row, speed

WEIRD = (
    "",
    "_",
    "_x",
    "$x^{$",
    r"\frac{",
    "a|b`c*_d_*",
    "<b>&amp;",
    "x" * 900,
    "\u202eevil",
    "\x1b[31m",
    "漢字😀",
    "=1+1",
)
LENGTHS = (1, 2, 63, 64, 512, 4096, 10**18, 2**63 - 1)
SECONDS = (1e-15, 1e-9, 1e-3, 1e-3 + 1e-12, 1.0, 1e3, 1e15)
FIGURES = (None, 0.0, -1.0, 1.0, 0.5, 2.5, 1e-300, 1e100, -1e100)
COUNTS = (None, 0, 1, 7, 1024, 2**63 - 1)
SHIPPED = ("mha", "mha_manual", "mqa", "swa", "swa_masked", "linear", "blocksparse", "gated_delta")
ODD = (
    "{}",
    *(json.dumps({**json.loads(attention("swa")), **odd}) for odd in ({"num_kv_heads": 1}, {"window_size": [1]})),
)
NAMED = {
    "variant": (*SHIPPED, "swa(window_size=64)", *WEIRD),
    "attention": (*map(attention, SHIPPED), *ODD, '{"queries_per_kv_head": 1099511627776}', None),
}
# What a part's fields may be; a file has few of the values, so that rows meet in one group, one series, one figure.
FIELDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "row": {
        "status": ("ok", "ok", "ok", *get_args(Status)),
        "reason": (None, *WEIRD),
        "flags": ([], ["overhead_bound"], list(WEIRD)),
        "recorded_at": (RECORDED_AT, ""),
    },
    "machine": {"device": (MACHINE.device, MACHINE.device, MACHINE.device, *WEIRD)},
    "cell": {
        **NAMED,
        "suite": ("attnbench", "transfer", "decode", "long", "grid", "grid48", "op", "nobody's"),
        "group": ("L=64", "causal L=64", "one", *WEIRD[:3]),
        "role": ("candidate", "candidate", *get_args(Role)),
        "level": get_args(Level),
        "mode": get_args(Mode),
        "model": ("gpt_tiny", "llama_tiny", None, *WEIRD[:4]),
        "length": LENGTHS,
        "batch_size": (1, 8, 2**63 - 1),
        "num_heads": (1, 4, 8, 2**63 - 1),
        "num_kv_heads": (None, 1, 8),
    },
    "timing": {
        "samples_seconds": ([1e-3], [1e-3] * 5, [1.0, 1e-15], [1e-3, 1e-9, 1.0, 1e3, 1e15, 1e-15]),
        "rounds_id": ("r", None),
        "median_seconds": SECONDS,
        "interval_low": (None, *SECONDS),
        "interval_high": SECONDS,
    },
    "comparison": {
        "ratio": (1e-30, 0.5, 1.0, 2.0),
        "ratio_low": (1e-30, 0.5, 1.0, None),
        "ratio_high": (1.0, 2.0, 1e30),
    },
    "memory": dict.fromkeys(("peak_bytes", "cache_bytes", "analytic_bytes", "analytic_cache_bytes"), COUNTS),
    "work": {"useful_flops": COUNTS, "tokens": COUNTS, "utilisation": FIGURES},
    "quality": {
        **NAMED,
        "task": ("language", "masked", "mqar", "needle", "positions"),
        "metric": ("val_bits_per_byte", "bits_per_byte", "val_accuracy", "accuracy", "perplexity"),
        "value": FIGURES,
        "standard_error": FIGURES,
        "count": COUNTS,
        "model": ("gpt_tiny", "llama_tiny", *WEIRD[:4]),
        "data": ("stdlib", "mqar", *WEIRD[:2]),
        "budget": get_args(Budget),
        "seed": (0, 0, 1, 2, -(2**63)),
        "trained_on": (None, "a" * 64, "b" * 64),
        "measured_on": (None, "a" * 64),
        "settings": (None, None, "{}", '{"training": {"steps": 3, "$x$": ["_"]}}'),
        **dict.fromkeys(("tokens", "steps", "peak_bytes"), COUNTS),
        "tokens_per_second": FIGURES,
        "length": (None, None, *LENGTHS),
        "num_pairs": (None, 0, 4),
        "depth": (None, 0.0, 0.5, 1.0),
        "position": (None, None, 0),
        "curve": tuple(
            [{"tokens": tokens * step, "seconds": 0.5 * step, "value": value} for step in range(length)]
            for length, tokens, value in ((0, 1, 0.0), (1, 0, 1e100), (1, 4096, 2.5), (2, 1, -1.0), (5, 4096, 1e-300))
        ),
    },
}
PLAIN = {"cell": speed(64).model_dump(), "quality": quality_row("mha", 0, 2.5).model_dump()}


def random_rows(seed: int) -> list[Row]:
    """A few rows from a few values."""
    rng = random.Random(seed)
    few = {
        part: {name: rng.sample(values, min(len(values), rng.randint(1, 4))) for name, values in fields.items()}
        for part, fields in FIELDS.items()
    }
    kinds = rng.choice((("cell",), ("quality",), ("cell", "quality")))

    def row(index: int) -> Row:
        kind = rng.choice(kinds)
        parts = ("machine", "quality") if kind == "quality" else ("machine", "cell", "timing", "comparison")
        chosen = {part: {name: rng.choice(own) for name, own in few[part].items()} for part in few}
        whole = {**PLAIN[kind], **chosen["row"], "identity": f"{index}"}
        whole.update({part: {**PLAIN[kind][part], **chosen[part]} for part in parts})
        if kind == "cell":
            whole.update({part: rng.choice((None, chosen[part])) for part in ("memory", "work")})
            if whole["status"] != "ok" and rng.random() < 0.9:
                whole.update(timing=None, comparison=None)
        return Row.model_validate(whole)

    return [row(index) for index in range(rng.choice((1, 2, 5, 12, 30)))]


def mutants(row: Row, values: tuple[Any, ...]) -> list[bytes]:
    """Lines of a file in which one field of the row is gone, or is each of the values instead."""
    whole = json.loads(row.model_dump_json())
    lines = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(min(len(node), 1)):
            kept = node[key]
            if isinstance(node, dict):
                del node[key]
                lines.append(json.dumps(whole).encode())
                node[f"{key} "] = kept
                lines.append(json.dumps(whole).encode())
                del node[f"{key} "]
            for value in values:
                node[key] = value
                lines.append(json.dumps(whole).encode())
            node[key] = kept
            if isinstance(kept, dict | list) and kept:
                walk(kept)

    walk(whole)
    return lines
