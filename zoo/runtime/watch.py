"""Whether the processes that work on one model are all there: each writes beats, and reads those of the others.

A process that dies or hangs leaves the others waiting for their turn of an exchange, some back ends for ever. So each
has a thread that writes a beat a second into a file of a folder that all of them see, of a training that of its run.
Whoever finds that another one has ended, or has not written for too long, ends itself; the first of those that are left
says it, in one line. So does whoever loses a connection to another one that lives.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from zoo.runtime.processes import Processes

# The exit code of a process that ends because another one has.
BEREFT = 75
# Where whoever launched the processes says what it is, as HOST:PID: when it is gone, they end.
LAUNCHER = "ZOO_LAUNCHED_BY"
_INTERVAL_SECONDS = 1.0
# In the run's folder.
BEATS = ".processes"

# Looks at a connection that is closed, before it counts as lost: whoever has ended may be about to say so.
_LOST_LOOKS = 5

# What MLX says where an exchange has failed.
_EXCHANGE = re.compile(r"\[(ring|jaccl|nccl|mpi)\]", re.IGNORECASE)

State = Literal["works", "failed", "done"]


@dataclasses.dataclass(kw_only=True)
class _Other:
    """What is known of another process: its last beat, and when that came."""

    beat: dict[str, object]
    since: float


class Watch:
    """Watches the other processes while it is entered; of a single process it does nothing."""

    def __init__(
        self, processes: Processes, folder: Path, *, patience_seconds: float, advice: Callable[[], str]
    ) -> None:
        """Prepares.

        Args:
            processes: That work together.
            folder: Of the run, for one; every process sees it, on whatever machine it is.
            patience_seconds: A process without a beat for so long has stopped.
            advice: What to do now that the run has ended, for the line that says so.
        """
        self._processes, self._folder, self._advice = processes, folder / BEATS, advice
        self._patience = patience_seconds
        self._interval = min(_INTERVAL_SECONDS, patience_seconds / 5)
        self._parent, self._host = os.getppid(), socket.gethostname()
        self._state: State = "works"
        self._count = 0
        self._left = threading.Event()
        self._num_lost = self._num_done = 0
        others = set(range(processes.size)) - {processes.rank}
        self._others = {rank: _Other(beat={}, since=time.monotonic()) for rank in sorted(others)}

    @classmethod
    def forget(cls, folder: Path) -> None:
        """Removes the beats of an earlier launch from a run's folder; of one process, before any writes its own."""
        shutil.rmtree(folder / BEATS, ignore_errors=True)

    def __enter__(self) -> Self:
        """Begins to write and to look."""
        if self._others:
            self._folder.mkdir(exist_ok=True)
            self._write()
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tells the others how it ended; an exchange that failed because another process has ended is told as that."""
        if not self._others:
            return
        if isinstance(error, RuntimeError) and _EXCHANGE.search(str(error)):
            # The thread finds out whose end it was, and ends this process too.
            self._left.wait(2 * self._patience)
        self._state = "done" if error is None else "failed"
        self._left.set()
        self._write()
        if self._processes.leads and error is None:
            self._wait(lambda: not any(self._works(rank) for rank in self._others))
            self.forget(self._folder.parent)
        # Perhaps the first fails as well, and then says it: one line is enough.
        follows = error is not None and not self._processes.leads
        if follows and self._wait(lambda: not self._works(0), most=2 * self._interval):
            self._wait(lambda: not _is_alive(_place(self._read(0) or {})))
            raise SystemExit(2)

    def _works(self, rank: int) -> bool:
        """Whether a process is at work still, as far as can be told."""
        beat = self._read(rank) or {}
        return beat.get("state") == "works" and _is_alive(_place(beat))

    def _wait(self, end: Callable[[], bool], *, most: float | None = None) -> bool:
        """Waits for something, but no longer than for a silent process; returns whether it came."""
        until = time.monotonic() + (self._patience if most is None else most)
        while not end():
            if time.monotonic() > until:
                return False
            time.sleep(self._interval / 10)
        return True

    def _watch(self) -> None:
        while not self._left.wait(self._interval):
            if os.getppid() != self._parent or not _is_alive(os.environ.get(LAUNCHER, "")):
                os._exit(BEREFT)
            self._write()
            if not self._folder.exists():
                # Taken away with a run that could not begin.
                os._exit(BEREFT)
            self._look()

    def _look(self) -> None:
        now, gone = time.monotonic(), {}
        for rank, other in self._others.items():
            beat = self._read(rank)
            if beat is not None and beat != other.beat:
                other.beat, other.since = beat, now
            if other.beat.get("state") == "done":
                self._num_done += rank == 0
                if self._num_done > _LOST_LOOKS:
                    # Whoever leads has all that is wanted.
                    os._exit(0)
                continue
            if other.beat.get("state") == "failed":
                # It says why, for which the launcher must not end it before.
                place = _place(other.beat)
                self._wait(lambda: not _is_alive(place))  # noqa: B023
                os._exit(BEREFT)
            if not _is_alive(_place(other.beat)):
                gone[rank] = "has ended"
            elif now - other.since > self._patience:
                gone[rank] = f"has not answered for {self._patience:g} s"
        if gone:
            self._end(gone)
        # Whoever is done has closed its ends.
        all_work = all(other.beat.get("state") == "works" for other in self._others.values())
        self._num_lost = self._num_lost + 1 if all_work and not self._processes.are_connected() else 0
        if self._num_lost >= _LOST_LOOKS:
            self._state = "failed"
            self._write()
            self._say(f"process {self._processes.rank} of {self._processes.size} has lost a connection")
            os._exit(BEREFT)

    def _end(self, gone: dict[int, str]) -> None:
        first = min(set(range(self._processes.size)) - set(gone))
        if first == self._processes.rank:
            rank, what = min(gone.items())
            self._say(f"process {rank} of {self._processes.size} {what}")
        for rank in gone:
            # One that was stopped cannot end by itself.
            with contextlib.suppress(OSError, ValueError):
                if self._others[rank].beat.get("host") == self._host:
                    os.kill(int(str(self._others[rank].beat["pid"])), signal.SIGKILL)
        os._exit(BEREFT)

    def _say(self, what: str) -> None:
        """One line, in one piece, which nobody else writes into."""
        line = f"error: {what}, so the run has ended; {self._advice()}\n"
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), line.encode())

    def _write(self) -> None:
        self._count += 1
        beat = {"host": self._host, "pid": os.getpid(), "count": self._count, "state": self._state}
        path = _path(self._folder, self._processes.rank)
        # A beat that was lost is followed by another: nothing is forced to the disk.
        with contextlib.suppress(OSError):
            path.with_suffix(".new").write_text(json.dumps(beat))
            path.with_suffix(".new").replace(path)

    def _read(self, rank: int) -> dict[str, object] | None:
        return _read(self._folder, rank)


def process_of(folder: Path, rank: int) -> int | None:
    """The process of a rank that trains in a run's folder, if it does so on this machine; None otherwise."""
    beat = _read(folder / BEATS, rank)
    return int(str(beat["pid"])) if beat is not None and beat["host"] == socket.gethostname() else None


def _read(folder: Path, rank: int) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads(_path(folder, rank).read_text())
    except (OSError, ValueError):
        return None
    return found


def _path(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.json"


def _place(beat: Mapping[str, object]) -> str:
    return f"{beat.get('host', '')}:{beat.get('pid', '')}"


def _is_alive(place: str) -> bool:
    """Whether the process HOST:PID runs; of another machine, or where none is named, it counts as running."""
    host, _, pid = place.rpartition(":")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    # One that has ended is listed until its parent asks for it.
    with contextlib.suppress(OSError):
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return True
