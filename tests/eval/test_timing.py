"""Interleaved timing: every candidate in every round, ratios paired by round."""

import pytest

from eval.timing import Samples, interleave


def test_every_candidate_runs_once_a_round_in_changing_order() -> None:
    calls: list[str] = []
    samples = interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=20, warmup=2)
    assert calls[:6] == list("abcabc")
    rounds = [calls[6 + 3 * index : 9 + 3 * index] for index in range(20)]
    assert all(sorted(each) == list("abc") for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert all(len(values) == 20 for values in samples.seconds.values())


def test_the_ratio_is_the_median_of_paired_rounds() -> None:
    # The machine is ten times slower in the second round; paired ratios do not see it.
    samples = Samples(seconds={"slow": (2.0, 20.0, 2.2), "fast": (1.0, 10.0, 1.0)})
    assert samples.ratio("slow", "fast") == pytest.approx(2.0)
    assert samples.median_seconds("slow") == pytest.approx(2.2)
