"""What a run and its worker processes say to each other.

A worker gets one job. While it works it announces each step in two shared numbers, which costs no system call and wakes
nobody up on a machine with few cores; so whoever watches knows which cell was at work when a worker died or hung. What
it found it sends as reports, and None at the end.
"""

import dataclasses
import enum
import signal
from collections.abc import Callable, Hashable

from eval.rows import Cell, Correctness, Memory, Work
from eval.rows.schema import Status
from zoo.config import UserError, require
from zoo.runtime.memory import address_space_is_limited, is_exhaustion

# Fewer rounds give no interval worth the name.
MIN_ROUNDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How groups are measured.

    Attributes:
        rounds: Timed rounds of a group; fewer where the budget is short, but at least `MIN_ROUNDS`.
        min_warmup: Fewest untimed calls of a cell, at least 1.
        max_warmup: Most untimed calls of a cell that does not settle.
        sample_seconds: A sample takes at least about this long, by more calls, so that the clock's grain is nothing.
        step_seconds: Longest time of a single step of a cell (a build, a check, a call) before it counts as hung.
        budget_seconds: For all groups together, or None for no limit.
        seed: Of the order within rounds, and of the padding between arrays.
        available_bytes: What cells may need; None for what the machine has free.
        device: Back end, as `zoo.runtime.backend.choose_backend` takes it.
        workloads: Module that makes workloads of cells, an `eval.bench.Source`.
    """

    rounds: int = 20
    min_warmup: int = 10
    max_warmup: int = 30
    sample_seconds: float = 0.002
    step_seconds: float = 600.0
    budget_seconds: float | None = None
    seed: int = 0
    available_bytes: int | None = None
    device: str = "auto"
    workloads: str = "eval.workloads.registry"

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", "be at least 1", self.rounds)
        require(1 <= self.min_warmup <= self.max_warmup, "min_warmup", "be from 1 to max_warmup", self.min_warmup)
        positive = self.budget_seconds is None or self.budget_seconds > 0
        require(positive, "budget_seconds", "be above 0", self.budget_seconds)
        require(self.step_seconds > 0, "step_seconds", "be above 0", self.step_seconds)


class Stage(enum.IntEnum):
    """What a worker does to a cell."""

    STARTING = 0
    BUILDING = 1
    CHECKING = 2
    CALLING = 3


# Announces that a stage of the cell with this index begins.
Announce = Callable[[int, Stage], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingJob:
    """Check cells, then time them against each other.

    Attributes:
        cells: What to build; equal cells are checked once.
        options: How.
        rounds: Most rounds.
        seconds: For all of it, or None; at least `MIN_ROUNDS` rounds are made in any case.
        label: Sets this group's order of rounds apart from another's.
    """

    cells: tuple[Cell, ...]
    options: MeasureOptions
    rounds: int
    seconds: float | None
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryJob:
    """Measure the memory of one cell, in a process where nothing else was."""

    cell: Cell
    options: MeasureOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed:
    """A cell is out; `correctness` is what its check found, if it came to that."""

    index: int
    status: Status
    reason: str
    correctness: Correctness | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """A cell that went all the way.

    Attributes:
        index: Of the cell in the job.
        correctness: Passed.
        function: As in the workload; so is `work`.
        work: Without the device's limits.
        memory: What is known without a process of its own: bytes by formula.
        first_call_seconds: After the check, of a workload built anew.
        warmup_calls: Untimed calls between the first one and the first sample.
        calls_per_sample: A sample is the mean of this many calls.
        samples_seconds: Seconds per call, one for each round.
        rounds_id: Names the rounds; the same for all cells that were timed against each other.
    """

    index: int
    correctness: Correctness
    function: Hashable
    work: Work
    memory: Memory
    first_call_seconds: float
    warmup_calls: int
    calls_per_sample: int
    samples_seconds: tuple[float, ...]
    rounds_id: str


Job = TimingJob | MemoryJob
Report = Failed | Timed | Memory


_DOING = {
    Stage.STARTING: "while its process started",
    Stage.BUILDING: "while it was built",
    Stage.CHECKING: "while it was checked",
    Stage.CALLING: "while it was called",
}
_LONGEST = 300
# How a process ends whose allocator got nothing from the system and went on.
_WITHOUT_MEMORY = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)


def from_exception(error: Exception, stage: Stage) -> tuple[Status, str]:
    """Status and reason of a cell that raised.

    What refuses its own configuration is unavailable; any other exception is a fault, which may be mended.
    """
    text = _last_line(error)
    if is_exhaustion(error):
        return "out_of_memory", f"{text or 'no memory was left'} ({_DOING[stage]})"
    if isinstance(error, UserError):
        return "unavailable", text
    return "crashed", f"{type(error).__name__}: {text} ({_DOING[stage]})"


def from_exit_code(code: int, stage: Stage, *, killed_for_memory: bool = False) -> tuple[Status, str]:
    """Status and reason of the cell at work when its process died.

    Args:
        code: As `multiprocessing` has it: minus the signal's number where a signal ended the process.
        stage: What was being done.
        killed_for_memory: Whether the kernel has counted a process killed for want of memory meanwhile.
    """
    if code < 0 and killed_for_memory:
        return "out_of_memory", f"killed {_DOING[stage]} by the kernel, which counts it as out of memory"
    if code in _WITHOUT_MEMORY and address_space_is_limited():
        name = signal.Signals(-code).name
        return (
            "out_of_memory",
            f"ended by {name} {_DOING[stage]} under a limit of memory (ulimit), as MLX does there",
        )
    if code == -signal.SIGKILL:
        return "out_of_memory", f"killed by SIGKILL {_DOING[stage]}, as Linux does when memory runs out"
    if code < 0:
        return "crashed", f"ended by {signal.Signals(-code).name} {_DOING[stage]}"
    return "crashed", f"ended its process with exit code {code} {_DOING[stage]}"


def from_silence(seconds: float, stage: Stage) -> tuple[Status, str]:
    """Status and reason of a cell that took too long over one step."""
    return "crashed", f"took longer than {seconds:g} s over one step {_DOING[stage]}, and was stopped"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else ""
