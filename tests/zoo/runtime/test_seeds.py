import random

import mlx.core as mx
import numpy as np
import pytest

from zoo.config import UserError
from zoo.runtime.seeds import seed_everything


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), mx.random.uniform().item()


def test_one_seed_repeats_every_generator() -> None:
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(one != other for one, other in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match="seed must be at least 0 and below 4294967296"):
        seed_everything(seed)
