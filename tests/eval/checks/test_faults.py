"""The gate: every planted mistake is caught at every level, and what is right passes."""

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from eval import checks
from eval.checks import Finding, relative_error, verdict
from eval.checks import layer as layer_checks
from eval.checks import model as model_checks
from eval.checks import op as op_checks
from eval.checks.op import check_op
from eval.rows import Cell
from eval.workloads import arrays_of
from eval.workloads.layer import layer_setting
from eval.workloads.model import model_setting
from eval.workloads.op import OpSetting, op_setting
from eval.workloads.registry import BUILDERS
from tests.eval.checks import faults
from tests.eval.workloads import settings
from zoo.attention.choice import Chooser
from zoo.attention.pattern import PatternMixer
from zoo.attention.projected import ProjectedAttention
from zoo.training.step import TrainStep

VALUES = [*faults.FULL, *faults.WINDOWED]


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.register(monkeypatch)
    settings.shrink_models(monkeypatch, vocab_size=53)


def _cell(level: str, fault: str, **changes: Any) -> Cell:
    return settings.cell(level, fault, attention=faults.mapping(fault), **changes)


@pytest.mark.parametrize("fault", VALUES)
@pytest.mark.parametrize("level", ["op", "layer"])
def test_a_wrong_implementation_does_not_pass(level: str, fault: str) -> None:
    for mode in ("forward", "forward_backward"):
        found = BUILDERS[level](_cell(level, fault, mode=mode)).check()
        assert not found.passed
        assert "values against the float64 reference" in found.checks


@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
@pytest.mark.parametrize("fault", faults.GROUPED)
def test_shared_heads_in_another_order_do_not_pass(fault: str, mode: str) -> None:
    heads = {"num_heads": 4, "num_kv_heads": 2, "mode": mode}
    assert not BUILDERS["op"](_cell("op", fault, **heads)).check().passed
    assert BUILDERS["op"](_cell("op", "right", **heads)).check().passed


@pytest.mark.parametrize("fault", [name for name in VALUES if name not in ("half_precision", "missing_scale")])
def test_mistakes_of_function_are_seen_in_half_precision_too(fault: str) -> None:
    assert not BUILDERS["op"](_cell("op", fault, dtype="bfloat16")).check().passed
    right = "right_window" if fault in faults.WINDOWED else "right"
    assert BUILDERS["op"](_cell("op", right, dtype="bfloat16")).check().passed


@pytest.mark.parametrize("fault", [*VALUES, *faults.GRADIENT])
def test_a_wrong_op_is_seen_inside_a_model(fault: str) -> None:
    asked = _cell("model", fault, model="gpt_tiny", mode="forward_backward", length=13, batch_size=2)
    assert not BUILDERS["model"](asked).check().passed


@pytest.mark.parametrize("fault", faults.GRADIENT)
@pytest.mark.parametrize("level", ["op", "layer"])
def test_a_wrong_gradient_behind_right_values_does_not_pass(level: str, fault: str) -> None:
    assert BUILDERS[level](_cell(level, fault)).check().passed
    found = BUILDERS[level](_cell(level, fault, mode="forward_backward")).check()
    assert not found.passed
    assert "directional derivative" in found.checks


@pytest.mark.parametrize("right", ["right", "right_window"])
@pytest.mark.parametrize("level", ["op", "layer"])
def test_what_is_right_beside_them_passes(level: str, right: str) -> None:
    for num_kv_heads in (1, 2, 4):
        asked = _cell(level, right, mode="forward_backward", num_kv_heads=num_kv_heads)
        found = BUILDERS[level](asked).check()
        assert found.passed, found.checks
        assert 0 < found.max_error <= found.tolerance


def test_untransposed_values_of_shared_heads_are_seen_and_a_single_one_cannot_be_scrambled() -> None:
    assert not BUILDERS["op"](_cell("op", "untransposed_values", num_kv_heads=2)).check().passed
    assert BUILDERS["op"](_cell("op", "untransposed_values", num_kv_heads=1)).check().passed


