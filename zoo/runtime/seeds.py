"""Seeds: one number for every generator a run may draw from."""

import contextlib
import random
from collections.abc import Iterator
from typing import cast

import mlx.core as mx
import numpy as np

from zoo.config import require

# NumPy's legacy generator takes 32 bits, the narrowest of the three.
LIMIT = 2**32


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and MLX's global generators.

    Args:
        seed: 0 … 2**32 - 1.

    Raises:
        UserError: If it is outside that range.
    """
    require(0 <= seed < LIMIT, "seed", f"be at least 0 and below {LIMIT}", seed)
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)


@contextlib.contextmanager
def keeping_randomness() -> Iterator[None]:
    """Leaves MLX's generator as it was, whatever is drawn inside."""
    key = random_key()
    try:
        yield
    finally:
        set_random_key(*key)


def random_key() -> tuple[int, int]:
    """The state of MLX's generator: two numbers of 32 bits."""
    (key,) = cast(list[mx.array], mx.random.state)
    high, low = cast(list[int], key.tolist())
    return high, low


def set_random_key(high: int, low: int) -> None:
    """Puts MLX's generator where `random_key` found it."""
    # The key cannot be assigned; a seed of 64 bits is that key.
    mx.random.seed((high << 32) | low)
