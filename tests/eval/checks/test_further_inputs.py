"""Mechanisms whose op takes more than q, k and v are checked and built at every level, whatever the shape of it."""

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from eval.checks import attention as attention_checks
from eval.rows import Cell
from eval.workloads.attention import attention_setting
from eval.workloads.registry import BUILDERS
from tests.eval.workloads import settings
from zoo.attention import registry
from zoo.attention.mechanism import Mechanism
from zoo.attention.pattern import PatternMixer, pattern_mechanism
from zoo.ops import softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.scores import ScoreHook

# One factor for each output channel of a head, learned, in the shapes that a mechanism may choose to keep it in.
SHAPES = {
    "per_head": lambda N, H: (N, H),
    "broadcast": lambda N, H: (N, 1, 1),
    "fixed": lambda N, H: (3,),
    "scalar": lambda N, H: (),
    "mixed": lambda N, H: (N * H,),
}


def _factors(gain: Any, N: int, H: int) -> Any:
    if gain.size == N * H:
        return gain.reshape(N, 1, H)
    return gain.reshape(N, 1, 1) if gain.size == N else gain.mean()


def _scaled(shape: str, wrong: str) -> Mechanism:
    full = registry.mechanism("softmax")

    def op(q: mx.array, k: mx.array, v: mx.array, gain: mx.array, spec: Any) -> mx.array:
        y = softmax.manual(q, k, v, spec)
        if wrong == "gradient":
            gain = mx.stop_gradient(gain)
        if wrong == "value":
            gain = gain * 1.01
        return y * _factors(gain, q.shape[1], q.shape[3])

    def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, gain: np.ndarray, spec: Any) -> np.ndarray:
        return softmax.reference(q, k, v, spec) * _factors(gain, q.shape[1], q.shape[3])

    class Scaled(PatternMixer):
        def learned(self) -> dict[str, mx.array]:
            return {"gain": mx.ones(SHAPES[shape](self.shape.num_heads, self.shape.head_dim))}

        def __call__(self, *inputs: mx.array, **rest: Any) -> mx.array:
            q, k, v, gain = inputs
            factors = _factors(gain * (1.01 if wrong == "layer" else 1.0), q.shape[1], q.shape[3])
            return super().__call__(q, k, v, **rest) * factors

    def mixer(parameters: Any, implementation: str, layer_shape: Any) -> Scaled:
        capable = full.capabilities(parameters, "manual")
        spec = full.make_spec(parameters, MaskSpec(causal=layer_shape.causal), layer_shape.head_dim, None)
        return Scaled(capable, layer_shape, spec=spec, op=softmax.manual, cached=softmax.manual)

    def samples(generator: np.random.Generator, B: int, L: int, N: int, K: int, H: int) -> tuple[np.ndarray, ...]:
        return (*full.sample_inputs(generator, B, L, N, K, H), generator.uniform(0.5, 1.5, SHAPES[shape](N, H)))

    implementations = {"plain": lambda _: op}
    changed = {"name": "scaled", "implementations": implementations, "mixer": mixer, "sample_inputs": samples}
    return dataclasses.replace(full, reference=reference, **changed)


def _cell(monkeypatch: pytest.MonkeyPatch, level: str, shape: str, *, wrong: str = "", **changes: Any) -> Cell:
    every = {**registry.mechanisms(), "scaled": _scaled(shape, wrong)}
    monkeypatch.setattr(registry, "mechanisms", lambda: every)
    return settings.cell(level, "scaled", attention={"name": "scaled", "mechanism": "scaled"}, **changes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("level", "wrong", "mode"),
    [(level, "", mode) for level in ("op", "layer") for mode in ("forward", "forward_backward")]
    + [
        (level, wrong, "forward_backward") for level, wrong in (("op", "value"), ("op", "gradient"), ("layer", "layer"))
    ],
)
def test_ops_and_layers_with_a_fourth_learned_input_pass_and_a_wrong_use_of_it_does_not(
    monkeypatch: pytest.MonkeyPatch, level: str, wrong: str, mode: str, shape: str
) -> None:
    workload = BUILDERS[level](_cell(monkeypatch, level, shape, wrong=wrong, mode=mode))
    found = workload.check()
    assert found.passed == (not wrong), found.checks
    assert level == "op" or "around the reference" in found.checks
    assert workload.analytic_bytes > 0


@pytest.mark.parametrize("mode", ["forward", "step", "decode"])
def test_a_model_with_one_passes(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    settings.shrink_models(monkeypatch, vocab_size=41)
    found = BUILDERS["model"](_cell(monkeypatch, "model", "per_head", mode=mode, model="gpt_tiny")).check()
    assert found.passed, found.checks


@pytest.mark.parametrize("shape", ["per_head", "mixed"])
def test_long_texts_are_compared_as_far_as_the_reference_goes(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    monkeypatch.setattr(attention_checks, "MAX_REFERENCE_LENGTH", 36)
    setting = attention_setting(_cell(monkeypatch, "op", shape, mode="forward_backward"))
    findings = attention_checks.check_op(setting)
    assert all(finding.passed for finding in findings)
    # Where rows and heads cannot be told apart, the reference holds the scores of all of them.
    together = 1 if shape == "per_head" else settings.NUM_HEADS * settings.BATCH_SIZE
    assert f"{int(36 / together**0.5)}" in findings[0].check


def _steeper(scores: mx.array, query_index: mx.array, key_index: mx.array, config: Any) -> mx.array:
    """ALiBi-like slopes, which depend on how many heads there are."""
    heads = mx.arange(1, scores.shape[1] + 1)[:, None, None]
    return scores - mx.abs(query_index - key_index) * (heads / (4 * scores.shape[1]))


def _without_hook(_: Any) -> Any:
    return lambda q, k, v, spec: softmax.fused(q, k, v, dataclasses.replace(spec, hook=None))


@pytest.mark.parametrize("limit", [4096, 30])
@pytest.mark.parametrize(("implementation", "right"), [("masked", True), ("tiled", True), ("without_hook", False)])
@pytest.mark.parametrize("level", ["op", "layer"])
def test_heads_that_differ_by_their_number_are_compared_together(
    monkeypatch: pytest.MonkeyPatch, level: str, implementation: str, right: bool, limit: int
) -> None:
    # The wrong one stands before the two that come for free.
    slopes = pattern_mechanism(
        name="slopes", allowed=None, hook=ScoreHook(score=_steeper), implementations={"without_hook": _without_hook}
    )
    every = {**registry.mechanisms(), "slopes": slopes}
    monkeypatch.setattr(registry, "mechanisms", lambda: every)
    monkeypatch.setattr(attention_checks, "MAX_REFERENCE_LENGTH", limit)
    attention = {"name": "slopes", "mechanism": "slopes", "implementation": implementation, "num_kv_heads": 2}
    found = BUILDERS[level](settings.cell(level, "slopes", attention=attention, mode="forward_backward")).check()
    assert found.passed == right, found.checks
