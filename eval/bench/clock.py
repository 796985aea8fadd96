"""How a call is timed: its warm-up, samples long enough for the clock, and rounds for as long as there is time."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable

import mlx.core as mx

from eval.bench.job import MIN_ROUNDS, MeasureOptions
from eval.rows.cell import Execution

Clock = Callable[[], float]

# Warm means: the median of so many calls is within this share of the median of as many before them.
WINDOW, TOLERANCE = 5, 0.05
# What has not settled by then does not for want of calls.
PATIENCE_SECONDS = 5.0
# Fewer calls would not be throughput; more would fill the memory with results.
MIN_THROUGHPUT_CALLS, MAX_CALLS = 4, 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warmth:
    """What the warm-up found: how many calls there were, and the median seconds of the last ones, for one call."""

    calls: int
    seconds: float


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one call, evaluated before the clock stops."""
    start = clock()
    mx.eval(call())
    return clock() - start


def warm_up(
    call: Callable[[], object], options: MeasureOptions, *, before: Callable[[], None], clock: Clock = time.perf_counter
) -> Warmth:
    """Calls until the times are stable, within the options' bounds; `before` is called ahead of every call."""
    seconds: list[float] = []
    while len(seconds) < options.max_warmup:
        before()
        seconds.append(timed(call, clock))
        if len(seconds) >= options.min_warmup and (_is_stable(seconds) or sum(seconds) > PATIENCE_SECONDS):
            break
    return Warmth(calls=len(seconds), seconds=statistics.median(seconds[-WINDOW:]))


def _is_stable(seconds: list[float]) -> bool:
    if len(seconds) < 2 * WINDOW:
        return False
    before, now = statistics.median(seconds[-2 * WINDOW : -WINDOW]), statistics.median(seconds[-WINDOW:])
    return abs(now - before) <= TOLERANCE * before


def calls_per_sample(warmth: Warmth, execution: Execution, sample_seconds: float) -> int:
    """How many calls make one sample."""
    wanted = math.ceil(sample_seconds / max(warmth.seconds, 1e-9))
    least = MIN_THROUGHPUT_CALLS if execution == "throughput" else 1
    return min(max(wanted, least), MAX_CALLS)


def sample(call: Callable[[], object], execution: Execution, calls: int, clock: Clock = time.perf_counter) -> float:
    """Mean seconds per call of some calls.

    Latency evaluates each call before the next one begins; throughput makes all calls and evaluates them together.
    """
    start = clock()
    if execution == "latency":
        for _ in range(calls):
            mx.eval(call())
    else:
        mx.eval([call() for _ in range(calls)])
    return (clock() - start) / calls


class Pace:
    """Whether there is time for one more round."""

    def __init__(self, *, rounds: int, seconds: float | None, started: float, clock: Clock = time.perf_counter) -> None:
        """Begins with the rounds.

        Args:
            rounds: Most rounds.
            seconds: From `started` on, for everything; None for no limit.
            started: When this group's work began, by the clock.
            clock: For tests.
        """
        self._rounds, self._clock = rounds, clock
        self._deadline = None if seconds is None else started + seconds
        self._begun = clock()

    def allows(self, done: int) -> bool:
        """Whether another round may follow those that are done; the first `MIN_ROUNDS` always may."""
        if done >= self._rounds:
            return False
        if self._deadline is None or done < MIN_ROUNDS:
            return True
        now = self._clock()
        return now + (now - self._begun) / done <= self._deadline
