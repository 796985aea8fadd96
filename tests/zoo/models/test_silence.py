"""A silenced attention adds nothing to the stream, and leaves the model as it was."""

import mlx.core as mx

from tests.zoo.training.tiny import tiny_model
from zoo.models.silence import silenced


def test_silence_is_what_no_output_of_the_attention_is():
    model = tiny_model(init_std=0.5).eval()
    tokens = mx.array([[5, 7, 11, 13, 17]])
    before = model(tokens)
    half = silenced(model, [1])
    assert mx.array_equal(model(tokens), before)
    model.layers[1].self_attn.o_proj.weight = mx.zeros_like(model.layers[1].self_attn.o_proj.weight)
    if "bias" in model.layers[1].self_attn.o_proj:
        model.layers[1].self_attn.o_proj.bias = mx.zeros_like(model.layers[1].self_attn.o_proj.bias)
    assert mx.allclose(half(tokens), model(tokens), atol=1e-6)
    assert not mx.allclose(half(tokens), before, atol=1e-3)
