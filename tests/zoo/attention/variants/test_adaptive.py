"""Adaptive attention computes what it promises, by whichever way was planted as the fastest."""

import json
import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from eval.workloads import operations
from tests.tolerances import tolerance
from tests.zoo.attention import test_contract_decode as decoding
from tests.zoo.attention import test_contract_layer as layers
from tests.zoo.attention import test_contract_op as ops
from tests.zoo.attention.cases import Case, hidden_states, parameter_sets
from tests.zoo.attention.planted import calibration, member, times, write_own
from zoo.attention import Attention, mechanism, mechanism_names, variant_from_mapping
from zoo.attention.calibration import Measurement, Phase, write_calibration
from zoo.attention.catalog import variant_mapping
from zoo.attention.choice import has_a_choice
from zoo.config import UserError
from zoo.models import build_model, model_config_from_mapping
from zoo.ops.masks import MaskSpec

CHOOSABLE = [name for name in mechanism_names() if has_a_choice(mechanism(name))]
BORDER, WINDOW = 16, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def adaptive(**fields: Any) -> Case:
    """A case of the mechanism `adaptive`, for the contract's own tests."""
    return Case("adaptive", "calibrated", mechanism("adaptive").config(**fields))


def _preferring(name: str, implementation: str) -> list[Measurement]:
    """Times by which one implementation is the fastest, always."""
    every = member(name).implementations(causal=True)
    phases: list[Phase] = ["forward", "training", "decode"]
    seconds = {each: {64: 0.5 if each == implementation else 9.0} for each in every}
    return [each for phase in phases for each in times(name, seconds, phase=phase)]


def _shrunk(name: str) -> dict[str, Any]:
    """Parameters as small as the contract's own cases have them."""
    _, parameters = parameter_sets(mechanism(name))[0]
    own = member(name).own_parameters
    return {key: getattr(parameters, key) for key in own}


PAIRS = [(name, each) for name in CHOOSABLE for each in member(name).implementations(causal=True)]


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
def test_whatever_is_preferred_keeps_the_contract(name: str, implementation: str) -> None:
    write_own(_preferring(name, implementation))
    case = adaptive(of=name, parameters=_shrunk(name))
    plain = member(name, **_shrunk(name))
    assert case.capabilities.exact_class == plain.declared.capabilities(plain.parameters, implementation).exact_class
    for causal in case.directions:
        ops.test_values_equal_the_reference_at_every_length(case, causal, 3)
        layers.test_compiled_equals_eager(case, causal)
        layers.test_right_padding_changes_nothing_inside(case, causal)
    ops.test_gradients_equal_the_references_directional_derivatives(case, True, False)
    decoding.test_prefill_in_chunks_then_decoding_equals_the_full_forward(case, "rotary")


@pytest.mark.parametrize("name", CHOOSABLE)
def test_cache_bytes_are_those_of_the_mechanism(name: str) -> None:
    decoding.test_cache_bytes_equal_the_real_cache(adaptive(of=name, parameters=_shrunk(name)))


def _is_dense(layer: Attention, length: int) -> bool:
    """Whether the layer's graph holds a softmax over a whole matrix, fused or not."""
    names = operations([layer(hidden_states(0, 1, length), mask=MaskSpec(causal=True))])
    return any(name.startswith(("ScaledDotProductAttention", "Softmax")) for name in names)


def test_a_layer_follows_its_phase_and_length() -> None:
    training = times("softmax", {"fused": {64: 1.0, 256: 1.0}, "tiled": {64: 0.5, 256: 2.0}}, phase="training")
    forward = times("softmax", {"fused": {64: 0.5, 256: 2.0}, "tiled": {64: 1.0, 256: 1.0}}, phase="forward")
    write_own(training, forward)
    layer = adaptive().layer(causal=True)
    assert [_is_dense(layer, length) for length in (64, 256)] == [False, True]
    layer.eval()
    assert [_is_dense(layer, length) for length in (64, 256)] == [True, False]
    layer.train()
    assert [_is_dense(layer, length) for length in (64, 256)] == [False, True]


def test_a_named_phase_and_a_named_file_outweigh_the_layer_and_the_device(tmp_path: Path) -> None:
    write_own(_preferring("softmax", "fused"))
    write_calibration(tmp_path / "kept.json", calibration(times("softmax", {"tiled": {64: 1.0}}, phase="forward")))
    layer = adaptive(calibration=str(tmp_path / "kept.json"), phase="forward").layer(causal=True)
    assert layer.training
    assert not _is_dense(layer, 200)


def test_it_has_the_parameters_and_the_first_weights_of_the_plain_variant() -> None:
    def weights(name: str) -> dict[str, mx.array]:
        mapping = {"family": "gpt", "vocab_size": 50, "num_layers": 2, "hidden_size": 24, "num_heads": 3}
        config = model_config_from_mapping(
            {**mapping, "intermediate_size": 40, "max_seq_len": 64, "attention": variant_mapping(name)}
        )
        mx.random.seed(3)
        return dict(tree_flatten(build_model(config).parameters()))

    plain, chosen = weights("mha"), weights("adaptive")
    assert plain.keys() == chosen.keys()
    assert all(mx.array_equal(plain[name], chosen[name]).item() for name in plain)


def _crossing(of: str = "softmax") -> Case:
    """Full softmax up to BORDER tokens, a window beyond, by planted times; whichever of them it is that crosses."""
    full = times("softmax", {"fused": {1: 1.0, BORDER: 1.0, BORDER + 1: 9.0}})
    window = times("sliding_window", {"chunked": {1: 2.0, 64: 2.0}})
    write_own(full, window)
    other = {"softmax": "sliding_window", "sliding_window": "softmax"}[of]
    return adaptive(of=of, parameters={"window_size": WINDOW}, allow_mechanisms=(other,))


