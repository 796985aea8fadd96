"""Losses of fresh models, frozen: a change that moves one changes what every earlier result meant.

A failure prints the losses of now; after an intended change copy them here, and say in the commit why they moved.
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest

from tests.zoo.models import cases

# (loss of the fresh model, loss after three steps of SGD) of seed 11.
GOLDEN = {
    "gpt": (4.3015251, 3.5462217),
    "gpt-window": (4.1775680, 2.6667066),
    "bert": (4.4936900, 3.7529886),
    "llama": (4.3638606, 2.6021829),
    "llama-hybrid": (4.2919402, 2.7217228),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_losses_are_what_they_were(name: str) -> None:
    family, _, attention = name.partition("-")
    variant = {"": cases.MHA, "window": cases.WINDOW, "hybrid": cases.HYBRID}[attention]
    # A larger spread than the default, so that the untrained attention matters to the loss.
    model = cases.model(family, seed=11, attention=variant, num_layers=3, init_std=0.2)
    tokens_BL = cases.tokens(3, 23, seed=12)
    # Not Adam, whose first steps blow rounding differences between machines up to the size of the learning rate.
    optimizer = optim.SGD(learning_rate=0.3)
    value_and_grad = nn.value_and_grad(model, _loss)
    losses = []
    for _ in range(4):
        loss, gradients = value_and_grad(model, tokens_BL)
        optimizer.update(model, gradients)
        mx.eval(model.state, optimizer.state)
        losses.append(loss.item())
    assert (losses[0], losses[-1]) == pytest.approx(GOLDEN[name], rel=1e-4), (
        f"{name}: now {losses[0]:.7f}, {losses[-1]:.7f}"
    )


def _loss(model: nn.Module, tokens_BL: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(tokens_BL[:, :-1]), tokens_BL[:, 1:], reduction="mean")
