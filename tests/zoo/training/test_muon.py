"""Muon of several matrices at once makes the steps that MLX's makes one by one."""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx import optimizers
from mlx.utils import tree_flatten

from zoo.training.updates import Muon, update_clipped

# Tall, wide and square ones, of some shapes several, in an order that mixes them; a single row and a single column.
SHAPES = [(8, 20), (20, 8), (8, 8), (7, 7), (8, 20), (1, 9), (9, 1), (8, 8), (20, 8)]


class Matrices(nn.Module):
    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(0)
        self.inner = [{"weight": mx.array(generator.standard_normal(shape).astype(np.float32))} for shape in SHAPES]


def gradients(step):
    generator = np.random.default_rng((1, step))
    return {"inner": [{"weight": mx.array(generator.standard_normal(shape).astype(np.float32))} for shape in SHAPES]}


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [True, False])
def test_steps_equal_those_of_mlx(nesterov, decay, compiled):
    rates = {"learning_rate": optimizers.linear_schedule(1e-2, 1e-3, 5), "momentum": 0.9, "weight_decay": decay}
    found = []
    for kind in (Muon, optimizers.Muon):
        model, optimizer = Matrices(), kind(**rates, nesterov=nesterov)
        optimizer.init(model.trainable_parameters())
        update: Callable[..., Any] = functools.partial(optimizer.update, model)
        if compiled:
            state = [model.state, optimizer.state]
            update = mx.compile(update, inputs=state, outputs=state)
        for step in range(3):
            update(gradients(step))
        mx.eval(model.state, optimizer.state)
        found.append((dict(tree_flatten(model.parameters())), dict(tree_flatten(optimizer.state))))
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_allclose(np.array(array), np.array(theirs[name]), atol=2e-5, err_msg=name)


def test_a_clipped_step_is_one_of_scaled_gradients():
    ours, theirs = Matrices(), Matrices()
    first, second = Muon(1e-2), optimizers.Muon(1e-2)
    for model, optimizer in ((ours, first), (theirs, second)):
        optimizer.init(model.trainable_parameters())
        norm = update_clipped(optimizer, model, gradients(0), 0.5)
        assert norm.item() > 0.5
    for name, array in tree_flatten(ours.parameters()):
        np.testing.assert_allclose(np.array(array), np.array(dict(tree_flatten(theirs.parameters()))[name]), atol=2e-5)


def test_a_gradient_that_is_nothing_moves_nothing():
    model, optimizer = Matrices(), Muon(1e-2, weight_decay=0.0)
    before = dict(tree_flatten(model.parameters()))
    zeros = {"inner": [{"weight": mx.zeros(shape)} for shape in SHAPES]}
    optimizer.update(model, zeros)
    for name, array in tree_flatten(model.parameters()):
        np.testing.assert_array_equal(np.array(array), np.array(before[name]))