def _plain(name: str, **parameters: Any) -> Attention:
    declared = mechanism(name)
    return Case(name, next(iter(declared.implementations)), declared.config(**parameters)).layer(causal=True)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_a_crossing_layer_is_one_mechanism_up_to_the_border_and_another_beyond(batch_size: int, training: bool) -> None:
    crossing, x_BLD = _crossing().layer(causal=True), hidden_states(0, batch_size, 40)
    crossing.train(training)
    full, window = _plain("softmax"), _plain("sliding_window", window_size=WINDOW)
    for length in (1, BORDER, BORDER + 1, 40):
        expected = full if length <= BORDER else window
        part, mask = x_BLD[:, :length], MaskSpec(causal=True)
        assert mx.abs(crossing(part, mask=mask) - expected(part, mask=mask)).max().item() <= tolerance(mx.float32)
    difference = mx.abs(full(x_BLD, mask=mask) - window(x_BLD, mask=mask)).max().item()
    assert difference > 100 * tolerance(mx.float32), "the two must differ, or the above says nothing"


@pytest.mark.parametrize("of", ["softmax", "sliding_window"])
@pytest.mark.parametrize("cuts", [[1] * 30, [7, 1, 13, 1, 1, 7], [20, 1, 1, 1, 1, 6]])
def test_decoding_across_the_border_computes_the_mechanism_of_the_tokens_so_far(cuts: list[int], of: str) -> None:
    crossing, x_BLD = _crossing(of).layer(causal=True), hidden_states(0, 2, 30)
    full, window = (
        layer(x_BLD, mask=MaskSpec(causal=True))
        for layer in (_plain("softmax"), _plain("sliding_window", window_size=WINDOW))
    )
    decoded = decoding.decode(crossing, x_BLD, cuts)
    start = 0
    for length in cuts:
        expected = full if start + length <= BORDER else window
        part = slice(start, start + length)
        assert mx.abs(decoded[:, part] - expected[:, part]).max().item() <= tolerance(mx.float32)
        start += length


def test_a_crossing_layer_never_sees_the_content_of_the_future() -> None:
    crossing, x_BLD = _crossing().layer(causal=True), hidden_states(0, 1, 30)
    before = crossing(x_BLD, mask=MaskSpec(causal=True))
    moved = mx.concatenate([x_BLD[:, :19], -x_BLD[:, 19:]], axis=1)
    after = crossing(moved, mask=MaskSpec(causal=True))
    assert mx.array_equal(before[:, :19], after[:, :19]).item()
    assert mx.abs(before[:, 19:] - after[:, 19:]).max().item() > 1e-2


@pytest.mark.parametrize("causal", [True, False])
def test_a_crossing_op_equals_its_reference_and_keeps_its_cache(causal: bool) -> None:
    case = _crossing()
    ops.test_values_equal_the_reference_at_every_length(case, causal, 3)
    ops.test_padding_and_documents_equal_the_reference(case, causal)
    for of in ("softmax", "sliding_window"):
        decoding.test_cache_bytes_equal_the_real_cache(_crossing(of))
    decoding.test_a_trimmable_cache_forgets_the_last_tokens(adaptive(allow_mechanisms=("sliding_window",)))


def test_crossing_says_so(caplog: pytest.LogCaptureFixture) -> None:
    exact_class = "adaptive(softmax|dilated)"
    assert adaptive().capabilities.exact_class == "softmax"
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            layer = adaptive(allow_mechanisms=("dilated",)).layer(causal=True)
    assert layer.capabilities.exact_class == exact_class
    (record,) = [each for each in caplog.records if exact_class in each.getMessage()]
    assert "no longer one function" in record.getMessage()


def test_rows_of_different_lengths_are_refused_only_where_they_could_cross() -> None:
    mask = MaskSpec(causal=True, offset=mx.array([3, 20]))
    with pytest.raises(UserError, match="one prompt at a time"):
        _crossing().layer(causal=True)(hidden_states(0, 2, 1), mask=mask)
    assert adaptive().layer(causal=True)(hidden_states(0, 2, 1), mask=mask).shape[0] == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"of": "adaptive"}, "of must name a mechanism"),
        ({"of": "gated_delta"}, "of must name a mechanism"),
        ({"of": "nothing"}, "of must name a mechanism"),
        ({"allow_mechanisms": ["linear"]}, "allow_mechanisms must name softmax mechanisms other than 'softmax'"),
        ({"allow_mechanisms": ["softmax"]}, "allow_mechanisms must name softmax mechanisms other than 'softmax'"),
        ({"of": "linear", "allow_mechanisms": ["softmax"]}, "allow_mechanisms must be empty unless `of`"),
        ({"parameters": {"window_size": 8}}, "parameters must be those of softmax"),
        ({"of": "sliding_window", "parameters": {"window_size": 0}}, "window_size must be at least 1"),
        ({"of": "sliding_window", "parameters": {"num_kv_heads": 1}}, "parameters must be those of sliding_window"),
        ({"phase": "sleep"}, "phase"),
        ({"num_kv_heads": 0}, "num_kv_heads must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_chosen_among_is_refused_in_one_line(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        variant_from_mapping({"name": "adaptive", "mechanism": "adaptive", **json.loads(json.dumps(fields))})
    assert str(refusal.value).startswith("attention")
    assert "\n" not in str(refusal.value)
