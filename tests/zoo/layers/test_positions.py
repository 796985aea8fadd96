"""Rotary positions whose frequencies a scaling changes."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.layers.positions import rotary

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16},
    "yarn": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}
X_BNLH = mx.array(np.random.default_rng(3).standard_normal((3, 2, 5, 12)), dtype=mx.float32)


def made(name: str, *, traditional: bool = False):
    return rotary(12, 1000.0, traditional=traditional, scaling=SCALINGS[name], max_seq_len=17)


@pytest.mark.parametrize("name", SCALINGS)
def test_rows_of_different_histories_turn_as_each_by_itself(name):
    turn, offsets = made(name), [0, 14, 40]
    alone = [turn(X_BNLH[row : row + 1], offset=offset) for row, offset in enumerate(offsets)]
    together = turn(X_BNLH, offset=mx.array(offsets, dtype=mx.int32))
    assert mx.allclose(together, mx.concatenate(alone), atol=tolerance(mx.float32))


@pytest.mark.parametrize("name", SCALINGS)
def test_adjacent_pairs_turn_as_the_halves_do(name):
    halves = made(name)(X_BNLH, offset=30)
    adjacent = mx.stack([X_BNLH[..., :6], X_BNLH[..., 6:]], axis=-1).flatten(-2)
    turned = made(name, traditional=True)(adjacent, offset=30)
    assert mx.allclose(mx.concatenate([turned[..., 0::2], turned[..., 1::2]], -1), halves, atol=tolerance(mx.float32))


def test_a_dynamic_scaling_changes_nothing_within_the_trained_length():
    plain = rotary(12, 1000.0, traditional=False, scaling=None, max_seq_len=17)
    within, beyond = (abs(made("dynamic")(X_BNLH, offset=at) - plain(X_BNLH, offset=at)).max() for at in (12, 13))
    assert within < tolerance(mx.float32) < beyond / 100


@pytest.mark.parametrize("name", ["llama3", "yarn"])
def test_fast_turns_stay_and_slow_ones_are_divided(name):
    long = {**SCALINGS[name], "original_max_position_embeddings": 64}
    plain, slower = (
        rotary(12, 1000.0, traditional=False, scaling={**long, **change}, max_seq_len=17)
        for change in ({"factor": 1.0}, {})
    )
    unit = mx.zeros((1, 1, 1, 12))
    unit[..., :6] = 1

    def angles(turn, at):
        turned = turn(unit, offset=at)
        return mx.arctan2(turned[..., 6:], turned[..., :6]).flatten()

    factor = SCALINGS[name]["factor"]
    assert abs(angles(slower, 1)[0] - angles(plain, 1)[0]) < tolerance(mx.float32)
    assert abs(angles(slower, 1)[-1] * factor - angles(plain, 1)[-1]) < tolerance(mx.float32)
