"""How a call is timed: its warm-up, samples long enough for the clock, and rounds for as long as there is time."""

import math
import statistics
from collections.abc import Callable, Iterator

import mlx.core as mx

from eval.bench import MIN_ROUNDS, MeasureOptions
from eval.rows.cell import Execution

Clock = Callable[[], float]

# Warm means: the median of so many calls is within this share of the median of as many before them.
WINDOW, TOLERANCE = 5, 0.05
# By then caches and the clock frequency have settled, and what has not does not for want of calls.
PATIENCE_SECONDS, FEWEST_LONG_CALLS = 0.5, 3
# Fewer calls would not be throughput; more would fill the memory with results.
MIN_THROUGHPUT_CALLS, MAX_CALLS = 4, 1000


def timed(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call, evaluated before the clock stops."""
    start = clock()
    mx.eval(call())
    return clock() - start


def warm_up(
    call: Callable[[], object], options: MeasureOptions, *, before: Callable[[], None], clock: Clock
) -> tuple[int, float]:
    """Calls until the times are stable, within the options' bounds; `before` is called ahead of every call.

    Calls that take long are settled by their time already: of them `FEWEST_LONG_CALLS` are enough.

    Returns:
        How many calls there were, and the median seconds of the last ones.
    """
    seconds: list[float] = []
    while len(seconds) < options.max_warmup:
        before()
        seconds.append(timed(call, clock))
        is_long = len(seconds) >= FEWEST_LONG_CALLS and sum(seconds) > PATIENCE_SECONDS
        if is_long or (len(seconds) >= options.min_warmup and _is_stable(seconds)):
            break
    return len(seconds), statistics.median(seconds[-WINDOW:])


def _is_stable(seconds: list[float]) -> bool:
    if len(seconds) < 2 * WINDOW:
        return False
    before, now = statistics.median(seconds[-2 * WINDOW : -WINDOW]), statistics.median(seconds[-WINDOW:])
    return abs(now - before) <= TOLERANCE * before


def calls_per_sample(call_seconds: float, execution: Execution, sample_seconds: float) -> int:
    """How many calls make one sample."""
    wanted = math.ceil(sample_seconds / max(call_seconds, 1e-9))
    least = MIN_THROUGHPUT_CALLS if execution == "throughput" else 1
    return min(max(wanted, least), MAX_CALLS)


def sample(call: Callable[[], object], execution: Execution, calls: int, clock: Clock) -> float:
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


def rounds_in_time(most: int, until: float, clock: Clock) -> Iterator[int]:
    """Numbers the rounds, of which there are at most so many and at least `MIN_ROUNDS`, while one more ends in time."""
    begun = clock()
    for done in range(most):
        if done >= MIN_ROUNDS:
            now = clock()
            if now + (now - begun) / done > until:
                return
        yield done
