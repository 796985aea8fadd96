"""Kills work at random moments: python -m tests.endurance.kills what=training count=1000 seed=3

`what` is training, finetuning, benchmark, comparison, or all for some of each. A run is started, killed and started
again until it ends by itself; then it is what a run that nobody killed is, bit for bit but for what was measured, has
repeated nothing that was finished, and has left no process behind. One process imports everything and forks for each
start, before MLX has computed anything in it, so that a start costs a fraction of a second. On Linux only.
"""

import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.endurance.benchmarks import Benchmarks
from tests.endurance.comparisons import Comparisons
from tests.endurance.finetunings import Finetunings
from tests.endurance.trainings import Trainings
from zoo.attention.registry import external_mechanism_names

KINDS = {"training": Trainings, "finetuning": Finetunings, "benchmark": Benchmarks, "comparison": Comparisons}
# Of a hundred kills, where all kinds are asked for; a comparison costs most.
SHARES = {"training": 64, "finetuning": 20, "benchmark": 10, "comparison": 6}
# Of each run: beyond it, kills would come before the first step each time.
_MOST_KILLS = 12
# After a run that ended first, and after one that was killed: one of six ends first, however busy the machine is.
_SOONER, _LATER = 0.85, 1.03
# From <sys/prctl.h>.
_SET_CHILD_SUBREAPER = 36
# A script looks for its parent twice a second, and then saves what it has.
_PATIENCE_SECONDS = 60.0


class Subject(Protocol):
    """What is killed."""

    def main(self, run: Path) -> int:
        """Does all of it, or what is left of it, in a process of its own; returns the exit code."""

    def kept(self, run: Path) -> Mapping[str, Any]:
        """What is finished at this moment, by name, and must not be done again."""

    def outcome(self, run: Path) -> Mapping[str, Any]:
        """All of a run that must not depend on kills."""


class Started:
    """A run in a process of its own."""

    def __init__(self, subject: Subject, run: Path) -> None:
        self.log = Path(f"{run}.log")
        self.process = os.fork()
        if self.process:
            return
        code = 1
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = subject.main(run)
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(code)

    def kill(self) -> bool:
        """Kills it and nothing that it started; false if it had come to its end before."""
        ended, status = os.waitpid(self.process, os.WNOHANG)
        if ended:
            self._require_good(status)
            return False
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return True

    def finish(self) -> None:
        """Lets it come to its end."""
        self._require_good(os.waitpid(self.process, 0)[1])

    def _require_good(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        assert code == 0, f"{self.log} ended with {code}:\n{self.log.read_text(errors='replace')[-3000:]}"


def kill_runs(subject: Subject, folder: Path, *, count: int, seed: int) -> int:
    """Kills runs until `count` kills were made; returns the number of runs.

    Raises:
        AssertionError: If a run cannot go on, ends otherwise than one that nobody killed, repeats what was finished, or
            leaves a process behind.
    """
    # What a killed process leaves behind becomes our child.
    assert ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    # For the children, which would look for them each time.
    external_mechanism_names()
    generator = random.Random(seed)
    # The first one compiles and fills caches, the second one shows how long a run takes.
    Started(subject, folder / "first").finish()
    began = time.monotonic()
    Started(subject, folder / "whole").finish()
    longest = time.monotonic() - began
    expected = subject.outcome(folder / "whole")
    # Processes that every run makes use of.
    servants = _children(os.getpid())
    kills = num_runs = 0
    while kills < count:
        run, kept = folder / f"run-{num_runs}", dict[str, Any]()
        for _ in range(min(_MOST_KILLS, count - kills)):
            started = Started(subject, run)
            time.sleep(generator.uniform(0, longest))
            if not started.kill():
                longest *= _SOONER
                break
            longest *= _LATER
            kills += 1
            kept |= _still_kept(kept, subject.kept(run), run)
        Started(subject, run).finish()
        _still_kept(kept, subject.kept(run), run)
        found = subject.outcome(run)
        different = [key for key in expected if found[key] != expected[key]]
        assert not different, f"seed {seed}, {run}: {different}"
        _require_nobody_left(servants)
        shutil.rmtree(run)
        num_runs += 1
    return num_runs


def _still_kept(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> Mapping[str, Any]:
    repeated = [name for name in before if now.get(name) != before[name]]
    assert not repeated, f"{run}: made again: {repeated}"
    return now


def _require_nobody_left(servants: Sequence[int]) -> None:
    """Waits until all processes have ended that a killed one had started."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while left := [each for each in _children(os.getpid()) if each not in servants] + [
        each for servant in servants for each in _children(servant)
    ]:
        for process in set(left) & set(_children(os.getpid())):
            os.waitpid(process, os.WNOHANG)
        assert time.monotonic() < until, f"left behind: {left}"
        time.sleep(0.05)


def _children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def command(words: Sequence[str]) -> None:
    """The command line."""
    given = {"what": "training", "count": "1000", "seed": "0", **dict(word.split("=") for word in words)}
    count, seed = int(given["count"]), int(given["seed"])
    counts = {given["what"]: count}
    if given["what"] == "all":
        counts = {kind: max(1, count * share // 100) for kind, share in SHARES.items()}
        counts["training"] += count - sum(counts.values())
    for kind, kills in counts.items():
        with tempfile.TemporaryDirectory() as folder:
            num_runs = kill_runs(KINDS[kind](Path(folder)), Path(folder), count=kills, seed=seed)
        print(
            f"{kind}: {kills} kills of {num_runs} runs, seed {seed}: each ended as if nobody had killed it", flush=True
        )


if __name__ == "__main__":
    command(sys.argv[1:])
