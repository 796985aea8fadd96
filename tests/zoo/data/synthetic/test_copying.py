"""Copying."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.data.synthetic.task import MARK

TASK = TASKS["copying"]


@pytest.mark.parametrize("length", TASK.lengths)
def test_the_string_after_the_second_mark_is_the_one_after_the_first(length):
    (batch,) = TASK.test_batches({"length": length}, batch_size=40, num_batches=1)
    size = (length - 1) // 2
    for tokens, targets, weights in zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, strict=True):
        first, second = np.flatnonzero(tokens == MARK)
        string = tokens[first + 1 : second]
        assert len(set(string)) == len(string) == size
        assert targets[weights == 1].tolist() == string.tolist()
        assert np.flatnonzero(weights).tolist() == list(range(second, second + size))
