"""`implementation: auto` computes what the others compute, by the one that the shared chooser names."""

import logging

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.attention.cases import hidden_states, parameter_sets
from tests.zoo.checkpoints.saved import small_model
from zoo.attention import build_attention, mechanism, mechanism_names
from zoo.attention.catalog import variant
from zoo.attention.choosing import ChoosingMixer, _say_what_computes
from zoo.attention.interface import LayerShape
from zoo.attention.mechanism import AUTO
from zoo.attention.variant import VariantConfig
from zoo.ops.masks import MaskSpec

AUTOMATIC = [name for name in mechanism_names() if AUTO in mechanism(name).implementations]


def layer(name, implementation):
    _, parameters = parameter_sets(mechanism(name))[0]
    shape = LayerShape(
        hidden_size=32, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=64, causal=True, positions="rotary"
    )
    mx.random.seed(3)
    chosen = VariantConfig(name="any", mechanism=name, implementation=implementation, parameters=parameters)
    return build_attention(chosen, shape, 0)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_it_equals_every_implementation_whole_and_token_by_token(name):
    x_BLD, mask = hidden_states(1, 2, 40)[..., :32], MaskSpec(causal=True)
    auto = layer(name, AUTO)
    expected = np.array(auto(x_BLD, mask=mask))
    for other in mechanism(name).implementations_here():
        np.testing.assert_allclose(np.array(layer(name, other)(x_BLD, mask=mask)), expected, atol=2e-5)
    cache = auto.make_cache()
    steps = [
        auto(x_BLD[:, i : i + 1], mask=MaskSpec(causal=True, offset=i), cache=cache) for i in range(x_BLD.shape[1])
    ]
    np.testing.assert_allclose(np.array(mx.concatenate(steps, axis=1)), expected, atol=2e-5)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_its_op_has_the_gradients_of_the_reference_mechanism(name):
    declared = mechanism(name)
    _, parameters = parameter_sets(declared)[0]
    arrays = declared.inputs(parameters, np.random.default_rng(0), 2, 37, 4, 2, 8)
    spec = declared.make_spec(parameters, MaskSpec(causal=True), 8, None)
    inputs = [mx.array(array.astype(np.float32)) for array in arrays]

    def gradients(implementation):
        op = declared.implementations[implementation](parameters)
        return mx.grad(lambda *each: mx.sin(op(*each, spec)).sum(), argnums=tuple(range(len(inputs))))(*inputs)

    plain = "masked" if "masked" in declared.implementations else next(iter(declared.implementations))
    for found, expected in zip(gradients(AUTO), gradients(plain), strict=True):
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=3e-5)


@pytest.mark.parametrize(("training", "level"), [(True, logging.INFO), (False, logging.DEBUG)])
def test_what_computes_is_said_once(training, level, caplog):
    _say_what_computes.cache_clear()
    auto = layer("sliding_window", AUTO)
    auto.train(training)
    assert isinstance(auto.mixer, ChoosingMixer)
    # Scripts that other tests ran set a level of their own above this logger.
    with caplog.at_level(level, logger=_say_what_computes.__wrapped__.__module__):
        for _ in range(2):
            auto(hidden_states(1, 1, 8)[..., :32], mask=MaskSpec(causal=True))
    (said,) = [record.getMessage() for record in caplog.records if "sliding_window" in record.getMessage()]
    assert "is computed by its implementation" in said


def test_a_variant_tells_what_its_layers_take():
    hybrid = variant("hybrid_swa")
    call = {"phase": "training", "rows": 8, "length": 16, "causal": True}
    for each in hybrid.resolved(**call).variants():
        assert each.implementation in mechanism(each.mechanism).implementations_here()
    fixed = variant("mha_manual")
    assert fixed.resolved(**call) == fixed
    model = small_model("hybrid_swa")
    called = model.config.implementations(phase="training", batch_size=2, length=16)
    assert set(called.split("+")) == {each.implementation for each in hybrid.resolved(**call).variants()}


def test_it_is_none_of_those_to_choose_among():
    assert all(AUTO not in mechanism(name).implementations_here() for name in mechanism_names())
