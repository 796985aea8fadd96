"""The contract between layer and reference: a layer is its projections around what the reference says."""

import dataclasses
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.attention.cases import CASES, DIRECTED, NUM_HEADS, Case, directed_id, hidden_states
from zoo.attention import Attention, Mixer, mechanism
from zoo.attention.mechanism import Mechanism
from zoo.layers.positions import alibi_slopes
from zoo.ops.masks import MaskSpec

Op = Callable[..., mx.array]
LENGTH = 19


def _layer(case: Case, *, causal: bool, positions: str) -> Attention:
    changes = {"num_kv_heads": 2} if case.capabilities.grouped_heads else {}
    layer = case.layer(causal=causal, positions=positions, qkv_bias=True, output_bias=True, **changes)
    mx.random.seed(11)
    # Values at which a layer begins, such as zeros, can hide what it does with them.
    for name, value in layer.items():
        if isinstance(value, mx.array) and not name.startswith("_"):
            layer[name] = value + mx.random.uniform(-0.3, 0.3, value.shape)
    return layer


def _composed(case: Case, layer: Attention, x_BLD: mx.array, mask: MaskSpec, positions: str, op: Op) -> mx.array:
    """The layer's own projections around an op that is not its own."""
    inputs = layer.op_inputs(x_BLD, mask=mask)
    told = f"{type(layer).__name__}.op_inputs and .output must tell what of the layer goes into the op"
    assert inputs is not None, told
    spec = case.spec(mask, alibi_slopes(NUM_HEADS) if positions == "alibi" else None)
    return layer.output(x_BLD, op(*inputs, spec))


def value_error(case: Case, *, causal: bool, positions: str, mask: MaskSpec | None = None) -> float:
    """Largest difference of the layer to its projections around the float64 reference."""
    layer, x_BLD = _layer(case, causal=causal, positions=positions), hidden_states(21, 3, LENGTH)
    mask = mask or MaskSpec(causal=causal)

    def reference(*arrays: Any) -> mx.array:
        *inputs, spec = arrays
        # Nothing of what the layer gives may be left over, or be of another shape than the op's own samples.
        K = inputs[1].shape[1] if case.capabilities.grouped_heads else NUM_HEADS
        sizes = (3, LENGTH, NUM_HEADS, K, inputs[0].shape[-1])
        samples = case.samples(np.random.default_rng(0), *sizes)
        assert [array.shape for array in inputs] == [array.shape for array in samples]
        exact = [np.array(array.astype(mx.float32)) for array in inputs]
        return mx.array(case.mechanism.reference(*exact, spec).astype(np.float32))

    expected = _composed(case, layer, x_BLD, mask, positions, reference)
    difference = np.abs(np.array(layer(x_BLD, mask=mask) - expected))
    if mask.lengths_B is not None:
        difference *= (np.arange(LENGTH) < np.array(mask.lengths_B)[:, None])[..., None]
    return float(difference.max())


def gradient_error(case: Case, *, causal: bool) -> float:
    """Largest difference of the layer's gradients to those through the op, which others hold to the reference."""
    layer, x_BLD = _layer(case, causal=causal, positions="rotary"), hidden_states(22, 2, LENGTH)
    cotangent_BLD, mask = hidden_states(23, 2, LENGTH), MaskSpec(causal=causal)
    weights, op = layer.parameters(), case.op()

    def through_layer(x_BLD: mx.array, parameters: dict[str, Any]) -> mx.array:
        layer.update(parameters)
        return (layer(x_BLD, mask=mask) * cotangent_BLD).sum()

    def through_op(x_BLD: mx.array, parameters: dict[str, Any]) -> mx.array:
        layer.update(parameters)
        return (_composed(case, layer, x_BLD, mask, "rotary", op) * cotangent_BLD).sum()

    actual, expected = (mx.grad(each, argnums=(0, 1))(x_BLD, weights) for each in (through_layer, through_op))
    layer.update(weights)
    pairs = zip(tree_flatten(actual), tree_flatten(expected), strict=True)
    scale = max(1.0, *(mx.abs(value).max().item() for _, value in tree_flatten(expected)))
    return max(mx.abs(mine - theirs).max().item() for (_, mine), (_, theirs) in pairs) / scale


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_a_layer_is_its_projections_around_the_reference(case: Case, causal: bool, positions: str) -> None:
    if positions == "alibi" and not case.capabilities.alibi:
        return
    assert value_error(case, causal=causal, positions=positions) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_so_it_is_with_padding_and_documents(case: Case, causal: bool) -> None:
    if case.capabilities.padding:
        mask = MaskSpec(causal=causal, lengths_B=mx.array([LENGTH, 1, 8]))
        assert value_error(case, causal=causal, positions="rotary", mask=mask) <= tolerance(mx.float32)
    if case.capabilities.segments:
        segments = mx.array([[0] * 7 + [1] * 12, [0] * 19, [0, 1, 2] + [3] * 9 + [4] * 7])
        mask = MaskSpec(causal=causal, segments_BL=segments)
        assert value_error(case, causal=causal, positions="rotary", mask=mask) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_its_gradients_are_those_through_the_op(case: Case, causal: bool) -> None:
    assert gradient_error(case, causal=causal) <= tolerance(mx.float32, gradient=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sample_inputs_are_a_function_of_their_generator(case: Case) -> None:
    sizes = (2, 5, NUM_HEADS, NUM_HEADS, 10)
    first, second = (case.samples(np.random.default_rng(3), *sizes) for _ in range(2))
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))


@dataclasses.dataclass(frozen=True)
class _BuiltOtherwise(Case):
    """A case whose mixer is made with other parameters than its op, as a slip in `mixer` would."""

    slip: tuple[str, Any] = ("", None)

    @property
    def mechanism(self) -> Mechanism:
        declared, (field, value) = mechanism(self.mechanism_name), self.slip

        def mixer(parameters: Any, *rest: Any) -> Mixer:
            return declared.mixer(dataclasses.replace(parameters, **{field: value}), *rest)

        return dataclasses.replace(declared, mixer=mixer)


SLIPS = [("sliding_window", "window_size", 6), ("dilated", "window_size", 4), ("linear", "feature_map", "relu")]


@pytest.mark.parametrize(("name", "field", "value"), SLIPS)
def test_a_layer_with_other_parameters_than_its_op_is_seen(name: str, field: str, value: Any) -> None:
    right = next(case for case in CASES if case.mechanism_name == name)
    wrong = _BuiltOtherwise(name, right.implementation, right.parameters, slip=(field, value))
    assert value_error(right, causal=True, positions="rotary") <= tolerance(mx.float32)
    assert value_error(wrong, causal=True, positions="rotary") > 100 * tolerance(mx.float32)
    assert gradient_error(wrong, causal=True) > 100 * tolerance(mx.float32, gradient=True)


def test_a_layer_that_stops_a_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.mechanism_name == "softmax")
    mixer = type(case.layer(causal=True).mixer)
    mix = mixer.__call__

    def stopped(self: Mixer, q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
        return mix(self, mx.stop_gradient(q), k, v, **rest)

    monkeypatch.setattr(mixer, "__call__", stopped)
    assert value_error(case, causal=True, positions="none") <= tolerance(mx.float32)
    assert gradient_error(case, causal=True) > 100 * tolerance(mx.float32, gradient=True)
