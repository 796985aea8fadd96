"""Kills short trainings at random moments: python -m tests.endurance.kills count=1000 seed=3

Each run is started, killed and started again until it ends by itself; then its weights, its optimizer's state and its
metrics are those of a run that nobody killed, bit for bit. One process imports everything and forks for each start,
before MLX has computed anything in it, so that a start costs a fraction of a second.
"""

import json
import os
import random
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# For the children, which would import it each time.
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401

from recipes.app import execute
from recipes.train import main
from tests.recipes.tiny_train import arguments
from zoo.checkpoints import History, verify_manifest
from zoo.training import read_metrics

OPTIONS = (
    "training.compile=true",
    "training.steps=8",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=1",
    "training.log_every=1",
    "training.eval_every=3",
    "training.sample_tokens=2",
    "model.dropout=0.2",
    "resume=auto",
)
# Of each run: beyond it, kills would come before the first step each time.
_MOST_KILLS = 12


class Runs:
    """Runs in one folder, over one corpus and one cache."""

    def __init__(self, folder: Path) -> None:
        """Writes the corpus."""
        self.folder, self.corpus = folder, folder / "corpus"
        self.corpus.mkdir()
        for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:5]:
            (self.corpus / source.name).write_text(source.read_text(encoding="utf-8")[:5_000], encoding="utf-8")

    def start(self, run: Path) -> int:
        """Starts a run in a process of its own; returns its number."""
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            log = os.open(f"{run}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = execute("train", main, arguments(self.corpus, self.folder / "cache", *OPTIONS, f"run_dir={run}"))
        finally:
            os._exit(code)

    def finish(self, run: Path) -> float:
        """Lets a run come to its end; returns the seconds that it took."""
        began = time.monotonic()
        _, status = os.waitpid(self.start(run), 0)
        if status:
            raise AssertionError(f"{run} ended with {status}:\n{Path(f'{run}.log').read_text()[-3000:]}")
        return time.monotonic() - began


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on kills."""
    (step,) = History(run / "checkpoints").steps()
    checkpoint = History(run / "checkpoints").path(step)
    verify_manifest(checkpoint)
    result = json.loads((run / "result.json").read_text())
    keys = ("steps", "tokens", "first_train_loss", "train_loss", "val_loss", "val_bits_per_byte")
    rows = read_metrics(run / "metrics.jsonl")
    return {
        "result": {key: result[key] for key in keys},
        "metrics": [(row["step"], row.get("train_loss"), row.get("val_loss")) for row in rows],
        "sample": (run / "samples.txt").read_bytes(),
        **{name: (checkpoint / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")},
    }


def kill_runs(folder: Path, *, count: int, seed: int) -> int:
    """Kills runs until `count` kills were made; returns the number of runs.

    Raises:
        AssertionError: If a run cannot go on, or ends otherwise than one that nobody killed.
    """
    runs, generator = Runs(folder), random.Random(seed)
    # The first one compiles and fills the cache, the second one shows how long a run takes.
    runs.finish(folder / "first")
    seconds = runs.finish(folder / "whole")
    expected = outcome(folder / "whole")
    kills = num_runs = 0
    while kills < count:
        run = folder / f"run-{num_runs}"
        num_runs += 1
        for _ in range(min(_MOST_KILLS, count - kills)):
            process = runs.start(run)
            time.sleep(generator.uniform(0, 1.2 * seconds))
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                assert status == 0, Path(f"{run}.log").read_text()[-3000:]
                break
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            kills += 1
        runs.finish(run)
        found = outcome(run)
        different = [key for key in expected if found[key] != expected[key]]
        assert not different, f"seed {seed}, {run.name}: {different}"
        shutil.rmtree(run)
    return num_runs


def command(words: Sequence[str]) -> None:
    """The command line."""
    numbers = {"count": 1000, "seed": 0, **{name: int(value) for name, value in (word.split("=") for word in words)}}
    with tempfile.TemporaryDirectory() as folder:
        num_runs = kill_runs(Path(folder), count=numbers["count"], seed=numbers["seed"])
    print(f"{numbers['count']} kills of {num_runs} runs, seed {numbers['seed']}: each ended as if nobody had killed it")


if __name__ == "__main__":
    command(sys.argv[1:])
