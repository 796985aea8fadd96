"""A mean's standard error is that of rows, not of tokens."""

import numpy as np
import pytest

from eval.quality import clustered_mean


def rows(count: int, seed: int = 3, *, empty: float = 0.0, each: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Sums and weights of rows of unequal length, whose tokens share the row's own level, 2 on average.

    Of these rows a share is without weight, `empty`, and all add `each` on average to their sum, whatever their weight.
    """
    generator = np.random.default_rng(seed)
    weights = generator.integers(3, 40, count) * (generator.random(count) >= empty)
    own = generator.normal(each, each / 2, count) if each else 0.0
    return (2 + generator.normal(size=count)) * weights + own, weights.astype(float)


def test_with_one_token_a_row_it_is_the_usual_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=57)
    mean = clustered_mean(values, np.ones(57))
    assert mean.value == pytest.approx(values.mean())
    assert mean.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(57))


def test_repeated_tokens_and_empty_rows_change_nothing() -> None:
    sums, weights = rows(31)
    once, often = clustered_mean(sums, weights), clustered_mean(9 * sums, 9 * weights)
    assert often.value == pytest.approx(once.value)
    assert often.standard_error == pytest.approx(once.standard_error)
    assert clustered_mean(np.append(sums, [0, 0]), np.append(weights, [0, 0])) == once


@pytest.mark.parametrize(("empty", "each"), [(0.0, 0.0), (0.3, 6.0)], ids=["weights", "rows without weight"])
def test_intervals_of_two_standard_errors_hold_the_truth_as_often_as_they_should(empty, each) -> None:
    truth = 2 + each / ((1 - empty) * 21)
    means = [clustered_mean(*rows(90, seed, empty=empty, each=each)) for seed in range(800)]
    held = np.mean([abs(mean.value - truth) < 1.96 * mean.standard_error for mean in means])
    assert 0.92 < held < 0.975


@pytest.mark.parametrize(
    ("sums", "weights", "value", "error"),
    [
        ([6, 0], [3, 0], 2, None),
        ([0, 0, 0], [0, 0, 0], None, None),
        ([3, 5], [2, 0], 4, 5),
        ([3, 5], [0, 0], None, None),
    ],
    ids=["one row", "no row", "a row of weight 0 counts with its sum", "no weight"],
)
def test_a_mean_of_too_little_says_so(sums, weights, value, error) -> None:
    mean = clustered_mean(np.array(sums, dtype=float), np.array(weights, dtype=float))
    assert (mean.value, mean.standard_error) == (value, error)
