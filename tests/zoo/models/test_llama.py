"""Llama against mlx-lm's models with the same weights."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama, qwen2, qwen3

from tests.tolerances import tolerance
from tests.zoo.models import cases

SHAPE = {
    "hidden_size": cases.HIDDEN_SIZE,
    "num_hidden_layers": 2,
    "intermediate_size": cases.INTERMEDIATE_SIZE,
    "num_attention_heads": cases.NUM_HEADS,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": cases.VOCAB_SIZE,
    "max_position_embeddings": cases.MAX_SEQ_LEN,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def _with_weights_of(theirs, ours):
    renamed = [
        (name if name.startswith("lm_head") else f"model.{name}", array)
        for name, array in tree_flatten(ours.parameters())
    ]
    theirs.load_weights(renamed, strict=True)
    return theirs


def _assert_equal(ours, theirs) -> None:
    tokens_BL = cases.tokens(3, 23)
    expected = _with_weights_of(theirs, ours)(tokens_BL)
    scale = max(1.0, mx.abs(expected).max().item())
    assert cases.difference(ours(tokens_BL), expected) <= tolerance(mx.float32) * scale
    ours_cache, theirs_cache = ours.make_cache(), theirs.make_cache() if isinstance(theirs, llama.Model) else None
    if theirs_cache is not None:
        for start, stop in ((0, 9), (9, 10), (10, 23)):
            ours_part = ours(tokens_BL[:, start:stop], cache=ours_cache)
            theirs_part = theirs(tokens_BL[:, start:stop], cache=theirs_cache)
            assert cases.difference(ours_part, theirs_part) <= tolerance(mx.float32) * scale


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_logits_equal_mlx_lms_llama(tied: bool, theta: float) -> None:
    ours = cases.varied(cases.model("llama", tie_word_embeddings=tied, rope_theta=theta))
    _assert_equal(
        ours,
        llama.Model(llama.ModelArgs(model_type="llama", **SHAPE, rope_theta=theta, tie_word_embeddings=tied)),
    )


@pytest.mark.parametrize("scaling", [LLAMA3_SCALING, {"rope_type": "linear", "factor": 4.0}], ids=["llama3", "linear"])
def test_scaled_rotary_positions_equal_mlx_lms(scaling: dict) -> None:
    ours = cases.varied(cases.model("llama", rope_scaling=scaling))
    arguments = llama.ModelArgs(model_type="llama", **SHAPE, rope_scaling=scaling, tie_word_embeddings=False)
    _assert_equal(ours, llama.Model(arguments))


def test_biases_everywhere_equal_mlx_lms_llama() -> None:
    ours = cases.varied(cases.model("llama", qkv_bias=True, output_bias=True, mlp_bias=True, rope_traditional=True))
    arguments = llama.ModelArgs(
        model_type="llama",
        **SHAPE,
        attention_bias=True,
        mlp_bias=True,
        rope_traditional=True,
        tie_word_embeddings=False,
    )
    _assert_equal(ours, llama.Model(arguments))


def test_biases_of_q_k_v_alone_equal_mlx_lms_qwen2() -> None:
    ours = cases.varied(cases.model("llama", qkv_bias=True, rope_theta=1e6))
    arguments = qwen2.ModelArgs(model_type="qwen2", **SHAPE, rope_theta=1e6, tie_word_embeddings=False)
    _assert_equal(ours, qwen2.Model(arguments))


def test_normalised_queries_and_keys_equal_mlx_lms_qwen3() -> None:
    # A head_dim that is not hidden_size / num_heads.
    ours = cases.varied(cases.model("llama", qk_norm=True, head_dim=10, tie_word_embeddings=True))
    arguments = qwen3.ModelArgs(model_type="qwen3", **SHAPE, rope_theta=10_000.0, head_dim=10, tie_word_embeddings=True)
    _assert_equal(ours, qwen3.Model(arguments))


def test_default_feed_forward_width_is_eight_thirds_in_whole_64s() -> None:
    assert cases.config("llama", hidden_size=384, intermediate_size=None).resolved_intermediate_size == 1024
    assert cases.config("llama", hidden_size=128, intermediate_size=None).resolved_intermediate_size == 384
