"""Block-sparse attention as published: its two averaged softmaxes, and the identity that they collapse to."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import Op, gradient_error, qkv, value_error, variant
from zoo.ops import softmax
from zoo.ops.block_sparse_legacy import reference, same_block
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern
from zoo.ops.softmax import ScoreSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)


def _legacy(mask: MaskSpec, **parameters: Any) -> tuple[Op, Any]:
    return variant("block_sparse_legacy", "blocked", mask, **parameters)


@pytest.mark.parametrize("block_size", [1, 6, 16])
@pytest.mark.parametrize("num_global_tokens", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_length_equals_the_reference(block_size: int, num_global_tokens: int, batch_size: int) -> None:
    op, spec = _legacy(MaskSpec(causal=False), block_size=block_size, num_global_tokens=num_global_tokens)
    for length in (1, 3, 5, 6, 7, 31):
        arrays = qkv(length, B=batch_size, K=2, L=length)
        assert value_error(op, arrays, spec, reference) <= VALUE
        assert gradient_error(op, arrays, spec, reference) <= GRADIENT


def test_padding_equals_the_reference() -> None:
    mask = MaskSpec(causal=False, lengths_B=mx.array([31, 2, 14]))
    op, spec = _legacy(mask, block_size=6, num_global_tokens=3)
    arrays = qkv(0, B=3, L=31)
    assert value_error(op, arrays, spec, reference) <= VALUE
    assert gradient_error(op, arrays, spec, reference) <= GRADIENT


def test_one_global_token_gives_half_the_local_attention_and_half_the_first_value() -> None:
    op, spec = _legacy(MaskSpec(causal=False), block_size=6, num_global_tokens=1)
    q, k, v = qkv(1, L=31)
    local_spec = ScoreSpec(scale=spec.scale, mask=spec.mask, pattern=BoundPattern(same_block, 6))
    expected = 0.5 * softmax.reference(q, k, v, local_spec) + 0.5 * v[:, :, :1].astype(np.float64)
    assert np.abs(np.array(op(*map(mx.array, (q, k, v)), spec)) - expected).max() <= VALUE


def test_it_is_another_function_than_one_joint_softmax() -> None:
    op, spec = _legacy(MaskSpec(causal=False), block_size=6, num_global_tokens=1)
    _, joint = variant(
        "block_sparse", "blocked", MaskSpec(causal=False), block_size=6, num_global_tokens=1, num_previous_blocks=0
    )
    assert value_error(lambda q, k, v, _: op(q, k, v, spec), qkv(2, L=31), joint) > 1000 * VALUE


def test_it_leaks_the_future() -> None:
    op, spec = _legacy(MaskSpec(causal=False), block_size=6)
    q, k, v = (mx.array(array) for array in qkv(3, L=31))
    changed = mx.where((mx.arange(31) == 5)[:, None], -v, v)
    difference = mx.abs(op(q, k, v, spec) - op(q, k, changed, spec)).max(axis=(0, 1, 3))
    assert (difference[:6] > VALUE).all().item()
