"""The clock: times workloads against each other in processes of their own; it knows neither models nor attention.

What it times comes from a module that the run names (see `Source`), so that a worker process can import it.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Protocol, cast

from eval.rows import Cell, Correctness, Work
from zoo.config import require

# Fewer rounds give no interval worth the name.
MIN_ROUNDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A cell, built and ready: something to call, a check that comes before the clock, and how much work it is.

    Attributes:
        call: One call, compiled if the cell says so; returns arrays that are evaluated before the clock stops.
        check: Compares with a reference; run once, before any timing, in the same process.
        work: Without the device's limits.
        function: Names the function computed; only equal ones are compared on speed alone.
        analytic_bytes: The least that a call must hold, by formula.
        cache_bytes: Measures the decoding cache after some calls; None where there is none.
        analytic_cache_bytes: The cache's bytes by formula.
    """

    call: Callable[[], object]
    check: Callable[[], Correctness]
    work: Work
    function: Hashable
    analytic_bytes: int | None = None
    cache_bytes: Callable[[], int] | None = None
    analytic_cache_bytes: int | None = None


class Source(Protocol):
    """A module that makes workloads of cells."""

    def build(self, cell: Cell) -> Workload:
        """Builds a cell, or raises a UserError with the reason why it cannot be."""

    def refusal(self, cell: Cell, available_bytes: int) -> str | None:
        """Why a cell is not worth building with so many bytes to use, in one line; None if it is."""


def source(name: str) -> Source:
    """Imports a module of workloads."""
    return cast(Source, importlib.import_module(name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that are timed against each other, in one process, round by round.

    Attributes:
        cells: At least one; exactly one has the role "baseline", unless there is only one cell.
        memory: Whether each cell's peak is measured too, in a process of its own.
        control: Whether the baseline is timed a second time, as A/A control.
        max_rounds: Most rounds, where cells are slow; None for the run's own number.
        skipped: Cells that the suite itself leaves out, and why: identity -> reason, which becomes their row's.
    """

    cells: tuple[Cell, ...]
    memory: bool = False
    control: bool = True
    max_rounds: int | None = None
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Suite and group of the cells."""
        return f"{self.cells[0].suite}/{self.cells[0].group}"

    @property
    def baseline(self) -> Cell:
        """The cell that the others are compared with."""
        return next((cell for cell in self.cells if cell.role == "baseline"), self.cells[0])

    @property
    def control_cell(self) -> Cell:
        """The baseline once more, as A/A control."""
        return self.baseline.model_copy(update={"role": "control", "variant": f"{self.baseline.variant} (A/A)"})

    @property
    def recorded_cells(self) -> list[Cell]:
        """The cells of which the group leaves rows: its own, and its control."""
        return [*self.cells, *([self.control_cell] if self.control else [])]

    def built_as(self, cell: Cell) -> Cell:
        """The cell that is built for a recorded one: a control is the baseline under another name."""
        return self.baseline if cell.role == "control" else cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How groups are measured.

    Attributes:
        rounds: Timed rounds of a group; fewer where the budget is short, but at least `MIN_ROUNDS`.
        min_warmup: Fewest untimed calls of a cell, at least 1; long calls are settled after fewer.
        max_warmup: Most untimed calls of a cell that does not settle.
        sample_seconds: A sample takes at least about this long, by more calls, so that the clock's grain is nothing.
        step_seconds: Longest time of a single step of a cell (a build, a check, a call) before it counts as hung.
        budget_seconds: For all groups together.
        seed: Of the order within rounds, and of the padding between arrays.
        available_bytes: What cells may need; None for what the machine has free.
        device: Back end, as `zoo.runtime.backend.choose_backend` takes it.
        workloads: Module that makes workloads of cells, a `Source`.
    """

    rounds: int = 20
    min_warmup: int = 10
    max_warmup: int = 30
    sample_seconds: float = 0.002
    step_seconds: float = 600.0
    budget_seconds: float = math.inf
    seed: int = 0
    available_bytes: int | None = None
    device: str = "auto"
    workloads: str = "eval.workloads.registry"

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", "be at least 1", self.rounds)
        require(1 <= self.min_warmup <= self.max_warmup, "min_warmup", "be from 1 to max_warmup", self.min_warmup)
        require(self.budget_seconds >= 0, "budget_seconds", "be at least 0", self.budget_seconds)
        require(self.step_seconds > 0, "step_seconds", "be above 0", self.step_seconds)
