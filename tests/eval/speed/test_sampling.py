"""Warm-up ends when times are stable, and a sample is long enough for the clock."""

from collections.abc import Callable, Iterator

import pytest

from eval.speed import sampling
from eval.speed.protocol import MeasureOptions
from eval.speed.sampling import MAX_CALLS, MIN_THROUGHPUT_CALLS, Warmth, calls_per_sample, sample, warm_up


class _Script:
    """A clock that a call moves by scripted seconds."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self._seconds, self._now, self.calls = seconds, 0.0, 0

    def clock(self) -> float:
        return self._now

    def call(self) -> None:
        self.calls += 1
        self._now += next(self._seconds)


def _constant() -> Iterator[float]:
    while True:
        yield 0.01


def _falling() -> Iterator[float]:
    seconds = 0.1
    while True:
        yield seconds
        seconds *= 0.8


def _slow_and_falling() -> Iterator[float]:
    seconds = 100.0
    while True:
        yield seconds
        seconds *= 0.8


def _settling() -> Iterator[float]:
    yield from (0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02)
    while True:
        yield 0.01


@pytest.mark.parametrize(("seconds", "calls"), [(_constant, 10), (_falling, 30), (_slow_and_falling, 10)])
def test_warm_up_is_ten_calls_to_thirty_fewer_if_they_are_slow(
    seconds: Callable[[], Iterator[float]], calls: int
) -> None:
    script = _Script(seconds())
    warmth = warm_up(script.call, MeasureOptions(), before=lambda: None, clock=script.clock)
    assert warmth.calls == script.calls == calls


def test_warm_up_ends_when_five_calls_are_as_fast_as_the_five_before() -> None:
    script = _Script(_settling())
    warmth = warm_up(script.call, MeasureOptions(), before=lambda: None, clock=script.clock)
    # The tenth call is the first fast one; three of five are fast from the twelfth on, and of the five before at 17.
    assert warmth.calls == 17
    assert warmth.seconds == pytest.approx(0.01)


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
    assert calls_per_sample(Warmth(calls=10, seconds=seconds), execution, 0.002) == calls


@pytest.mark.parametrize(("execution", "evaluations"), [("latency", 3), ("throughput", 1)])
def test_latency_evaluates_every_call_and_throughput_all_at_once(
    execution: str, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _Script(_constant())
    evaluated: list[object] = []
    monkeypatch.setattr(sampling.mx, "eval", evaluated.append)
    assert sample(script.call, execution, 3, script.clock) == pytest.approx(0.01)
    assert (len(evaluated), script.calls) == (evaluations, 3)
