"""Real LoRA iterations of a real model: python -m tests.endurance.adaptations checkpoint=smollm folder=DIR

For each variant of attention and each seed, `finetune.py` itself trains adapters on conversations made of the standard
library's own documentation: the question is what something does, the answer its docstring. Each run becomes a line of
`rows.jsonl` in the folder, written when it ends: tokens per second, seconds per step, bytes at the peak, and losses, as
the run measured them; no figure is estimated. What is in that file already is not run again. Other words: variants=a,b
seeds=0,1,2 steps=100, and any override of `finetune.py`, such as dtype=bfloat16.
"""

import gc
import importlib
import inspect
import itertools
import json
import pkgutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zoo  # noqa: F401 (before mlx)

# isort: split
import mlx.core as mx

from recipes.app import execute
from recipes.finetune import main as finetune
from zoo.runtime.versions import describe
from zoo.training import read_metrics

VARIANTS = ("mha", "swa", "sinks", "linear", "gated_delta")
# Shorter than this, a docstring says no more than the name.
_LEAST_CHARACTERS = 40
# Importing these opens a browser or prints a poem.
_NOT_IMPORTED = ("antigravity", "this", "idlelib", "turtle", "tkinter")
_SETTINGS = (
    "method=lora",
    "training.batch_size=4",
    "training.sequence_length=512",
    "training.log_every=1",
    "training.eval_every=null",
    "training.eval_batches=16",
    "training.sample_tokens=0",
    "optimizer.learning_rate=1e-4",
)


def conversations() -> Iterator[dict[str, Any]]:
    """One for each docstring of the standard library, each docstring once."""
    seen = set()
    for module in sorted(each.name for each in pkgutil.iter_modules() if each.name in sys.stdlib_module_names):
        if module.startswith("_") or module in _NOT_IMPORTED:
            continue
        try:
            found = importlib.import_module(module)
        # What another system has, or this one lacks.
        except (ImportError, OSError, AttributeError):
            continue
        for path, thing in _documented(module, found):
            text = inspect.getdoc(thing) or ""
            if len(text) >= _LEAST_CHARACTERS and text not in seen:
                seen.add(text)
                question = {"role": "user", "content": f"What does {path} do?"}
                yield {"messages": [question, {"role": "assistant", "content": text}]}


def _documented(path: str, owner: Any) -> Iterator[tuple[str, Any]]:
    for name, each in sorted(vars(owner).items()):
        home = (getattr(each, "__module__", None) or path).partition(".")[0].lstrip("_")
        if name.startswith("_") or not callable(each) or home != path.partition(".")[0]:
            continue
        yield f"{path}.{name}", each
        if inspect.isclass(each):
            yield from _documented(f"{path}.{name}", each)


def adapt(checkpoint: str, variant: str, seed: int, folder: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """One run; a row."""
    run = folder / f"{variant}_{seed}"
    places = [f"checkpoint={checkpoint}", f"data.path={folder / 'conversations.jsonl'}", f"run_dir={run}"]
    began = time.time()
    chosen = [f"attention={'keep' if variant == 'mha' else variant}", f"seed={seed}", "resume=auto"]
    code = execute("finetune", finetune, [*places, *chosen, *_SETTINGS, *more])
    row: dict[str, Any] = {"variant": variant, "seed": seed, "checkpoint": checkpoint, "exit_code": code}
    if code:
        return row
    result = json.loads((run / "result.json").read_text())
    logged = [each for each in read_metrics(run / "metrics.jsonl") if "train_loss" in each]
    speeds = [each["tokens_per_second"] for each in logged]
    tokens = [now["tokens"] - before["tokens"] for before, now in itertools.pairwise(logged)]
    # Of each step but the first, which compiles.
    seconds = [count / speed for count, speed in zip(tokens, speeds[1:], strict=True)]
    kept = ("steps", "tokens", "tokens_per_second", "first_train_loss", "train_loss", "val_loss", "val_bits_per_byte")
    return {
        **row,
        **{key: result[key] for key in (*kept, "trainable_parameters", "num_parameters", "surgery")},
        "peak_bytes": result["peak_memory_bytes"],
        "training_seconds": result["seconds"],
        "wall_seconds": time.time() - began,
        "median_step_seconds": statistics.median(seconds) if seconds else None,
        "step_seconds": seconds,
        "losses": [each["train_loss"] for each in logged],
        "environment": describe(),
    }


def main(words: Sequence[str]) -> int:
    """Runs what is missing; returns how many runs failed."""
    given = dict(word.partition("=")[::2] for word in words)
    folder, checkpoint = Path(given.pop("folder")), given.pop("checkpoint")
    variants = given.pop("variants", ",".join(VARIANTS)).split(",")
    seeds = [int(each) for each in given.pop("seeds", "0,1,2").split(",")]
    steps = given.pop("steps", "100")
    folder.mkdir(parents=True, exist_ok=True)
    examples, rows = folder / "conversations.jsonl", folder / "rows.jsonl"
    if not examples.exists():
        examples.write_text("\n".join(map(json.dumps, conversations())) + "\n", encoding="utf-8")
    lines = rows.read_text().splitlines() if rows.exists() else []
    done = {(row["variant"], row["seed"]) for row in map(json.loads, lines) if row["exit_code"] == 0}
    failed = 0
    # A seed of all variants before the next one: if time runs out, what is there compares.
    for seed in seeds:
        for variant in variants:
            if (variant, seed) in done:
                continue
            more = [f"training.steps={steps}", *(f"{key}={value}" for key, value in given.items())]
            row = adapt(checkpoint, variant, seed, folder, more)
            failed += row["exit_code"] != 0
            with rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            gc.collect()
            mx.clear_cache()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
