"""What mechanisms do to scores: dense and tiled forms against the float64 reference, learned arrays included."""

import dataclasses
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import gradient_error, peak_bytes, qkv, value_error
from zoo.attention.mechanism import Mechanism
from zoo.attention.pattern import PatternConfig, pattern_mechanism
from zoo.config import UserError
from zoo.layers.positions import alibi_slopes
from zoo.ops import tiled
from zoo.ops.masks import MaskSpec
from zoo.ops.scores import Learned, ScoreHook

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)
N, L = 6, 29


def _slopes(scores: mx.array, query_index: mx.array, key_index: mx.array, config: Any) -> mx.array:
    """Another bias in every head, and nothing learned."""
    heads = mx.arange(1, scores.shape[1] + 1)[:, None, None]
    return scores - mx.abs(query_index - key_index) * (heads / (7 * scores.shape[1]))


def _decay(scores: mx.array, query_index: mx.array, key_index: mx.array, config: Any, learned: Learned) -> mx.array:
    distance = mx.abs(query_index - key_index)
    gain_N11, table_NC = learned["gain"][:, None, None], learned["table"]
    return (
        mx.tanh(scores * gain_N11) * 3
        + table_NC[:, mx.minimum(distance, table_NC.shape[1] - 1)].swapaxes(0, 1)[:, :, 0]
    )


def _talking(scores: mx.array, query_index: mx.array, key_index: mx.array, config: Any, learned: Learned) -> mx.array:
    """Heads mix, as in Shazeer et al., "Talking-Heads Attention"."""
    return (scores.transpose(0, 2, 3, 1) @ learned["mix"]).transpose(0, 3, 1, 2)


def _squared(scores: mx.array, query_index: mx.array, key_index: mx.array, config: Any) -> mx.array:
    """Not a number for keys after the query, which a causal mask hides."""
    return scores - mx.sqrt((query_index - key_index).astype(scores.dtype))


HOOKS = {
    "slopes": ScoreHook(score=_slopes),
    "decay": ScoreHook(score=_decay, learned=lambda _, heads: {"gain": mx.ones(heads), "table": mx.zeros((heads, 5))}),
    "talking": ScoreHook(score=_talking, learned=lambda _, heads: {"mix": mx.eye(heads)}),
    "constant_sink": ScoreHook(sink_logit=lambda _: 0.5),
    "everything": ScoreHook(
        score=_decay,
        sink_logit=lambda _, learned: learned["gain"] * 2 - 1,
        learned=lambda _, heads: {"gain": mx.ones(heads), "table": mx.zeros((heads, 5))},
    ),
}


def _window(query_index: Any, key_index: Any, config: Any) -> Any:
    return abs(query_index - key_index) < 7


def _mechanism(name: str, *, allowed: Callable[..., Any] | None = _window) -> Mechanism:
    return pattern_mechanism(name=name, allowed=allowed, hook=HOOKS[name])


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SMALLEST_TILE", 8)


def _errors(declared: Mechanism, mask: MaskSpec, **changes: Any) -> tuple[list[float], list[float]]:
    """Value and gradient errors of every implementation."""
    parameters = declared.config()
    samples = declared.inputs(parameters, np.random.default_rng(1), 3, L, N, 2, 10)
    arrays = [array.astype(np.float32) for array in samples]
    spec = dataclasses.replace(declared.make_spec(parameters, mask, 10, changes.pop("slopes_N", None)), **changes)
    ops = [declared.implementations[name](parameters) for name in declared.implementations_here()]
    values = [value_error(op, arrays, spec, declared.reference) for op in ops]
    return values, [gradient_error(op, arrays, spec, declared.reference) for op in ops]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", HOOKS)
def test_values_and_gradients_equal_the_reference(name: str, causal: bool) -> None:
    values, gradients = _errors(_mechanism(name), MaskSpec(causal=causal))
    assert max(values) <= VALUE
    assert max(gradients) <= GRADIENT


