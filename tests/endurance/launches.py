"""Kills one of several processes at random moments: python -m tests.endurance.launches count=100 seed=3

Two processes train a tiny model with dropout, and one of them, drawn at random, is killed or stopped at a random moment
after its first beat; `launch.restarts` starts them again, a few times a run. Each run ends with the weights of a run
that nobody disturbed, bit for bit, and leaves no process behind.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.endurance.trainings import write_corpus
from tests.processes import require_nobody_left
from zoo.checkpoints import History, verify_manifest
from zoo.runtime.watch import process_of

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
OPTIONS = (
    "attention=swa",
    "model=llama_tiny",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.dropout=0.1",
    "data=text",
    "tokenizer=bytes",
    "training.steps=60",
    "training.batch_size=4",
    "training.sequence_length=33",
    "training.eval_every=20",
    "training.checkpoint_every=5",
    "training.sample_tokens=0",
    "launch.processes=2",
    "launch.patience_seconds=3",
)
# Of a run; one that is stopped costs its patience.
_KILLS_EACH = 5
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)


def begin(folder: Path, run: Path, *more: str) -> "subprocess.Popen[bytes]":
    """Starts a training of two processes."""
    places = [f"data.path={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}", f"run_dir={run}"]
    with Path(f"{run}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, str(SCRIPT), *OPTIONS, *places, *more], stdout=log, stderr=log)


def weights(run: Path) -> bytes:
    """Those that a run has ended with."""
    newest = History(run / "checkpoints").newest()
    assert newest is not None, run
    verify_manifest(newest)
    return (newest / "model.safetensors").read_bytes()


def disturb(folder: Path, run: Path, most: int, generator: random.Random, longest: float) -> int:
    """Lets a run end in spite of up to so many kills; returns how many there were."""
    process, kills, last = begin(folder, run, f"launch.restarts={most}"), 0, None
    while kills < most and process.poll() is None:
        rank = generator.randrange(2)
        found = process_of(run, rank)
        if found is None or found == last:
            time.sleep(0.02)
            continue
        time.sleep(generator.uniform(0, longest))
        try:
            os.kill(found, generator.choice(_SIGNALS))
        except ProcessLookupError:
            break
        kills, last = kills + 1, found
    assert process.wait() == 0, Path(f"{run}.log").read_text(errors="replace")[-3000:]
    return kills


def command(words: Sequence[str]) -> None:
    """The command line."""
    given = {"count": "100", "seed": "0", **dict(word.split("=") for word in words)}
    count, generator = int(given["count"]), random.Random(int(given["seed"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder)
        assert begin(folder, folder / "first").wait() == 0
        assert begin(folder, folder / "whole").wait() == 0
        expected = weights(folder / "whole")
        longest = json.loads((folder / "whole" / "result.json").read_text())["seconds"]
        kills = num_runs = 0
        while kills < count:
            run = folder / f"run-{num_runs}"
            kills += disturb(folder, run, min(_KILLS_EACH, count - kills), generator, longest)
            assert weights(run) == expected, f"seed {given['seed']}, {run}"
            require_nobody_left(f"run_dir='{run}'")
            num_runs += 1
            print(f"{kills} of {count} kills", file=sys.stderr, flush=True)
    print(f"{kills} kills of {num_runs} runs, seed {given['seed']}: each ended as if nobody had killed it")


if __name__ == "__main__":
    command(sys.argv[1:])
