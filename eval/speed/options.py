"""How a run measures: rounds, warm-up, limits, budget."""

import dataclasses

from zoo.config import require

# Fewer give no interval worth the name.
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