@pytest.mark.parametrize("name", ["decay", "everything"])
def test_masks_biases_and_histories_equal_the_reference(name: str) -> None:
    segments = mx.array([[0] * 11 + [1] * 18, [0] * 29, [0, 1] + [2] * 20 + [3] * 7])
    for mask, changes in (
        (MaskSpec(causal=True, lengths_B=mx.array([29, 1, 17])), {}),
        (MaskSpec(causal=False, lengths_B=mx.array([0, 29, 17]), segments_BL=segments), {}),
        (MaskSpec(causal=True), {"slopes_N": alibi_slopes(N)}),
        (MaskSpec(causal=True, offset=mx.array([3, 0, 17])), {}),
        (MaskSpec(causal=True, offset=4), {"key_positions": mx.array(np.random.default_rng(0).permutation(L))}),
    ):
        # Without a window, so that every row has a key: what a row without any yields is not defined.
        values, gradients = _errors(_mechanism(name, allowed=None), mask, **changes)
        assert max(values) <= VALUE
        assert max(gradients) <= GRADIENT


def test_the_reference_is_the_sum_of_the_formula() -> None:
    q, k, v = (array.astype(np.float64) for array in qkv(0, B=1, N=2, K=1, L=5, H=3))
    hook = ScoreHook(score=_slopes, sink_logit=lambda _: 0.25)
    declared = pattern_mechanism(name="both", allowed=None, hook=hook)
    y = declared.reference(q, k, v, declared.make_spec(PatternConfig(), MaskSpec(causal=True), 3, None))
    for head, row in np.ndindex(2, 5):
        scores = [
            sum(q[0, head, row] * k[0, 0, key]) * 3**-0.5 - (row - key) * float(np.float32(head + 1) / np.float32(14))
            for key in range(row + 1)
        ]
        total = np.exp(0.25) + sum(np.exp(scores))
        expected = sum(np.exp(score) / total * v[0, 0, key] for key, score in enumerate(scores))
        # 0.25 and the slopes are float32 numbers; the rest is float64.
        assert np.abs(y[0, head, row] - expected).max() < 1e-7


def test_what_a_hook_makes_of_hidden_scores_does_not_matter() -> None:
    declared = pattern_mechanism(name="squared", allowed=None, hook=ScoreHook(score=_squared))
    spec = declared.make_spec(PatternConfig(), MaskSpec(causal=True), 10, None)
    for factory in (declared.implementations[name] for name in declared.implementations_here()):
        assert value_error(factory(PatternConfig()), qkv(1, L=L), spec) <= VALUE


def test_memory_grows_with_the_length_and_not_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SMALLEST_TILE", 128)
    declared = _mechanism("everything", allowed=None)
    spec = declared.make_spec(PatternConfig(), MaskSpec(causal=True), 16, None)
    spec = spec.with_learned(list(spec.hook.initial(2).values()), 2)
    short, long = (peak_bytes(tiled.tiled, spec, N=2, L=length, H=16) for length in (512, 1024))
    assert long < 2.3 * short
    assert long < 2 * 1024 * 1024 * 4 / 2


def test_one_compiled_op_serves_changing_learned_arrays() -> None:
    declared = _mechanism("everything")
    arrays = [mx.array(a.astype(np.float32)) for a in declared.inputs(None, np.random.default_rng(2), 2, 11, N, 3, 10)]
    spec = declared.make_spec(PatternConfig(), MaskSpec(causal=True), 10, None)
    for factory in (declared.implementations[name] for name in declared.implementations_here()):
        op = factory(PatternConfig())
        both = mx.value_and_grad(lambda *inputs, op=op: op(*inputs, spec).square().sum(), argnums=tuple(range(5)))
        compiled = mx.compile(both)
        for change in (0.0, 0.3):
            given = [*arrays[:3], *(array + change for array in arrays[3:])]
            pairs = zip(compiled(*given)[1], both(*given)[1], strict=True)
            assert max(mx.abs(mine - theirs).max().item() for mine, theirs in pairs) <= GRADIENT


@pytest.mark.parametrize(
    "score", [lambda scores, query, key, _: query - key, lambda scores, query, key, _: scores[..., :1]]
)
def test_a_score_of_another_shape_is_refused(score: Callable[..., mx.array]) -> None:
    declared = pattern_mechanism(name="flat", allowed=None, hook=ScoreHook(score=score))
    spec = declared.make_spec(PatternConfig(), MaskSpec(causal=True), 10, None)
    for factory in (declared.implementations[name] for name in declared.implementations_here()):
        with pytest.raises(UserError, match="score must return scores of the shape"):
            factory(PatternConfig())(*map(mx.array, qkv(3, L=9)), spec)
