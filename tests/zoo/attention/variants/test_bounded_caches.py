"""Mechanisms with bounded caches: whatever their sizes, what the cache drops is what no later query sees."""

import mlx.core as mx
import pytest

from tests.tolerances import tolerance
from tests.zoo.attention.cases import Case, hidden_states
from zoo.attention import Attention, mechanism
from zoo.ops.masks import MaskSpec

SIZES = [
    ("sliding_window", {"window_size": 1}),
    ("sliding_window", {"window_size": 6}),
    ("sinks", {"window_size": 1, "num_sinks": 1}),
    ("sinks", {"window_size": 6, "num_sinks": 0}),
    ("sinks", {"window_size": 6, "num_sinks": 7}),
    ("block_sparse", {"block_size": 1, "num_global_tokens": 1, "num_previous_blocks": 0}),
    ("block_sparse", {"block_size": 6, "num_global_tokens": 0, "num_previous_blocks": 0}),
    ("block_sparse", {"block_size": 6, "num_global_tokens": 1, "num_previous_blocks": 1}),
    ("block_sparse", {"block_size": 4, "num_global_tokens": 9, "num_previous_blocks": 2}),
]


def _layer(name: str, sizes: dict[str, int]) -> Attention:
    declared = mechanism(name)
    case = Case(name, next(iter(declared.implementations)), declared.config(**sizes))
    return case.layer(causal=True, positions="rotary", num_kv_heads=2)


@pytest.mark.parametrize(("name", "sizes"), SIZES)
@pytest.mark.parametrize("cuts", [[1] * 43, [17] + [1] * 26, [3, 1, 1, 19, 1, 1, 1, 16], [1, 42]], ids=str)
def test_decoding_past_the_bound_equals_the_full_forward(name: str, sizes: dict[str, int], cuts: list[int]) -> None:
    layer, x_BLD = _layer(name, sizes), hidden_states(0, 2, 43)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    cache, outputs, offset = layer.make_cache(), [], 0
    for length in cuts:
        mask = MaskSpec(causal=True, offset=offset)
        outputs.append(layer(x_BLD[:, offset : offset + length], mask=mask, cache=cache))
        offset += length
    assert mx.abs(mx.concatenate(outputs, axis=1) - whole).max().item() <= tolerance(mx.float32)


# mlx-lm's cache needs room for one token besides those it keeps.
LARGER = [(name, sizes) for name, sizes in SIZES if 1 not in (sizes.get("window_size"), sizes.get("block_size"))]


@pytest.mark.parametrize(("name", "sizes"), LARGER)
def test_a_cache_one_token_smaller_would_be_seen(name: str, sizes: dict[str, int]) -> None:
    layer, x_BLD = _layer(name, sizes), hidden_states(0, 1, 43)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    cache, outputs = layer.make_cache(), []
    cache.max_size -= 1
    for offset in range(43):
        outputs.append(layer(x_BLD[:, offset : offset + 1], mask=MaskSpec(causal=True, offset=offset), cache=cache))
    assert mx.abs(mx.concatenate(outputs, axis=1) - whole).max().item() > 100 * tolerance(mx.float32)
