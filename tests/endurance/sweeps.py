"""Kills trainings of a comparison: python -m tests.endurance.sweeps kills=3 launcher=joblib

Eight trainings run two at a time, as threads' or a launcher's jobs, and three of them are killed at random moments. The
same command finishes them, and the report's figures are those of a comparison that nobody disturbed.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from eval.rows import read_rows
from tests.endurance.comparisons import facts
from tests.endurance.trainings import write_corpus
from tests.processes import command_lines, kill
from tests.recipes.tiny_train import arguments

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare.py"
VARIANTS, SEEDS = ("mha", "swa", "linear", "blocksparse"), (1, 2)
OPTIONS = (
    f"variants=[{','.join(VARIANTS)}]",
    f"seeds={list(SEEDS)}".replace(" ", ""),
    "budgets=[equal_tokens]",
    "tasks=[language]",
    "benchmark=false",
    "training.steps=40",
    "training.checkpoint_every=4",
    "training.log_every=4",
    "training.eval_every=20",
    "training.sample_tokens=0",
)
LAUNCHERS = {
    "none": ("jobs=2",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
}


def begin(folder: Path, run: Path, launcher: str) -> "subprocess.Popen[str]":
    """Starts a comparison, or goes on with it."""
    typed = [each for each in arguments(folder / "corpus", folder / "cache", *OPTIONS) if "attention=" not in each]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *typed, *LAUNCHERS[launcher], f"run_dir={run}"],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(run: Path) -> list[object]:
    """What the comparison has found, but for times."""
    return sorted(map(facts, read_rows(run / "rows.jsonl")), key=repr)


def disturb(process: "subprocess.Popen[str]", run: Path, kills: int, generator: random.Random) -> set[str]:
    """Kills so many trainings at random moments; returns which."""
    killed: set[str] = set()
    while len(killed) < kills and process.poll() is None:
        time.sleep(generator.uniform(0.2, 3))
        running = {
            word.removeprefix("run_dir=")
            for line in command_lines().values()
            for word in line.split()
            if "train.py" in line and word.startswith(f"run_dir={run}/runs/")
        }
        if waiting := sorted(running - killed):
            chosen = generator.choice(waiting)
            kill(f"run_dir={chosen} ")
            killed.add(chosen)
    return killed


def command(words: Sequence[str]) -> None:
    """The command line."""
    given = {"kills": "3", "seed": "0", "launcher": "none", **dict(word.split("=") for word in words)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder)
        whole = begin(folder, folder / "whole", given["launcher"])
        _, errors = whole.communicate()
        assert whole.returncode == 0, errors[-3000:]
        run = folder / "run"
        first = begin(folder, run, given["launcher"])
        killed = disturb(first, run, int(given["kills"]), random.Random(int(given["seed"])))
        _, errors = first.communicate()
        assert first.returncode == 2, errors[-3000:]
        print(errors.splitlines()[-1][:300])
        again = begin(folder, run, given["launcher"])
        out, errors = again.communicate()
        assert again.returncode == 0, errors[-3000:]
        assert Path(json.loads(out.splitlines()[-1])["report_path"]).is_file()
        expected = outcome(folder / "whole")
        assert len(expected) >= len(VARIANTS) * len(SEEDS)
        assert outcome(run) == expected
    print(
        f"{len(killed)} of {len(VARIANTS) * len(SEEDS)} trainings killed, launcher {given['launcher']}: equal figures"
    )


if __name__ == "__main__":
    command(sys.argv[1:])
