"""Tries many hostile inputs, in a process of their own that may die, and says what each came to.

    python -m tests.fuzz.campaign seed=7 count=2000
    python -m tests.fuzz.campaign case=checkpoint/7/12      # one input again, with its traceback

An input is `<subject>/<seed>/<index>` and nothing else: the same on every machine. It may be accepted, or refused in
one line. A traceback, a crash by a signal, more than `CPU_SECONDS` of work, a wait of `WAIT_SECONDS` and memory beyond
`MEMORY_BYTES` over what the subject needs by itself are faults, and so is accepting what is wrong for certain.
"""

import collections
import contextlib
import dataclasses
import gc
import io
import json
import os
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CPU_SECONDS = 10
WAIT_SECONDS = 60
MEMORY_BYTES = 2 * 2**30
# Importing and making ready, on a busy machine.
_START_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an input came to: `accepted`, `refused`, or a fault in words."""

    case: str
    result: str
    message: str

    @property
    def is_fault(self) -> bool:
        """Whether it was neither accepted nor refused as it should be."""
        return self.result not in ("accepted", "refused")


def cases(seed: int, count: int, subjects: Sequence[str] | None = None) -> list[str]:
    """The inputs of a campaign: each subject by its share."""
    from tests.fuzz.subjects import SUBJECTS

    chosen = {name: SUBJECTS[name] for name in subjects or SUBJECTS}
    total = sum(subject.share for subject in chosen.values())
    return [
        f"{name}/{seed}/{index}"
        for name, subject in chosen.items()
        for index in range(max(1, round(count * subject.share / total)))
    ]


def outcomes(names: Sequence[str]) -> Iterator[Outcome]:
    """Tries inputs one after the other; a process that dies is followed by another, at the next input."""
    waiting = collections.deque(names)
    while waiting:
        yield from _of_one_process(waiting)


def _of_one_process(waiting: collections.deque[str]) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="zoo-fuzz-") as folder:
        command = [sys.executable, "-m", "tests.fuzz.campaign", "worker"]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "ZOO_CACHE": folder + "/cache", "TMPDIR": folder}
        environment["ZOO_BLAS"] = os.environ.get("ZOO_BLAS", "")
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_path(environment),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n".join(waiting).encode() + b"\n")
            process.stdin.close()
            lines = _Lines(process)
            if lines.next(_START_SECONDS) != "ready":
                raise RuntimeError(f"the worker did not start: {process.stderr.read().decode()[-2000:]}")
            while waiting:
                case = waiting.popleft()
                line = lines.next(WAIT_SECONDS)
                if line is None:
                    yield Outcome(case, *lines.end())
                    return
                yield Outcome(case, **json.loads(line))


class _Lines:
    """Lines of a worker's answers, with limits on waiting and working."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._buffer = b""
        self._why = ""

    def next(self, seconds: float) -> str | None:
        assert self.process.stdout is not None
        deadline, worked = time.monotonic() + seconds, self._cpu()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], 0.2)
            if ready:
                part = os.read(self.process.stdout.fileno(), 65536)
                if not part:
                    return None
                self._buffer += part
            elif seconds != _START_SECONDS and self._cpu() - worked > CPU_SECONDS:
                self._kill(f"more than {CPU_SECONDS} seconds of work")
                return None
            elif time.monotonic() > deadline:
                self._kill(f"a wait of more than {seconds} seconds")
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def _kill(self, why: str) -> None:
        self._why = why
        self.process.kill()

    def end(self) -> tuple[str, str]:
        """How the process ended."""
        code = self.process.wait()
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
        return ("hang", self._why) if self._why else ("crash", f"exit {code}; {' | '.join(said[-3:])}")

    def _cpu(self) -> float:
        """Seconds of work of the process so far."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _path(environment: dict[str, str]) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**environment, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


def attempt(case: str, *, full: bool = False) -> Outcome:
    """Tries one input in this process."""
    from tests.fuzz.subject import MustRefuseError, one_line
    from tests.fuzz.subjects import ready
    from zoo.config import UserError

    name, seed, index = case.split("/")
    subject = ready(name)
    with tempfile.TemporaryDirectory(prefix="zoo-fuzz-") as folder:
        try:
            with contextlib.nullcontext() if full else contextlib.redirect_stderr(io.StringIO()):
                subject.attempt(random.Random(f"{seed}/{name}/{index}"), Path(folder))
            return Outcome(case, "accepted", "")
        except UserError as error:
            try:
                return Outcome(case, "refused", one_line(error))
            except MustRefuseError as wrong:
                return Outcome(case, "wrong", str(wrong))
        except MustRefuseError as wrong:
            return Outcome(case, "wrong", str(wrong))
        except Exception as error:
            if full:
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            ours = [each for each in traceback.extract_tb(error.__traceback__) if "site-packages" not in each.filename]
            near = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
            message = (
                f"{type(error).__name__}: {str(error)[:200]} at {Path(where.filename).name}:{where.lineno} ({near})"
            )
            return Outcome(case, "traceback", message)


def _worker() -> None:
    import zoo  # noqa: F401 - before MLX
    from tests.fuzz.subjects import ready

    names = sys.stdin.read().split()
    answers = os.fdopen(os.dup(1), "w")
    # What the code under test prints is not an answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in dict.fromkeys(case.split("/")[0] for case in names):
        ready(name)
    # Nothing of what is there now will be garbage.
    gc.freeze()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=answers, flush=True)
    for case in names:
        outcome = attempt(case)
        print(json.dumps({"result": outcome.result, "message": outcome.message}), file=answers, flush=True)


def summary(found: Iterable[Outcome]) -> str:
    """Faults by what they are, then how many inputs came to what."""
    groups: dict[tuple[str, str], list[Outcome]] = collections.defaultdict(list)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for outcome in found:
        name = outcome.case.split("/")[0]
        counts[name, outcome.result] += 1
        if outcome.is_fault:
            groups[name, f"{outcome.result}: {_kind(outcome.message)}"].append(outcome)
    lines = [f"{len(group)} x {what} [{group[0].case}]" for (_, what), group in sorted(groups.items())]
    return "\n".join([*lines, *(f"{name}: {count} {result}" for (name, result), count in sorted(counts.items()))])


def _kind(message: str) -> str:
    """A message without what differs between inputs of one kind: what is quoted, numbers and paths."""
    return re.sub(r"/[^ ]*/|'[^']*'|\"[^\"]*\"|(?<![:\w])-?\d+(\.\d+)?", "…", message)[:160]


def main(arguments: Sequence[str]) -> int:
    """The command line above."""
    if list(arguments) == ["worker"]:
        _worker()
        return 0
    given = dict(each.split("=", 1) for each in arguments)
    if "case" in given:
        print(attempt(given["case"], full=True))
        return 0
    names = cases(int(given.get("seed", 0)), int(given.get("count", 2000)), _chosen(given))
    found = []
    for outcome in outcomes(names):
        found.append(outcome)
        if outcome.is_fault:
            print(outcome.case, outcome.result, outcome.message, flush=True)
    print(summary(found))
    return int(any(outcome.is_fault for outcome in found))


def _chosen(given: dict[str, str]) -> list[str] | None:
    return given["subjects"].split(",") if "subjects" in given else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
