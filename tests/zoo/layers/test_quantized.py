"""Quantized layers that go through BLAS compute what MLX's own do, and take their place on a CPU alone."""

import copy

import mlx.core as mx
import mlx.nn as nn
import pytest

from tests.tolerances import tolerance
from zoo.layers.quantized import suit_to_backend
from zoo.models import build_model, model_config_from_mapping

SCHEMES = [
    {"group_size": 32, "bits": 4, "mode": "affine"},
    {"group_size": 64, "bits": 8, "mode": "affine"},
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
]


class Two(nn.Module):
    def __init__(self, scheme, bias):
        super().__init__()
        self.inner = [nn.Linear(64, 33, bias=bias), nn.Linear(64, 5)]
        self.embedding = nn.Embedding(37, 64)
        nn.quantize(self, class_predicate=lambda path, _: scheme if "1" not in path else False)
        self.freeze()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: f"{scheme['mode']}{scheme['bits']}")
@pytest.mark.parametrize("bias", [False, True])
def test_they_compute_what_mlx_does(scheme, bias):
    model = Two(scheme, bias)
    mx.random.seed(3)
    inputs = [mx.random.normal(shape) for shape in ((64,), (1, 64), (3, 64), (2, 7, 64))]
    tokens = mx.array([[3, 36, 0]])

    def results():
        return (
            [model.inner[0](x) for x in inputs]
            + [model.embedding.as_linear(x) for x in inputs]
            + [model.embedding(tokens)]
        )

    def gradient(x):
        return mx.grad(lambda x: (model.inner[0](x) ** 2).sum() + (model.embedding.as_linear(x) ** 3).sum())(x)

    before, slope = results(), gradient(inputs[3])
    known = dict(model.inner[0])
    suit_to_backend(model)
    layers = [model.inner[0], model.embedding]
    assert [type(each).__name__ for each in layers] == ["CpuQuantizedLinear", "CpuQuantizedEmbedding"]
    assert [isinstance(layers[0], nn.QuantizedLinear), isinstance(layers[1], nn.QuantizedEmbedding)] == [True, True]
    assert type(model.inner[1]) is nn.Linear
    assert dict(model.inner[0]) == known
    assert model.trainable_parameters() == Two(scheme, bias).trainable_parameters()
    # Sums of products of several units.
    for found, expected in zip(results(), before, strict=True):
        assert found.dtype == expected.dtype
        assert mx.allclose(found, expected, atol=10 * tolerance(mx.float32), rtol=1e-5).item()
    assert mx.allclose(gradient(inputs[3]), slope, atol=1e-3, rtol=1e-4).item()


def test_elsewhere_mlxs_own_stay(monkeypatch):
    model = Two(SCHEMES[0], False)
    monkeypatch.setattr("zoo.layers.quantized.backend", lambda: "metal")
    suit_to_backend(model)
    assert type(model.inner[0]).__name__ == "QuantizedLinear"


def test_a_quantized_model_has_as_many_parameters_as_before():
    config = {
        "family": "llama",
        "num_layers": 1,
        "hidden_size": 64,
        "num_heads": 2,
        "num_kv_heads": 1,
        "vocab_size": 37,
    }
    model = build_model(
        model_config_from_mapping({**config, "max_seq_len": 8, "attention": {"name": "a", "mechanism": "softmax"}})
    )
    count = model.num_parameters()
    for scheme in SCHEMES:
        quantized = copy.deepcopy(model)
        nn.quantize(quantized, **scheme)
        assert quantized.num_parameters() == count


@pytest.mark.parametrize("compiled", [False, True])
def test_written_out_weights_of_all_layers_never_exist_at_once(compiled):
    width, depth = 512, 24
    model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(depth)])
    nn.quantize(model, group_size=64, bits=4)
    suit_to_backend(model)
    model.freeze()
    x_BD = mx.ones((8, width))
    mx.eval(model.parameters(), x_BD)
    step = mx.value_and_grad(lambda x: model(x).sum())
    step = mx.compile(step) if compiled else step
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(step(x_BD))
    # MLX allocates for some operations ahead.
    assert mx.get_peak_memory() - before < depth * width * width * mx.float32.size / 2
