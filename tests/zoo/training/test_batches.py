import numpy as np
import pytest

from tests.zoo.training.tiny import LENGTH, ROWS, TinyLoader
from zoo.data.loader import Batch
from zoo.training.batches import num_tokens, to_arrays


def batch_with(weights: np.ndarray) -> Batch:
    batch = TinyLoader(len(weights)).batch(0)
    return Batch(
        inputs_BL=batch.inputs_BL,
        targets_BL=batch.targets_BL,
        weights_BL=weights.astype(np.float32),
        segments_BL=np.arange(len(weights) * LENGTH, dtype=np.int32).reshape(weights.shape) // 5,
        lengths_B=np.arange(3, 3 + len(weights), dtype=np.int32),
        identity="test",
    )


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_together_hold_every_weighted_target_once(parts):
    weights = np.random.default_rng(1).random((ROWS, LENGTH)) < 0.2
    batch = batch_with(weights)
    found = []
    for arrays in to_arrays(batch, parts=parts):
        kept = np.array(arrays["weights_P"]) > 0
        found += np.array(arrays["targets_P"])[kept].tolist()
        positions = np.array(arrays["picks_P"])[kept]
        rows = np.array(arrays["inputs_BL"]).reshape(-1)
        assert (np.diff(positions) > 0).all()
        assert len(rows) == ROWS * LENGTH // parts
    assert found == batch.targets_BL[weights].tolist()


def test_all_parts_have_one_shape():
    weights = np.zeros((ROWS, LENGTH))
    weights[0, :] = 1
    weights[-1, 0] = 1
    shapes = [
        {name: array.shape for name, array in arrays.items()} for arrays in to_arrays(batch_with(weights), parts=3)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_fully_predicted_rows_are_not_gathered():
    (arrays,) = to_arrays(batch_with(np.ones((ROWS, LENGTH))))
    assert "picks_P" not in arrays
    assert arrays["targets_P"].shape == (ROWS * LENGTH,)


def test_segments_and_lengths_follow_their_rows():
    batch = batch_with(np.ones((ROWS, LENGTH)))
    first, second = to_arrays(batch, parts=2)
    for name, whole in (("segments_BL", batch.segments_BL), ("lengths_B", batch.lengths_B)):
        np.testing.assert_array_equal(np.concatenate([np.array(first[name]), np.array(second[name])]), whole)


def test_padding_is_no_token():
    batch = batch_with(np.ones((ROWS, LENGTH)))
    assert num_tokens(batch) == sum(range(3, 3 + ROWS))
    assert num_tokens(TinyLoader().batch(0)) == ROWS * LENGTH
