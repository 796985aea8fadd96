"""Warm-up ends when times are stable, a sample is long enough for the clock, and rounds fit the time."""

import itertools
from collections.abc import Iterator

import pytest

from eval.bench import MIN_ROUNDS, MeasureOptions, clock
from eval.bench.clock import MAX_CALLS, MIN_THROUGHPUT_CALLS, calls_per_sample, rounds_in_time, sample, warm_up


class _Script:
    """A clock that a call moves by scripted seconds."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self._seconds, self._now, self.calls = seconds, 0.0, 0

    def clock(self) -> float:
        return self._now

    def call(self) -> None:
        self.calls += 1
        self._now += next(self._seconds)


def _falling(seconds: float) -> Iterator[float]:
    return (seconds * 0.8**call for call in itertools.count())


# From the tenth call on it is fast; three of five are so from the twelfth on, and of the five before at 17.
SETTLING = itertools.chain((0.010, 0.009, 0.008, 0.007, 0.006, 0.005, 0.004, 0.003, 0.002), itertools.repeat(0.001))


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [(itertools.repeat(0.001), 10), (_falling(0.01), 30), (_falling(100.0), 3), (SETTLING, 17)],
    ids=["constant", "falling", "slow", "settling"],
)
def test_warm_up_ends_when_five_calls_are_as_fast_as_the_five_before(seconds: Iterator[float], calls: int) -> None:
    script = _Script(seconds)
    announced: list[int] = []
    before = lambda: announced.append(script.calls)  # noqa: E731
    assert warm_up(script.call, MeasureOptions(), before=before, clock=script.clock)[0] == script.calls == calls
    assert announced == list(range(calls))


@pytest.mark.parametrize(
    ("seconds", "execution", "calls"),
    [
        (0.5, "latency", 1),
        (0.5, "throughput", MIN_THROUGHPUT_CALLS),
        (0.0003, "latency", 7),
        (0.0003, "throughput", 7),
        (1e-12, "latency", MAX_CALLS),
    ],
)
def test_a_sample_lasts_two_milliseconds(seconds: float, execution: str, calls: int) -> None:
    assert calls_per_sample(seconds, execution, 0.002) == calls


@pytest.mark.parametrize(("execution", "evaluations"), [("latency", 3), ("throughput", 1)])
def test_latency_evaluates_every_call_and_throughput_all_at_once(
    execution: str, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _Script(itertools.repeat(0.01))
    evaluated: list[object] = []
    monkeypatch.setattr(clock.mx, "eval", evaluated.append)
    assert sample(script.call, execution, 3, script.clock) == pytest.approx(0.01)
    assert (len(evaluated), script.calls) == (evaluations, 3)


@pytest.mark.parametrize(("until", "rounds"), [(12.0, 12), (-3.0, MIN_ROUNDS), (997.0, 20), (float("inf"), 20)])
def test_rounds_fit_the_time_but_are_at_least_five(until: float, rounds: int) -> None:
    script = _Script(itertools.repeat(1.0))
    for _ in rounds_in_time(20, until, script.clock):
        script.call()
    assert script.calls == rounds
