"""The gate: every planted mistake is caught at every level, and what is right passes."""

import functools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map, tree_map_with_path

from eval import checks
from eval.checks import Finding, largest_distance, relative_errors, verdict
from eval.checks import attention as attention_checks
from eval.checks.attention import check_op
from eval.checks.model import check_logits
from eval.rows import Cell, Correctness
from eval.workloads import arrays_of
from eval.workloads.attention import AttentionSetting, attention_setting
from eval.workloads.model import model_setting
from eval.workloads.registry import BUILDERS
from tests.eval.checks import faults
from tests.eval.workloads import settings
from zoo.attention.catalog import variant
from zoo.attention.choice import Chooser
from zoo.attention.pattern import PatternMixer
from zoo.attention.projected import ProjectedAttention
from zoo.ops import softmax
from zoo.training.step import TrainStep

VALUES = [*faults.FULL, *faults.WINDOWED]
SHARED, HALF = {"num_kv_heads": 2}, {"dtype": "bfloat16"}
WRONG = [(level, fault, {}) for level in ("op", "layer") for fault in VALUES]
WRONG += [("op", fault, SHARED) for fault in ("untransposed_values", *faults.GROUPED)]
# These two are no larger than what half precision loses.
WRONG += [("op", fault, HALF) for fault in VALUES if fault not in ("half_precision", "missing_scale")]
RIGHT = [{"num_kv_heads": 1}, SHARED, {"num_kv_heads": 4, "compiled": True}, HALF]


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.register(monkeypatch)
    settings.shrink_models(monkeypatch, vocab_size=53)


def _cell(level: str, fault: str, **changes: Any) -> Cell:
    small = {"model": "gpt_tiny", "length": 13, "batch_size": 2} if level == "model" else {}
    return settings.cell(level, fault, attention=faults.mapping(fault), **{**small, **changes})


def _checked(level: str, fault: str, **changes: Any) -> Correctness:
    return BUILDERS[level](_cell(level, fault, **changes)).check()


@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
@pytest.mark.parametrize(("level", "fault", "changes"), WRONG)
def test_a_wrong_implementation_does_not_pass(level: str, fault: str, changes: dict, mode: str) -> None:
    found = _checked(level, fault, mode=mode, **changes)
    assert not found.passed
    assert "values against the float64 reference" in found.checks


@pytest.mark.parametrize("fault", [*VALUES, *faults.GRADIENT])
def test_a_wrong_op_is_seen_inside_a_model(fault: str) -> None:
    found = _checked("model", fault, mode="forward_backward")
    assert not found.passed
    assert found.checks.startswith(f"{fault}: ")


@pytest.mark.parametrize("fault", faults.GRADIENT)
@pytest.mark.parametrize("level", ["op", "layer"])
def test_a_wrong_gradient_behind_right_values_does_not_pass(level: str, fault: str) -> None:
    assert _checked(level, fault).passed
    found = _checked(level, fault, mode="forward_backward")
    assert not found.passed
    assert ("no gradient in other heads" if fault == "gradient_leak" else "directional derivative") in found.checks


@pytest.mark.parametrize("right", ["right", "right_window"])
@pytest.mark.parametrize("level", ["op", "layer"])
def test_what_is_right_beside_them_passes(level: str, right: str) -> None:
    for changes in RIGHT:
        found = _checked(level, right, mode="forward_backward", **changes)
        assert found.passed, found.checks
        assert 0 < found.max_error <= found.tolerance


