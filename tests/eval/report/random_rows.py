"""Random rows that the schema takes: of few values, of one, of none, at the ends of what a field may be."""

import json
import random
from typing import Any, get_args

from eval.rows import Row
from eval.rows.cell import Level, Mode, Role
from eval.rows.schema import Budget, Status
from tests.eval.rows_factory import MACHINE, RECORDED_AT, attention

SUITES = ("attnbench", "transfer", "decode", "long", "grid", "grid48", "op", "nobody's")
VARIANTS = (
    "mha",
    "mha_manual",
    "mqa",
    "swa(window_size=64)",
    "swa_masked(window_size=64)",
    "linear",
    "blocksparse(block_size=32, num_global_tokens=1)",
    "gated_delta",
)
TASKS = ("language", "masked", "mqar", "needle", "positions")
METRICS = ("val_bits_per_byte", "bits_per_byte", "val_accuracy", "accuracy", "perplexity")
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


def random_rows(seed: int) -> list[Row]:
    """A few rows from a few values, so that some of them meet in one group, one series, one figure."""
    rng = random.Random(seed)
    few = {
        "suites": rng.sample(SUITES, rng.randint(1, 2)),
        "variants": rng.sample(VARIANTS, rng.randint(1, 5)) + rng.sample(WEIRD, rng.choice((0, 0, 1))),
        "lengths": rng.sample(LENGTHS, rng.randint(1, 3)),
        "modes": rng.sample(get_args(Mode), rng.randint(1, 3)),
        "levels": rng.sample(get_args(Level), rng.randint(1, 2)),
        "models": rng.sample(["gpt_tiny", "llama_tiny", None, *WEIRD[:4]], rng.randint(1, 2)),
        "tasks": rng.sample(TASKS, rng.randint(1, 2)),
        "metrics": rng.sample(METRICS, rng.randint(1, 3)),
        "rounds": [rng.choice((1, 2, 5, 6))] * 3 + [1],
        "devices": [MACHINE.device, *rng.sample(WEIRD, rng.choice((0, 0, 1)))],
    }
    kinds = rng.choice(((_speed,), (_quality,), (_speed, _quality)))
    return [Row.model_validate(rng.choice(kinds)(rng, few, index)) for index in range(rng.choice((1, 2, 5, 12, 30)))]


def _row(rng: random.Random, few: dict[str, Any], index: int) -> dict[str, Any]:
    status = rng.choice(("ok", "ok", "ok", *get_args(Status)))
    return {
        "identity": f"{index}",
        "status": status,
        "reason": None if status == "ok" else rng.choice((None, "", *WEIRD)),
        "flags": rng.choice(([], ["overhead_bound"], list(WEIRD))),
        "recorded_at": rng.choice((RECORDED_AT, "")),
        "machine": {**MACHINE.model_dump(), "device": rng.choice(few["devices"])},
    }


def _attention(rng: random.Random, variant: str) -> str | None:
    name = variant.partition("(")[0]
    known = name if name in VARIANTS or "(" in variant else "mha"
    mapping = json.loads(attention(known))
    mapping.update({"window_size": 64} if known.startswith("swa") else {})
    mapping.update(rng.choice(({}, {}, {"num_kv_heads": 1}, {"queries_per_kv_head": 2**40}, {"window_size": [1]})))
    return rng.choice((json.dumps(mapping), json.dumps(mapping), "{}", None))


