"""Multi-query associative recall."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.data.synthetic import MultiQueryRecall

TASK = TASKS["mqar"]


def rows_of(task, count=60):
    (batch,) = task.test_batches({}, batch_size=count, num_batches=1)
    return batch


@pytest.mark.parametrize("num_pairs", TASK.num_pairs)
def test_each_key_is_asked_for_once_and_answered_by_its_value(num_pairs):
    batch = rows_of(TASK.at({"num_pairs": num_pairs}))
    for tokens, targets, weights in zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, strict=True):
        pairs = dict(zip(tokens[0 : 2 * num_pairs : 2], tokens[1 : 2 * num_pairs : 2], strict=True))
        asked = np.flatnonzero(weights)
        assert len(pairs) == num_pairs
        assert asked.min() >= 2 * num_pairs
        assert sorted(tokens[asked]) == sorted(pairs)
        assert [pairs[key] for key in tokens[asked]] == targets[asked].tolist()


def test_keys_and_values_are_different_tokens_and_all_occur():
    batch = rows_of(TASK.at({"num_pairs": 5, "length": 27}), 400)
    assert set(batch.inputs_BL[:, 0:10:2].reshape(-1)) == set(range(1, 12))
    assert set(batch.inputs_BL[:, 1:10:2].reshape(-1)) == set(range(12, 23))


def test_rows_take_the_counts_of_pairs_in_turn_at_each_length():
    batch = rows_of(TASK)
    answers = batch.weights_BL.sum(axis=1)
    for index in range(len(TASK.lengths)):
        assert (answers[index :: len(TASK.lengths)] == np.resize(TASK.num_pairs, 30)).all()


def first_gaps(power: float) -> np.ndarray:
    """Slots between the pairs and each query, one pair a row."""
    task = MultiQueryRecall(length=127, num_pairs=(1,), power=power)
    batch = rows_of(task, 4000)
    return (np.argmax(batch.weights_BL, axis=1) - 2) // 2


@pytest.mark.parametrize("power", [1.0, 0.01])
def test_gaps_follow_their_law(power):
    counts = np.bincount(first_gaps(power), minlength=63)
    expected = np.arange(1, 64) ** (power - 1)
    expected *= 4000 / expected.sum()
    assert counts.sum() == 4000
    # Five standard deviations of a Poisson count, and one for rounding.
    assert (abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()


def test_no_key_is_asked_for_earlier_than_the_others():
    task = MultiQueryRecall(length=63, num_pairs=(4,))
    batch = rows_of(task, 3000)
    first_asked = batch.inputs_BL[np.arange(3000), np.argmax(batch.weights_BL, axis=1)]
    places = np.argmax(batch.inputs_BL[:, 0:8:2] == first_asked[:, None], axis=1)
    assert abs(np.bincount(places) - 750).max() < 6 * 24
