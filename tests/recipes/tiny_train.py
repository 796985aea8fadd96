"""`train.py` on a model and a corpus so small that a run takes a moment."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.app import execute
from recipes.train import main

TINY = [
    "attention=mha",
    "model=gpt_tiny",
    "tokenizer=bytes",
    "optimizer=adamw",
    "model.num_layers=1",
    "model.hidden_size=24",
    "model.intermediate_size=28",
    "model.num_heads=2",
    "training.steps=6",
    "training.batch_size=3",
    "training.sequence_length=37",
    "training.log_every=2",
    "training.eval_every=3",
    "training.eval_batches=2",
    "training.checkpoint_every=2",
    "training.sample_tokens=5",
    # Compiling costs a C++ compiler's time.
    "training.compile=false",
]


def arguments(corpus: Path, cache: Path, *more: str) -> list[str]:
    """The command line of a tiny run."""
    return [*TINY, "data=text", f"data.path={corpus}", f"data.cache_dir={cache}", *more]


class Train:
    """Runs `train.py` inside this process."""

    def __init__(self, corpus: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.corpus, self.cache, self.capsys = corpus, cache, capsys

    def __call__(self, *more: str) -> dict[str, Any]:
        return _good(self.attempt(*more))

    def bare(self, *typed: str) -> dict[str, Any]:
        """The same with nothing on the command line but what is given: a run that goes on."""
        return _good(self.attempt_bare(*typed))

    def attempt(self, *more: str) -> tuple[int, dict[str, Any] | None, str]:
        """Exit code, JSON of the last line of stdout or None, and stderr."""
        return self.attempt_bare(*arguments(self.corpus, self.cache, *more))

    def attempt_bare(self, *typed: str) -> tuple[int, dict[str, Any] | None, str]:
        """The same with nothing else on the command line."""
        code = execute("train", main, typed)
        captured = self.capsys.readouterr()
        lines = captured.out.splitlines()
        return code, json.loads(lines[-1]) if lines else None, captured.err

    def sweep(self, *more: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code, and the JSON of each job."""
        code = execute("train", main, ["--multirun", *arguments(self.corpus, self.cache, *more)])
        return code, [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]


def _good(attempt: tuple[int, dict[str, Any] | None, str]) -> dict[str, Any]:
    code, result, errors = attempt
    assert code == 0, errors
    assert result is not None
    return result


def write_run(
    folder: Path,
    config: dict[str, Any],
    *overrides: str,
    attention: str,
    result: dict[str, Any] | None = None,
    metrics: Sequence[dict[str, Any]] = (),
) -> None:
    """What a run leaves of its settings and its end, without the training."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = {"overrides": list(overrides), "choices": {"attention": attention, "training": "default"}}
    (folder / "command.json").write_text(json.dumps(command), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in metrics), encoding="utf-8")
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
