"""Short trainings that save after every step, to be killed."""

import json
import sysconfig
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import recipes.train
import recipes.training_run
from recipes.app import execute
from tests.recipes.tiny_train import arguments
from zoo.checkpoints import History, verify_manifest
from zoo.training import read_metrics

OPTIONS = (
    "training.compile=true",
    "training.steps=6",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=1",
    "training.log_every=1",
    "training.eval_every=3",
    "training.sample_tokens=2",
    "model.dropout=0.2",
    "resume=auto",
)


class Trainings:
    """Over one corpus and one cache."""

    def __init__(self, folder: Path) -> None:
        """Writes the corpus."""
        self.cache, self.corpus = folder / "cache", write_corpus(folder)

    def main(self, run: Path) -> int:
        """Trains, or goes on."""
        with without_figures():
            return execute("train", recipes.train.main, arguments(self.corpus, self.cache, *OPTIONS, f"run_dir={run}"))

    def kept(self, _: Path) -> dict[str, Any]:
        """Steps are made again from the last checkpoint."""
        return {}

    def outcome(self, run: Path) -> dict[str, Any]:
        """Result, metrics, sample, weights and the optimizer's state."""
        result = json.loads((run / "result.json").read_text())
        keys = ("steps", "tokens", "first_train_loss", "train_loss", "val_loss", "val_bits_per_byte")
        return {
            "result": {key: result[key] for key in keys},
            "sample": (run / "samples.txt").read_bytes(),
            **trained(run),
        }


def trained(run: Path) -> dict[str, Any]:
    """What a training's folder holds of the training itself."""
    (step,) = History(run / "checkpoints").steps()
    checkpoint = History(run / "checkpoints").path(step)
    verify_manifest(checkpoint)
    rows = read_metrics(run / "metrics.jsonl")
    return {
        "metrics": [(row["step"], row.get("train_loss"), row.get("val_loss")) for row in rows],
        **{name: (checkpoint / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")},
    }


def write_corpus(folder: Path) -> Path:
    """A few modules of the standard library."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:5]:
        (corpus / source.name).write_text(source.read_text(encoding="utf-8")[:5_000], encoding="utf-8")
    return corpus


def without_figures() -> AbstractContextManager[object]:
    """Leaves out the curve that ends a training, one file of many: to draw it takes longer than all the rest."""

    def draw(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
        path.write_text(f"{title}: {len(rows)}")

    return patch.object(recipes.training_run, "draw_loss_curve", draw)
