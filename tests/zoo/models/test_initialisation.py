"""Initial weights: their spread, and what they depend on."""

import math

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tests.zoo.models import cases


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_weights_have_the_spread_of_their_role(family: str) -> None:
    sizes = {"hidden_size": 96, "intermediate_size": 192, "vocab_size": 211, "num_layers": 5}
    model = cases.model(family, **sizes, init_std=0.03, dropout=0.1)
    residual = 0.03 if family == "bert" else 0.03 / math.sqrt(2 * 5)
    for name, array in tree_flatten(model.parameters()):
        if "norm" in name or name.endswith("bias"):
            assert mx.all(array == (1 if name.endswith("weight") else 0)).item(), name
        elif array.size > 2000:
            expected = residual if "o_proj" in name or "down_proj" in name else 0.03
            # A standard deviation measured on n values is off by about 1 / sqrt(2 n).
            assert mx.std(array).item() == pytest.approx(expected, rel=5 / math.sqrt(2 * array.size)), name
            assert abs(mx.mean(array).item()) < 5 * expected / math.sqrt(array.size), name


def test_no_two_weights_are_equal() -> None:
    matrices = [array for array in dict(tree_flatten(cases.model("llama").parameters())).values() if array.ndim == 2]
    first = [round(array[0, 0].item(), 9) for array in matrices]
    assert len(set(first)) == len(matrices)


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_models_that_differ_in_attention_start_from_equal_weights(family: str) -> None:
    plain = dict(tree_flatten(cases.model(family, positions="learned").parameters()))
    shared_heads = {**cases.MHA, "num_kv_heads": 1}
    # Without the position embedding, fewer numbers are drawn while the layers are made.
    for attention, positions in ((cases.HYBRID, "learned"), (shared_heads, "learned"), (cases.WINDOW, "alibi")):
        other = dict(tree_flatten(cases.model(family, attention=attention, positions=positions).parameters()))
        equal = [name for name in plain if name in other and plain[name].shape == other[name].shape]
        assert len(equal) >= len(plain) - 8
        assert all(mx.array_equal(plain[name], other[name]).item() for name in equal)


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (cases.model("gpt", seed=seed).embed_tokens.weight for seed in (0, 0, 1))
    assert mx.array_equal(first, again).item()
    assert not mx.array_equal(first, other).item()
