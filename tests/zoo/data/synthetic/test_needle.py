"""Needle in a haystack."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.data.synthetic.task import MARK

TASK = TASKS["needle"]


@pytest.mark.parametrize("length", TASK.lengths)
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_passkey_lies_at_its_depth_and_nowhere_else(length, depth):
    (batch,) = TASK.test_batches({"length": length, "depth": depth}, batch_size=40, num_batches=1)
    size = TASK.passkey_tokens
    for tokens, targets, weights in zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, strict=True):
        needle, question = np.flatnonzero(tokens == MARK)
        passkey = tokens[needle + 1 : needle + 1 + size]
        last = question - 1 - size
        assert needle == np.floor(depth * last + 0.5)
        assert question == length - size
        assert targets[weights == 1].tolist() == passkey.tolist()
        assert len(set(passkey)) == size
        hay = np.delete(tokens[:question], slice(needle, needle + 1 + size))
        assert not set(hay) & set(passkey)


def test_without_a_depth_the_needle_lies_anywhere():
    (batch,) = TASK.test_batches({"length": 26}, batch_size=500, num_batches=1)
    needles = np.argmax(batch.inputs_BL == MARK, axis=1)
    assert set(needles) == set(range(20))
