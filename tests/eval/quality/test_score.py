"""A mean's standard error is that of rows, not of tokens."""

import numpy as np
import pytest

from eval.quality.score import clustered_mean


def rows(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Sums and weights of rows of unequal length, whose tokens share the row's own level; the true mean is 2."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(3, 40, count).astype(float)
    levels = 2 + generator.normal(size=count)
    return levels * weights, weights


def test_the_mean_is_weighted_by_token() -> None:
    assert clustered_mean(np.array([1.0, 9.0]), np.array([1.0, 3.0])).value == 2.5


def test_with_one_token_a_row_it_is_the_usual_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=57)
    mean = clustered_mean(values, np.ones(57))
    assert mean.value == pytest.approx(values.mean())
    assert mean.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(57))


def test_repeating_each_token_of_a_row_makes_nothing_surer() -> None:
    sums, weights = rows(31)
    once, often = clustered_mean(sums, weights), clustered_mean(9 * sums, 9 * weights)
    assert often.value == pytest.approx(once.value)
    assert often.standard_error == pytest.approx(once.standard_error)


def test_the_standard_error_shrinks_with_the_root_of_the_rows() -> None:
    errors = [clustered_mean(*rows(count)).standard_error for count in (200, 3200)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_intervals_of_two_standard_errors_hold_the_truth_as_often_as_they_should() -> None:
    means = [clustered_mean(*rows(60, seed)) for seed in range(800)]
    held = np.mean([abs(mean.value - 2) < 1.96 * mean.standard_error for mean in means])
    assert 0.92 < held < 0.97


def test_one_row_is_not_sure_of_anything_and_none_has_no_mean() -> None:
    one = clustered_mean(np.array([6.0, 0.0]), np.array([3.0, 0.0]))
    assert (one.value, one.standard_error) == (2, None)
    none = clustered_mean(np.zeros(4), np.zeros(4))
    assert (none.value, none.standard_error) == (None, None)


def test_a_row_of_weight_0_counts_with_its_sum() -> None:
    mean = clustered_mean(np.array([3.0, 5.0]), np.array([2.0, 0.0]))
    assert (mean.value, mean.standard_error) == (4, 5)
    nothing = clustered_mean(np.array([3.0, 5.0]), np.zeros(2))
    assert (nothing.value, nothing.standard_error) == (None, None)


def test_rows_that_add_nothing_change_nothing() -> None:
    sums, weights = rows(31)
    padded = clustered_mean(np.append(sums, [0, 0]), np.append(weights, [0, 0]))
    assert padded == clustered_mean(sums, weights)


def test_intervals_hold_the_truth_where_some_rows_have_no_weight() -> None:
    generator = np.random.default_rng(7)
    held = []
    for _ in range(800):
        weights = generator.integers(3, 40, 90) * (generator.random(90) < 0.7)
        # Every row adds about 6 beside its weights' own.
        sums = 2.0 * weights + generator.normal(6, 3, 90)
        mean = clustered_mean(sums, weights.astype(float))
        assert mean.value is not None
        assert mean.standard_error is not None
        held.append(abs(mean.value - (2 + 6 / (0.7 * 21))) < 1.96 * mean.standard_error)
    assert 0.92 < np.mean(held) < 0.975
