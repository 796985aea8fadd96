"""What a run and its worker processes say to each other.

A worker gets one job. While it works it announces each step in two shared numbers, which costs no system call and wakes
nobody up on a machine with few cores; so whoever watches knows which cell was at work when a worker died or hung. What
it found it sends as reports, the last of which is `Finished`.
"""

import dataclasses
import enum
from collections.abc import Callable

from eval.rows import Cell, Correctness, Memory, Work
from eval.rows.schema import Status
from zoo.config import require


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
        builders: Module whose `BUILDERS` makes subjects of cells.
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
    builders: str = "eval.speed.builders"

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
    """A cell is out."""

    index: int
    status: Status
    reason: str
    correctness: Correctness | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """A cell that went all the way.

    Attributes:
        index: Of the cell in the job.
        exact_class: As in the subject.
        correctness: Passed.
        work: As in the subject.
        memory: What is known without a process of its own: bytes by formula.
        first_call_seconds: After the check, of a subject built anew.
        warmup_calls: Untimed calls between the first one and the first sample.
        calls_per_sample: A sample is the mean of this many calls.
        samples_seconds: Seconds per call, one for each round.
        rounds_id: Names the rounds; the same for all cells that were timed against each other.
    """

    index: int
    exact_class: str
    correctness: Correctness
    work: Work
    memory: Memory
    first_call_seconds: float
    warmup_calls: int
    calls_per_sample: int
    samples_seconds: tuple[float, ...]
    rounds_id: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Memory of a cell."""

    memory: Memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """Nothing more will come."""


Job = TimingJob | MemoryJob
Report = Failed | Timed | Measured | Finished


# Fewer give no interval worth the name.
MIN_ROUNDS = 5
