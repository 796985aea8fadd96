"""Interleaved timing: every candidate once per round, in shuffled order, so that drift of the machine hits all alike.

A single time on a shared machine says little; the ratio of two candidates within one round says much more. Quote
the median of those paired ratios.
"""

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping

import mlx.core as mx

# Returns arrays; the timer evaluates them before the clock stops.
Candidate = Callable[[], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """Raw seconds of each candidate, round by round."""

    seconds: Mapping[str, tuple[float, ...]]

    def median_seconds(self, name: str) -> float:
        """Median time of one candidate."""
        return statistics.median(self.seconds[name])

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median over the rounds of time(numerator) / time(denominator)."""
        pairs = zip(self.seconds[numerator], self.seconds[denominator], strict=True)
        return statistics.median(above / below for above, below in pairs)


def interleave(candidates: Mapping[str, Candidate], *, rounds: int, warmup: int = 3, seed: int = 0) -> Samples:
    """Times candidates against each other.

    Args:
        candidates: Name -> function without arguments; what it returns is evaluated inside the clock.
        rounds: Timed calls of each, at least 1.
        warmup: Untimed calls of each before.
        seed: Of the order within the rounds.

    Returns:
        The raw samples.
    """
    order = list(candidates)
    for name in order * warmup:
        mx.eval(candidates[name]())
    shuffle = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            mx.eval(candidates[name]())
            seconds[name].append(time.perf_counter() - start)
    return Samples(seconds={name: tuple(values) for name, values in seconds.items()})