def _speed(rng: random.Random, few: dict[str, Any], index: int) -> dict[str, Any]:
    row = _row(rng, few, index)
    variant, length = rng.choice(few["variants"]), rng.choice(few["lengths"])
    rounds = rng.choice(few["rounds"])
    cell = {
        "suite": rng.choice(few["suites"]),
        "group": rng.choice((f"L={length}", f"causal L={length}", "one", *WEIRD[:3])),
        "builder": "op",
        "variant": variant,
        "attention": _attention(rng, variant),
        "role": rng.choice(("candidate", "candidate", *get_args(Role))),
        "level": rng.choice(few["levels"]),
        "mode": rng.choice(few["modes"]),
        "model": rng.choice(few["models"]),
        "length": length,
        "batch_size": rng.choice((1, 8, 2**63 - 1)),
        "num_heads": rng.choice((1, 4, 8, 2**63 - 1)),
        "num_kv_heads": rng.choice((None, 1, 8)),
    }
    timing = None
    if row["status"] == "ok" or rng.random() < 0.1:
        samples = [rng.choice(SECONDS) for _ in range(rounds)] if rng.random() < 0.5 else [1e-3] * rounds
        ends = sorted(rng.sample(SECONDS, 2)) if rounds > 1 else (None, None)
        timing = {
            "first_call_seconds": rng.choice(SECONDS),
            "warmup_calls": 0,
            "calls_per_sample": 1,
            "samples_seconds": samples,
            "rounds_id": rng.choice(("r", "r", None)),
            "median_seconds": rng.choice(SECONDS),
            "mean_seconds": rng.choice(SECONDS),
            "interval_low": ends[0],
            "interval_high": ends[1],
            "coefficient_of_variation": rng.choice(FIGURES),
        }
    ratio = sorted(rng.choice((1e-30, 0.5, 1.0, 1.0, 2.0, 1e30)) for _ in range(3))
    comparison = {
        "baseline": rng.choice(few["variants"]),
        "same_function": rng.random() < 0.5,
        "ratio": ratio[1],
        "ratio_low": rng.choice((ratio[0], ratio[0], None)),
        "ratio_high": ratio[2],
        "p_value": rng.choice(FIGURES),
    }
    names = ("peak_bytes", "cache_bytes", "analytic_bytes", "analytic_cache_bytes")
    work = {"useful_flops": rng.choice(COUNTS), "tokens": rng.choice(COUNTS), "utilisation": rng.choice(FIGURES)}
    return {
        **row,
        "kind": "speed",
        "cell": cell,
        "timing": timing,
        "comparison": None if timing is None else rng.choice((comparison, None)),
        "memory": rng.choice((None, {name: rng.choice(COUNTS) for name in names})),
        "work": rng.choice((None, work)),
    }


def _quality(rng: random.Random, few: dict[str, Any], index: int) -> dict[str, Any]:
    variant = rng.choice(few["variants"])
    points = range(rng.choice((0, 1, 1, 2, 5)))
    curve = [
        {"tokens": rng.choice((0, 1, 4096)) * step, "seconds": rng.choice((0.0, 1.0)), "value": rng.choice(FIGURES[1:])}
        for step in points
    ]
    return {
        **_row(rng, few, index),
        "kind": "quality",
        "quality": {
            "task": rng.choice(few["tasks"]),
            "metric": rng.choice(few["metrics"]),
            "value": rng.choice(FIGURES),
            "standard_error": rng.choice(FIGURES),
            "count": rng.choice(COUNTS),
            "variant": variant,
            "attention": _attention(rng, variant),
            "model": rng.choice(few["models"]) or "gpt_tiny",
            "data": rng.choice(("stdlib", "mqar", *WEIRD[:2])),
            "budget": rng.choice(get_args(Budget)),
            "seed": rng.choice((0, 0, 1, 2, -(2**63))),
            "trained_on": rng.choice((None, "a" * 64, "b" * 64)),
            "measured_on": rng.choice((None, "a" * 64)),
            "settings": rng.choice((None, None, "{}", '{"training": {"steps": 3, "$x$": ["_"]}}')),
            "tokens": rng.choice(COUNTS),
            "steps": rng.choice(COUNTS),
            "tokens_per_second": rng.choice(FIGURES),
            "peak_bytes": rng.choice(COUNTS),
            "length": rng.choice((None, None, *LENGTHS)),
            "num_pairs": rng.choice((None, 0, 4)),
            "depth": rng.choice((None, 0.0, 0.5, 1.0)),
            "position": rng.choice((None, None, 0)),
            "curve": curve,
        },
    }


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
