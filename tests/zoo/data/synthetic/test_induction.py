"""Induction."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.data.synthetic.task import MARK

TASK = TASKS["induction"]


@pytest.mark.parametrize("length", TASK.lengths)
def test_the_follower_of_the_first_mark_follows_every_mark_the_last_at_the_end(length):
    (batch,) = TASK.test_batches({"length": length}, batch_size=40, num_batches=1)
    for tokens, targets, weights in zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, strict=True):
        marks = np.flatnonzero(tokens == MARK)
        assert len(marks) == 1 + TASK.num_repeats
        assert marks[-1] == length - 1
        assert np.flatnonzero(weights).tolist() == marks[1:].tolist()
        assert set(targets[marks]) == {tokens[marks[0] + 1]}


def test_first_marks_and_followers_vary():
    (batch,) = TASK.test_batches({"length": 29}, batch_size=300, num_batches=1)
    firsts = np.argmax(batch.inputs_BL == MARK, axis=1)
    assert len(set(firsts)) > 6
    assert set(batch.targets_BL[np.arange(300), firsts]) == set(range(2, TASK.vocab_size))