def test_a_layer_that_scrambles_around_a_right_op_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = PatternMixer.__call__

    def scrambled(self: Any, q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
        return mix(self, q, k, v.swapaxes(1, 2).reshape(v.shape), **rest)

    asked = _cell("layer", "right", causal=False)
    assert BUILDERS["layer"](asked).check().passed
    monkeypatch.setattr(PatternMixer, "__call__", scrambled)
    assert BUILDERS["op"](_cell("op", "right", causal=False)).check().passed
    found = BUILDERS["layer"](asked).check()
    assert not found.passed
    assert "its projections around the reference" in found.checks


@pytest.mark.parametrize(
    ("name", "words"), [("future", "may not"), ("row", "no other row"), ("alone", "neighbours see")]
)
def test_every_law_of_mixing_is_asked(name: str, words: str) -> None:
    setting = layer_setting(_cell("layer", "right"))
    layer, length = setting.layer(), 17

    def right(x_BLD: mx.array) -> mx.array:
        return layer(x_BLD, mask=setting.mask)

    def wrong(x_BLD: mx.array) -> mx.array:
        if name == "alone":
            return mx.tanh(x_BLD)
        other = x_BLD[:, ::-1] if name == "future" else x_BLD[::-1]
        return right(x_BLD) + other

    x_BLD = setting.changed(batch_size=2, length=length).hidden_states()
    may_LS = layer_checks.reach([setting.variant], length, causal=True)
    bound = checks.tolerance(mx.float32)

    def failed(function: Any) -> list[str]:
        findings = layer_checks.check_mixing(
            function, x_BLD, layer_checks._amplified, bound, may_LS=may_LS, direct_LS=may_LS
        )
        return [finding.check for finding in findings if not finding.passed]

    assert failed(right) == []
    assert any(words in check for check in failed(wrong))


def test_a_cache_that_loses_a_token_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _cell("model", "right", model="llama_tiny", mode="decode", length=13, batch_size=2)
    assert BUILDERS["model"](asked).check().passed
    call = ProjectedAttention.__call__

    def forgetful(self: Any, x_BLD: mx.array, *, mask: Any, cache: Any = None) -> mx.array:
        if cache is not None and x_BLD.shape[1] == 1 and not cache.empty():
            cache.trim(1)
        return call(self, x_BLD, mask=mask, cache=cache)

    monkeypatch.setattr(ProjectedAttention, "__call__", forgetful)
    found = BUILDERS["model"](asked).check()
    assert not found.passed
    assert "prefill and decoding equal" in found.checks


@pytest.mark.parametrize("mode", ["forward_backward", "step"])
def test_weights_that_learn_nothing_are_named(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    call = ProjectedAttention.__call__

    def silent(self: Any, x_BLD: mx.array, **rest: Any) -> mx.array:
        return mx.stop_gradient(call(self, x_BLD, **rest))

    monkeypatch.setattr(ProjectedAttention, "__call__", silent)
    asked = _cell("model", "right", model="gpt_tiny", mode=mode, length=13, batch_size=2)
    found = BUILDERS["model"](asked).check()
    assert not found.passed
    assert "every parameter that matters gets a finite gradient, not layers.0." in found.checks
    assert all(f"layers.1.self_attn.{name}_proj.weight" in found.checks for name in "qkvo")
    layer = BUILDERS["layer"](_cell("layer", "right", mode="forward_backward")).check()
    assert not layer.passed
    assert "every parameter gets a finite gradient" in layer.checks


@pytest.mark.parametrize("mode", ["forward", "prefill", "decode"])
def test_the_timed_logits_themselves_are_compared(mode: str) -> None:
    asked = _cell("model", "right", model="gpt_tiny", mode=mode, length=13, batch_size=2)
    setting = model_setting(asked)
    model = setting.model()
    logits = model(setting.changed(length=asked.length + (mode == "decode")).tokens())
    check = model_checks.check_forward if mode == "forward" else model_checks.check_decoding
    shown = logits if mode == "forward" else logits[:, -1:]
    assert verdict(check(setting, model, shown)).passed
    wrong = verdict(check(setting, model, shown[::-1]))
    assert not wrong.passed
    assert "timed" in wrong.checks


@pytest.mark.parametrize("level", ["layer", "model"])
def test_gradients_that_go_wrong_in_compilation_alone_do_not_pass(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Values right and gradients 1 % too small, only in the timed call."""
    compile_ = mx.compile

    def shrinking(function: Any, **rest: Any) -> Any:
        compiled = compile_(function, **rest)

        def call(*arguments: Any) -> Any:
            value, gradients = compiled(*arguments)
            return value, tree_map(lambda gradient: 0.99 * gradient, gradients)

        return call

    asked = _cell(level, "right", model="gpt_tiny", mode="forward_backward", length=13, batch_size=2, compiled=True)
    assert BUILDERS[level](asked).check().passed
    # Ops are compiled by the check itself; they stay as they are.
    monkeypatch.setattr(OpSetting, "function", OpSetting.eager_function)
    monkeypatch.setattr(mx, "compile", shrinking)
    found = BUILDERS[level](asked).check()
    assert not found.passed
    assert found.checks.startswith("timed gradients")


@pytest.mark.parametrize(
    ("fault", "words"),
    [("still", "update is AdamW's"), ("factor", "timed gradient norm"), ("state", "timed gradients")],
)
def test_a_step_that_does_not_update_as_it_should_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    asked = _cell("model", "right", model="gpt_tiny", mode="step", length=13, batch_size=2)
    assert fault != "still" or BUILDERS["model"](asked).check().passed
    update = TrainStep._update_by_gradients

    def wrong(self: TrainStep, gradients: Any) -> mx.array:
        if fault == "state":
            return mx.sqrt(sum(each.square().sum() for each in arrays_of(gradients)))
        before = self.model.parameters()
        norm = update(self, tree_map(lambda each: 1.1 * each, gradients) if fault == "factor" else gradients)
        if fault == "still":
            self.model.update(before)
        return norm

    monkeypatch.setattr(TrainStep, "_update_by_gradients", wrong)
    found = BUILDERS["model"](asked).check()
    assert not found.passed
    assert words in found.checks


def test_the_first_tokens_of_a_long_timed_call_are_compared_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_checks, "MAX_REFERENCE_LENGTH", 16)
    setting = op_setting(_cell("op", "right"))
    findings = check_op(setting, gradient=True)
    assert all("first 16 tokens of the timed call" in finding.check for finding in findings[:-1])
    assert verdict(findings).passed
    assert not verdict(check_op(op_setting(_cell("op", "future_leak")), gradient=False)).passed
    assert not verdict(check_op(op_setting(_cell("op", "wrong_gradient")), gradient=True)).passed

    def wrong_when_long(*arrays: mx.array) -> mx.array:
        y_BNLH = setting.eager_function(gradient=False)(*arrays)
        return 1.01 * y_BNLH if y_BNLH.shape[2] > 16 else y_BNLH

    def endless_late(*arrays: mx.array) -> mx.array:
        y_BNLH = setting.eager_function(gradient=False)(*arrays)
        y_BNLH[:, :, 20:] = float("inf")
        return y_BNLH

    assert not verdict(check_op(setting, gradient=False, timed=wrong_when_long)).passed
    endless = verdict(check_op(setting, gradient=False, timed=endless_late))
    assert not endless.passed
    assert endless.checks.startswith("all of the timed call is finite")


def test_a_mechanism_chosen_by_length_is_held_to_the_one_that_the_whole_length_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(op_checks, "MAX_REFERENCE_LENGTH", 16)
    monkeypatch.setattr(Chooser, "_mechanism", lambda _, length: "sliding_window" if length > 16 else "softmax")
    crossing = {
        "name": "adaptive",
        "mechanism": "adaptive",
        "of": "softmax",
        "allow_mechanisms": ["sliding_window"],
        "parameters": {"window_size": 5},
    }
    for causal in (True, False):
        setting = op_setting(settings.cell("op", "adaptive", attention=crossing, causal=causal))
        assert verdict(check_op(setting, gradient=True)).passed


def test_long_texts_read_both_ways_are_compared_at_a_length_that_fits_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(op_checks, "MAX_REFERENCE_LENGTH", 16)
    findings = check_op(op_setting(_cell("op", "right", causal=False)), gradient=True)
    assert all("at length 16, not 37" in finding.check for finding in findings[:-1])
    assert verdict(findings).passed


def test_output_of_another_shape_does_not_pass() -> None:
    setting = op_setting(_cell("op", "right"))
    found = check_op(setting, gradient=False, timed=lambda *arrays: arrays[0][:, :1])
    assert "output shape" in found[0].check
    assert not found[0].passed


def test_outputs_that_are_not_finite_do_not_pass() -> None:
    expected = np.ones((3, 4))
    assert relative_error(np.full((3, 4), np.nan), expected) == np.inf
    assert relative_error(np.ones((3, 5)), expected) == np.inf
    assert relative_error(expected * 1.01, expected) == pytest.approx(0.01)


def test_an_error_counts_against_its_own_vector_and_not_against_the_largest() -> None:
    expected = np.stack([np.full(8, 1.0), np.full(8, 0.05)])
    wrong = expected.copy()
    wrong[1, 3] += 0.005
    assert relative_error(wrong, expected) == pytest.approx(0.1)


def test_a_verdict_names_what_failed_and_its_error() -> None:
    good = Finding(check="good", error=1e-6, tolerance=1e-4)
    bad = Finding(check="bad", error=0.5, tolerance=1e-4)
    broken = dataclasses.replace(bad, check="broken", error=float("nan"))
    assert verdict([good]).passed
    assert verdict([good, bad]).model_dump() == {
        "passed": False,
        "checks": "bad: error 0.5, accepted 0.0001",
        "max_error": 0.5,
        "tolerance": 1e-4,
    }
    assert verdict([bad, broken]).max_error is None


def test_products_that_keep_few_bits_get_the_tolerance_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_products_are_short", lambda: True)
    assert checks.tolerance(mx.float32) == checks.TOLERANCES[mx.float16]
    monkeypatch.setattr(checks, "_products_are_short", lambda: False)
    assert checks.tolerance(mx.float32) == checks.TOLERANCES[mx.float32]
