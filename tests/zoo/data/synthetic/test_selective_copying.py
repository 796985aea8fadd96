"""Selective copying."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.data.synthetic.task import BLANK, MARK

TASK = TASKS["selective_copying"]


@pytest.mark.parametrize("length", TASK.lengths)
def test_what_is_not_blank_comes_again_in_its_order(length):
    (batch,) = TASK.test_batches({"length": length}, batch_size=40, num_batches=1)
    for tokens, targets, weights in zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, strict=True):
        (mark,) = np.flatnonzero(tokens == MARK)
        symbols = tokens[:mark][tokens[:mark] != BLANK]
        assert len(set(symbols)) == len(symbols) == TASK.num_symbols
        assert targets[weights == 1].tolist() == symbols.tolist()
        assert np.flatnonzero(weights).tolist() == list(range(mark, length))


def test_symbols_stand_anywhere_before_the_mark():
    (batch,) = TASK.test_batches({"length": 25}, batch_size=300, num_batches=1)
    assert ((batch.inputs_BL[:, :21] != BLANK).mean(axis=0) > 0.1).all()
