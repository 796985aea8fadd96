"""GPT against its definition, and frozen."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.models import cases, reference


def test_logits_equal_the_definition() -> None:
    model = cases.varied(cases.model("gpt", num_layers=3))
    tokens_BL = cases.tokens(2, 19)
    expected = reference.gpt_logits(
        reference.weights_of(model), np.array(tokens_BL), num_layers=3, num_heads=cases.NUM_HEADS, eps=1e-5
    )
    # Logits of order 10: the tolerance is for values of order 1.
    assert np.abs(np.array(model(tokens_BL)) - expected).max() <= tolerance(mx.float32) * np.abs(expected).max()


def test_parameters_are_named_like_llamas() -> None:
    model = cases.model("gpt")
    assert set(model.parameters()) == {"embed_tokens", "embed_positions", "layers", "norm"}
    assert set(model.layers[0].parameters()) == {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
    assert set(model.layers[0].mlp.parameters()) == {"up_proj", "down_proj"}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert set(model.layers[0].self_attn[name]) == {"weight", "bias"}


def test_default_feed_forward_width_is_four_times_the_model() -> None:
    model = cases.model("gpt", intermediate_size=None)
    assert model.layers[0].mlp.up_proj.weight.shape == (4 * cases.HIDDEN_SIZE, cases.HIDDEN_SIZE)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "relu", "relu2"])
def test_every_activation_trains(activation: str) -> None:
    model = cases.model("gpt", activation=activation)
    tokens_BL = cases.tokens(1, 7)
    gradient = mx.grad(lambda weight: _loss_with(model, weight, tokens_BL))(model.layers[0].mlp.up_proj.weight)
    assert mx.all(mx.isfinite(gradient)).item()
    assert mx.abs(gradient).max().item() > 0


def _loss_with(model, weight: mx.array, tokens_BL: mx.array) -> mx.array:
    model.layers[0].mlp.up_proj.weight = weight
    return mx.logsumexp(model(tokens_BL), axis=-1).mean()
