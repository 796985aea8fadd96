"""One run of MLX's launcher, which starts this job's command again in several processes, and passes on what they say.

What it does not do is done here: one line says what ended the processes, and nothing is left running.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig

from recipes.app import END_WITH_PARENT
from recipes.job import FLAGS, job_overrides
from recipes.streams import show
from zoo.config import UserError
from zoo.runtime.pool import THREAD_VARIABLES
from zoo.runtime.threads import usable_cores
from zoo.runtime.watch import BEREFT, LAUNCHER, process_of
from zoo.training.signals import handled

# Tells the processes the folder of their beats.
BEATS = "ZOO_BEATS"
# What is decided here, and not by those who are launched.
_OURS = ("run_dir", "resume", "launch")
# What the launcher says of a process that ended.
_ENDED = re.compile(r"Node with rank (\d+) (?:was killed|exited with code (-?\d+))")
# What the launcher and MLX say of the end of others, and what a process says of its own; perhaps behind a progress bar.
_NOISE = re.compile(r"(?:\x1b\[\d+m)?\[(?:WARN|ring|jaccl)\][^\r\n]*[\r\n]*")
# How ssh ends that reaches no host, and the shell that finds no ssh.
_SSH_FAILED = {255, 127}
_ERROR = re.compile(r"(?<!: )\berror: ([^\r\n]*)[\r\n]*")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where free ports are looked for; each process begins elsewhere, for others may be looking too.
_PORTS = range(32_400, 60_000, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where processes run: so many on this machine, or one for each host of a file.

    Attributes:
        processes: On this machine.
        hostfile: Of MLX's launcher; None for this machine.
    """

    processes: int
    hostfile: Path | None


class Launch:
    """One run of the launcher, to its end.

    Attributes:
        result: What the process that leads has printed; None if it came to no result.
        died: Whether a process ended by no doing of its own.
        stopped: Whether we were asked to end.
    """

    def __init__(self, place: Place, own: Sequence[str], *, beats: Path, run: Path | None = None) -> None:
        """Launches this job.

        Args:
            place: Where, and how many.
            own: Overrides in place of those that are decided here.
            beats: The folder in which the processes tell each other that they are there.
            run: Of a training, the folder of its run.
        """
        self._place, self._beats, self._run = place, beats, run
        self.result: dict[str, Any] | None = None
        self.stopped = False
        self._errors: list[str] = []
        self._ended: dict[int, int] = {}
        self._process = subprocess.Popen(
            self._command(own),
            # Its other end stays open: whatever may be read there, an end too, the launcher reads all the time.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            # Of its own, so that Ctrl-C reaches it through us alone, and all of it can be ended.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = (
            threading.Thread(target=self._read_results, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_words, args=(self._process.stderr,), daemon=True),
        )
        try:
            with handled(self._stop, *_SIGNALS):
                self._follow()
        finally:
            self._end()

    @property
    def died(self) -> bool:
        # SIGTERM is what the launcher ends the others with.
        return any((code < 0 and code != -signal.SIGTERM) or code == BEREFT for code in self._ended.values())

    @property
    def reason(self) -> str:
        """Why there is no result, in one line."""
        if self._errors:
            return self._errors[0]
        ended = ", ".join(f"process {rank} with exit code {code}" for rank, code in sorted(self._ended.items()))
        what = f"the processes that were launched together have ended without a result ({ended or 'see above'})"
        if self.died and self._run is not None:
            return f"{what}; run_dir={self._run} resume=auto goes on from the last checkpoint"
        unreached = _SSH_FAILED & set(self._ended.values())
        return f"{what}: launch.hostfile must name hosts that ssh reaches" if unreached else what

    def _command(self, own: Sequence[str]) -> list[str]:
        place = self._place
        hosts = ["--hostfile", str(place.hostfile)] if place.hostfile else []
        port = ["--starting-port", str(_free_port(place.processes))] if not place.hostfile else []
        launcher = [str(Path(sys.executable).with_name("mlx.launch")), "--repeat-hosts", str(place.processes)]
        typed = [each for each in job_overrides() if each.partition("=")[0].partition(".")[0].lstrip("+~") not in _OURS]
        return [*launcher, *hosts, *port, sys.executable, *_script(), *typed, *own]

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != END_WITH_PARENT}
        environment[LAUNCHER] = f"{socket.gethostname()}:{os.getpid()}"
        environment[BEATS] = str(self._beats)
        if not any(name in environment for name in THREAD_VARIABLES):
            environment[THREAD_VARIABLES[0]] = str(max(1, usable_cores() // self._place.processes))
        return environment

    def _follow(self) -> None:
        for reader in self._readers:
            reader.start()
        while True:
            try:
                self._process.wait(timeout=1.0)
                return
            except subprocess.TimeoutExpired:
                self._nudge()

    def _end(self) -> None:
        """Leaves nothing of it: no process, no thread, no pipe."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None, "each was asked for"
            with contextlib.suppress(OSError):
                pipe.close()

    def _nudge(self) -> None:
        """Lets the launcher find out that nobody reads what it passes on: until then it keeps a core busy."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _read_results(self, stream: IO[bytes]) -> None:
        """Passes on what the process that leads shows, but for its last line, which is the result."""
        held, begins_line = b"", True
        while content := os.read(stream.fileno(), 4096):
            held += content
            last = held.rfind(b"\n", 0, len(held) - 1) + 1
            # It may be a line of the text as well, which the next one shows.
            may_be = held[last:].startswith(b"{") and (last > 0 or begins_line)
            told, held = (held[:last], held[last:]) if may_be else (held, b"")
            begins_line = told.endswith(b"\n") if told else begins_line
            show(told.decode(errors="replace"))
        if held:
            self.result = json.loads(held)

    def _read_words(self, stream: IO[bytes]) -> None:
        """Passes on what the processes say, in whole lines; what ended them is kept, for one line of ours."""
        waiting = ""
        while content := os.read(stream.fileno(), 4096):
            *lines, waiting = re.split(r"(?<=[\r\n])", waiting + content.decode(errors="replace"))
            for line in lines:
                self._hear(line)
            sys.stderr.flush()
        self._hear(waiting)
        if not waiting.endswith("\n") and waiting:
            sys.stderr.write("\n")

    def _hear(self, line: str) -> None:
        self._ended |= {int(found[1]): int(found[2] or 0) for found in _ENDED.finditer(line)}
        # One that is ended because of another one has nothing to say.
        self._errors += [found[1].strip() for found in _ERROR.finditer(line) if found[1].strip() != "interrupted"]
        sys.stderr.write(_NOISE.sub("", _ERROR.sub("", line)))

    def _stop(self, number: int, frame: object) -> None:
        """Tells the process that leads to stop, which all do at the same step; a second time kills."""
        leader = None if self.stopped else process_of(self._beats, 0)
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            if leader is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                os.kill(leader, signal.SIGTERM)


def _script() -> list[str]:
    """The script of this job, and the flags that chose its configuration."""
    script = Path(__file__).resolve().parents[1] / "scripts" / f"{HydraConfig.get().job.name}.py"
    return [str(script), *FLAGS.get()]


def _free_port(number: int) -> int:
    """The first of so many ports in a row that nobody on this machine listens at."""
    begin = os.getpid() % len(_PORTS)
    for first in (*_PORTS[begin:], *_PORTS[:begin]):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise UserError("launch: no port is free on this machine")
