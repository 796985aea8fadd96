import numpy as np
import pytest

from eval.rows import Cell
from eval.statistics.suspicion import FLAG, constant_relative_spread, round_relative_spread, spread_flags
from tests.eval.rows_factory import speed_row


def spreads(count, seed=0):
    rng = np.random.default_rng(seed)
    samples = rng.lognormal(0, 0.05, (count, 20))
    return list(samples.std(axis=1, ddof=1) / samples.mean(axis=1))


def row(length, samples):
    cell = Cell(suite="s", group=f"L={length}", builder="op", variant="mha", level="op", mode="forward", length=length)
    return speed_row(cell, samples)


def test_the_published_spreads_are_flagged():
    published = [0.05] * 45

    assert constant_relative_spread(published)
    assert round_relative_spread(published)


@pytest.mark.parametrize("seed", range(20))
def test_measured_spreads_are_not_flagged(seed):
    assert not constant_relative_spread(spreads(4, seed))
    assert not round_relative_spread(spreads(4, seed))


def test_round_percentages_are_flagged_though_they_differ():
    rounded = [0.05, 0.025, 0.03, 0.045, 0.05]

    assert round_relative_spread(rounded)
    assert not constant_relative_spread(rounded)


def test_rounding_in_a_table_is_allowed_for():
    table_spreads = [0.05 / 1.04, 0.07 / 1.42, 0.09 / 1.72, 0.22 / 4.38]

    assert not constant_relative_spread(table_spreads)
    assert constant_relative_spread(table_spreads, agreement=0.1)


@pytest.mark.parametrize("few", [[], [0.05] * 3, [0.0] * 9])
def test_few_rows_and_rows_without_spread_show_nothing(few):
    assert not constant_relative_spread(few)
    assert not round_relative_spread(few)


def test_made_up_rows_are_flagged_by_identity_and_measured_ones_are_not():
    # Two samples at m(1 - s) and m(1 + s) have a standard deviation of sqrt(2) s m.
    share = 0.05 / np.sqrt(2)
    made_up = [row(length, [length * (1 - share), length * (1 + share)]) for length in (1, 2, 3, 5, 8)]
    measured = [
        row(length, list(length * np.random.default_rng(length).lognormal(0, 0.05, 20))) for length in (1, 2, 3, 5)
    ]

    assert spread_flags(made_up) == {each.identity: [FLAG] for each in made_up}
    assert spread_flags(measured) == {}
    assert spread_flags([row(1, [1.0])]) == {}