def test_a_layer_that_scrambles_around_a_right_op_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = PatternMixer.__call__

    def scrambled(self: Any, q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
        return mix(self, q, k, v.swapaxes(1, 2).reshape(v.shape), **rest)

    assert _checked("layer", "right", causal=False).passed
    monkeypatch.setattr(PatternMixer, "__call__", scrambled)
    assert _checked("op", "right", causal=False).passed
    found = _checked("layer", "right", causal=False)
    assert not found.passed
    assert "its projections around the reference" in found.checks
    assert "no output sees a token that it may not" in _checked("layer", "right").checks


def test_every_law_of_mixing_is_asked() -> None:
    setting = attention_setting(_cell("layer", "right")).changed(batch_size=2, length=17)
    layer, x_BLD = setting.layer(), setting.hidden_states()
    right = functools.partial(layer, mask=setting.mask)
    may_LS = attention_checks.reach([setting.variant], 17, causal=True)
    given = {"bound": checks.tolerance(mx.float32), "may_LS": may_LS, "direct_LS": may_LS}
    for function, words in (
        (right, []),
        (lambda x_BLD: right(x_BLD) + x_BLD[:, ::-1], ["no output sees a token that it may not"]),
        (lambda x_BLD: right(x_BLD) + x_BLD[::-1], ["no other row of the batch changes"]),
        (mx.tanh, ["neighbours see a token that they may"]),
    ):
        findings = attention_checks.check_mixing(function, x_BLD, function(x_BLD), attention_checks.amplified, **given)
        assert [finding.check for finding in findings if not finding.passed] == words


def test_the_loud_token_of_a_layer_is_out_of_reach_of_later_ones() -> None:
    length = attention_checks.MAX_MIXING_LENGTH
    for each in map(variant, settings.SINGLE):
        seen = attention_checks.reach(each.variants(), length, causal=False)[:, length // 2]
        assert seen.all() or not seen[-1], each.name


@pytest.mark.parametrize(
    ("mode", "words"),
    [("forward", "no output sees a token that it may not"), ("decode", "prefill and decoding equal the full forward")],
)
def test_a_leak_and_a_lost_token_around_a_right_op_are_seen_in_a_model(
    monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    assert _checked("model", "right", model="llama_tiny", mode=mode).passed
    call = ProjectedAttention.__call__

    def wrong(self: Any, x_BLD: mx.array, *, mask: Any, cache: Any = None) -> mx.array:
        if cache is not None and x_BLD.shape[1] == 1 and not cache.empty():
            cache.trim(1)
        leak_BLD = x_BLD[:, ::-1] if mode == "forward" else 0
        return call(self, x_BLD, mask=mask, cache=cache) + leak_BLD

    monkeypatch.setattr(ProjectedAttention, "__call__", wrong)
    found = _checked("model", "right", model="llama_tiny", mode=mode)
    assert not found.passed
    assert words in found.checks


def test_weights_that_learn_nothing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ProjectedAttention.__call__

    def silent(self: Any, x_BLD: mx.array, **rest: Any) -> mx.array:
        return mx.stop_gradient(call(self, x_BLD, **rest))

    monkeypatch.setattr(ProjectedAttention, "__call__", silent)
    for mode in ("forward_backward", "step"):
        found = _checked("model", "right", mode=mode)
        assert not found.passed
        assert "every parameter that matters gets a finite gradient, not layers.0." in found.checks
        assert all(f"layers.1.self_attn.{name}_proj.weight" in found.checks for name in "qkvo")
    layer = _checked("layer", "right", mode="forward_backward")
    assert not layer.passed
    assert "every parameter that matters gets a finite gradient, not " in layer.checks


@pytest.mark.parametrize("mode", ["forward", "prefill", "decode"])
def test_the_timed_logits_themselves_are_compared(mode: str) -> None:
    setting = model_setting(_cell("model", "right", mode=mode))
    model = setting.model()
    right = model(setting.changed(length=13 + (mode == "decode")).tokens())
    for timed, passes in ((right, True), (right[::-1], False)):
        found = verdict(check_logits(setting, model, timed if mode == "forward" else [timed[:, -1:]]))
        assert found.passed == passes
        assert "timed" in found.checks


@pytest.mark.parametrize("wrong", ["values", "gradients"])
@pytest.mark.parametrize("level", ["layer", "model"])
def test_what_goes_wrong_in_compilation_alone_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, level: str, wrong: str
) -> None:
    """Values or gradients 1 % too small, only in the timed call."""
    compile_, asked = mx.compile, {"mode": "forward_backward", "compiled": True}

    def shrinking(function: Any, **rest: Any) -> Any:
        compiled = compile_(function, **rest)

        def call(*arguments: Any) -> Any:
            values, gradients = compiled(*arguments)
            if wrong == "values":
                return 0.99 * values, gradients
            return values, tree_map(lambda gradient: 0.99 * gradient, gradients)

        return call

    assert _checked(level, "right", **asked).passed
    # Ops are compiled by the check itself; they stay as they are.
    monkeypatch.setattr(AttentionSetting, "function", AttentionSetting.eager_function)
    monkeypatch.setattr(mx, "compile", shrinking)
    found = _checked(level, "right", **asked)
    assert not found.passed
    assert found.checks.startswith(f"{wrong} of the timed ")
    assert ";" not in found.checks


@pytest.mark.parametrize("level", ["layer", "model"])
def test_a_gradient_that_one_implementation_alone_loses_around_its_op_is_seen_beside_another(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    mix, lossy = PatternMixer.__call__, faults.another_gradient(lambda cotangent: 0.98 * cotangent)

    def wrong(self: Any, *inputs: mx.array, **rest: Any) -> mx.array:
        y_BNLH = mix(self, *inputs, **rest)
        return lossy(y_BNLH) if self._op is softmax.fused else y_BNLH

    monkeypatch.setattr(PatternMixer, "__call__", wrong)
    found = _checked(level, "right", mode="forward_backward")
    assert found.checks.startswith("gradients equal those of")
    assert not found.passed


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("still", "update is AdamW's"),
        ("moments", "update is AdamW's"),
        ("factor", "timed gradient norm"),
        ("state", "gradients of the timed loss"),
    ],
)
def test_a_step_that_does_not_update_as_it_should_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    update = TrainStep._update_by_gradients

    def wrong(self: TrainStep, gradients: Any) -> mx.array:
        if fault == "state":
            return mx.sqrt(sum(each.square().sum() for each in arrays_of(gradients)))
        before = self.model.parameters()
        norm = update(self, tree_map(lambda each: 1.1 * each, gradients) if fault == "factor" else gradients)
        if fault == "still":
            self.model.update(before)
        if fault == "moments":
            squares = lambda path, array: 1.1 * array if path.endswith(".v") else array  # noqa: E731
            self.optimizer.state = tree_map_with_path(squares, self.optimizer.state)
        return norm

    monkeypatch.setattr(TrainStep, "_update_by_gradients", wrong)
    found = _checked("model", "right", mode="step")
    assert not found.passed
    assert words in found.checks


@pytest.mark.parametrize(
    ("causal", "note"), [(True, "first 16 tokens of the timed call"), (False, "at length 16, not 37")]
)
def test_of_long_texts_as_much_as_the_reference_can_hold_is_compared_and_said(
    monkeypatch: pytest.MonkeyPatch, causal: bool, note: str
) -> None:
    monkeypatch.setattr(attention_checks, "MAX_REFERENCE_LENGTH", 16)
    setting = attention_setting(_cell("op", "right", causal=causal))
    findings = check_op(setting.changed(mode="forward_backward"))
    assert verdict(findings).passed
    assert all(note in finding.check for finding in findings[:-1])
    assert not _checked("op", "window_too_long", causal=causal).passed
    assert not _checked("op", "wrong_gradient", causal=causal, mode="forward_backward").passed

    def wrong_when_long(*arrays: mx.array) -> mx.array:
        y_BNLH = setting.eager_function()(*arrays)
        return 1.01 * y_BNLH if y_BNLH.shape[2] > 16 else y_BNLH

    def endless_late(*arrays: mx.array) -> mx.array:
        y_BNLH = setting.eager_function()(*arrays)
        y_BNLH[:, :, 20:] = float("inf")
        return y_BNLH

    assert verdict(check_op(setting, wrong_when_long)).passed != causal
    endless = verdict(check_op(setting, endless_late))
    assert not endless.passed
    assert endless.checks.startswith("all of the timed call is finite")


@pytest.mark.parametrize("causal", [True, False])
def test_a_mechanism_chosen_by_length_is_held_to_the_one_that_the_whole_length_chooses(
    monkeypatch: pytest.MonkeyPatch, causal: bool
) -> None:
    monkeypatch.setattr(attention_checks, "MAX_REFERENCE_LENGTH", 16)
    monkeypatch.setattr(Chooser, "_mechanism", lambda _, length: "sliding_window" if length > 16 else "softmax")
    crossing = {"name": "adaptive", "mechanism": "adaptive", "of": "softmax", "parameters": {"window_size": 5}}
    crossing["allow_mechanisms"] = ["sliding_window"]
    asked = settings.cell("op", "adaptive", attention=crossing, causal=causal, mode="forward_backward")
    assert verdict(check_op(attention_setting(asked))).passed


def test_output_of_another_shape_does_not_pass() -> None:
    found = verdict(check_op(attention_setting(_cell("op", "right")), lambda *arrays: arrays[0][:, :1]))
    assert found.checks.startswith("output shape")
    assert not found.passed


def test_an_error_counts_against_its_own_vector_and_what_is_not_finite_is_infinitely_wrong() -> None:
    expected = np.stack([np.full(8, 1.0), np.full(8, 0.05)])
    wrong = expected.copy()
    wrong[1, 3] += 0.005
    assert relative_errors(wrong, expected) == pytest.approx([0, 0.1])
    wrong[0, 0] = np.nan
    for broken in (wrong, np.ones((2, 7))):
        assert relative_errors(broken, expected).tolist() == [np.inf, np.inf]
    assert largest_distance({"q": mx.ones(3)}, {"q": mx.ones(3), "k": mx.ones(3)}) == np.inf


def test_a_verdict_names_what_failed_and_its_error() -> None:
    good, bad, broken = (
        Finding(check=check, error=error, tolerance=1e-4)
        for check, error in (("good", 1e-6), ("bad", 0.5), ("broken", float("nan")))
    )
    assert verdict([good]).passed
    expected = Correctness(passed=False, checks="bad: error 0.5, accepted 0.0001", max_error=0.5, tolerance=1e-4)
    assert verdict([good, bad]) == expected
    assert verdict([bad, broken]).max_error is None


def test_products_that_keep_few_bits_get_the_tolerance_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    for short, dtype in ((True, mx.float16), (False, mx.float32)):
        monkeypatch.setattr(checks, "_products_are_short", lambda short=short: short)
        assert checks.tolerance(mx.float32) == checks.TOLERANCES[dtype]
