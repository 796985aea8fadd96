"""Numbers of every kind are, to the bit, those that the format defines."""

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.checkpoints.gguf.written import GGML, plain
from zoo.checkpoints.gguf.blocks import KINDS, decoded

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "Q4_0": 18, "Q4_1": 20, "Q8_0": 34}


def bytes_of(kind, shape, rng):
    """Bytes in which every combination of bits occurs, with scales that are finite."""
    count = int(np.prod(shape)) // KINDS[GGML[kind]].num_values
    content = rng.integers(0, 256, (count, SIZES[kind]), np.uint8)
    num_scales = {"F32": 0, "Q4_1": 2}.get(kind, 1)
    if kind.startswith("Q"):
        content[:, : 2 * num_scales] = rng.normal(size=(count, num_scales)).astype("<f2").view(np.uint8)
    else:
        numbers = rng.normal(size=count).astype("<f4")
        dtypes = {"F32": numbers, "F16": numbers.astype("<f2"), "BF16": (numbers.view("<u4") >> 16).astype("<u2")}
        content = dtypes[kind].view(np.uint8)
    return content.tobytes()


@pytest.mark.parametrize("kind", GGML)
def test_numbers_are_the_formats(kind):
    shape = (5, 96)
    content = bytes_of(kind, shape, np.random.default_rng(3))
    known = KINDS[GGML[kind]]
    assert known.name == kind
    arrays = decoded(known, shape, content)
    if known.bits is None:
        assert arrays.keys() == {"weight"}
        assert arrays["weight"].shape == shape
        found = arrays["weight"].astype(mx.float32)
    else:
        assert arrays["scales"].shape == arrays["biases"].shape == (*shape[:-1], shape[-1] // 32)
        found = mx.dequantize(arrays["weight"], arrays["scales"], arrays["biases"], group_size=32, bits=known.bits)
    assert np.array_equal(np.array(found), plain(content, kind, shape))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_quantized_numbers_stay_small(kind):
    shape = (8, 64)
    content = bytes_of(kind, shape, np.random.default_rng(4))
    num_bytes = sum(array.nbytes for array in decoded(KINDS[GGML[kind]], shape, content).values())
    # Scales and biases take float32 where the file has float16.
    assert num_bytes <= len(content) + 6 * 16
