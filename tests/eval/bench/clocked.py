"""Builders whose calls take no time but move a clock: what a machine's noise does to the statistics, in no time."""

import random
from collections.abc import Callable

from eval.bench import Workload
from eval.rows import Cell, Correctness, Work

BASE_SECONDS = 0.004
# More than a first call and the longest warm-up: `breaks` fails in a round, or between two.
CALLS_BEFORE_BREAKING = 35


class Clock:
    """Seconds that calls have taken, with noise, stalls, drift, and luck that lasts as long as a build."""

    def __init__(self) -> None:
        self.start(seed=0)

    def __call__(self) -> float:
        return self._now

    def start(self, *, seed: int) -> None:
        self._now, self._random, self.built, self.called = 0.0, random.Random(seed), [], []

    def build(self, cell: Cell) -> Callable[[], object]:
        self.built.append(cell.variant)
        luck = self._random.lognormvariate(0.0, 0.005)
        factor = {"slowed": 1.1, "long": 5.0}.get(cell.variant, 1.0)

        def call() -> None:
            self.called.append(cell.variant)
            if cell.variant == "breaks" and self.called.count("breaks") == CALLS_BEFORE_BREAKING:
                raise RuntimeError("planted")
            drift = 1.0 + 0.3 * (self._now % 2.0)
            stall = self._random.choice([1.0] * 19 + [3.0])
            self._now += BASE_SECONDS * factor * luck * drift * stall * self._random.lognormvariate(0.0, 0.02)

        return call


CLOCK = Clock()


def build(cell: Cell) -> Workload:
    def check() -> Correctness:
        CLOCK.called.append(f"check {cell.variant}")
        return Correctness(passed=cell.variant != "wrong", checks="values", max_error=0.7, tolerance=0.5)

    return Workload(call=CLOCK.build(cell), check=check, work=Work(useful_flops=1000, tokens=1), function="addition")
