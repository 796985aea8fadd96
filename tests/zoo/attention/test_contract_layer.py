"""The contract of every layer: mixing, padding, documents, gradients, compiling, saving, refusals."""

import dataclasses
import itertools
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tests.tolerances import tolerance
from tests.zoo.attention.cases import CASES, DIRECTED, HIDDEN_SIZE, NUM_HEADS, Case, directed_id, hidden_states
from zoo.attention import Attention
from zoo.config import UserError
from zoo.ops.masks import MaskSpec

# A dependence shows in the output far above rounding; independence leaves rounding at most.
SEEN, UNSEEN = 1e-4, 1e-6


def _changes(layer: Attention, x_BLD: mx.array, mask: MaskSpec) -> np.ndarray:
    """[L, B, L]: for each position the largest change of each output when the input there in row 0 changes."""
    change = np.random.default_rng(8).standard_normal(x_BLD.shape[2]) * 3
    before, differences = layer(x_BLD, mask=mask), []
    for position in range(x_BLD.shape[1]):
        moved = np.array(x_BLD)
        moved[0, position] += change
        differences.append(layer(mx.array(moved), mask=mask) - before)
    return np.abs(np.array(mx.stack(differences))).max(axis=-1)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_exactly_the_allowed_tokens_mix(case: Case, causal: bool) -> None:
    length = 17
    layer, x_BLD = case.layer(causal=causal), hidden_states(0, 2, length)
    reach = case.reach(length, causal=causal)
    for position, change in enumerate(_changes(layer, x_BLD, MaskSpec(causal=causal))):
        assert (change[0][reach[:, position]] > SEEN).all(), f"token {position} must reach what the pattern allows"
        assert (change[0][~reach[:, position]] <= UNSEEN).all(), f"token {position} leaks past the pattern"
        assert (change[1] <= UNSEEN).all(), "another row of the batch changed"


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("case", [case for case in CASES if case.capabilities.causal], ids=str)
def test_future_tokens_do_not_change_the_past(case: Case, positions: str) -> None:
    if positions == "alibi" and not case.capabilities.alibi:
        with pytest.raises(UserError, match="alibi"):
            case.layer(causal=True, positions="alibi")
        return
    layer, x_BLD = case.layer(causal=True, positions=positions), hidden_states(1, 1, 23)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    for length in (1, 4, 5, 6, 16):
        part = layer(x_BLD[:, :length], mask=MaskSpec(causal=True))
        assert mx.abs(part - whole[:, :length]).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_right_padding_changes_nothing_inside(case: Case, causal: bool) -> None:
    layer, x_BLD = case.layer(causal=causal), hidden_states(2, 3, 19)
    lengths = [19, 1, 8]
    mask = MaskSpec(causal=causal, lengths_B=mx.array(lengths))
    if not case.capabilities.padding:
        with pytest.raises(UserError, match="padding"):
            layer(x_BLD, mask=mask)
        return
    padded = layer(x_BLD, mask=mask)
    assert mx.isfinite(padded).all().item()
    for row, length in enumerate(lengths):
        alone = layer(x_BLD[row : row + 1, :length], mask=MaskSpec(causal=causal))
        assert mx.abs(padded[row, :length] - alone[0]).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_packed_documents_do_not_see_each_other(case: Case, causal: bool) -> None:
    layer, x_BLD = case.layer(causal=causal), hidden_states(3, 2, 19)
    borders = [[0, 7, 19], [0, 1, 3, 12, 19]]
    segments = np.zeros((2, 19), dtype=np.int32)
    for row, starts in enumerate(borders):
        for start in starts[1:-1]:
            segments[row, start:] += 1
    mask = MaskSpec(causal=causal, segments_BL=mx.array(segments))
    if not case.capabilities.segments:
        with pytest.raises(UserError, match="packed documents"):
            layer(x_BLD, mask=mask)
        return
    packed = layer(x_BLD, mask=mask)
    if case.mechanism.pattern is not None and _depends_on_absolute_position(case):
        _assert_documents_are_isolated(layer, x_BLD, mask, borders)
        return
    for row, starts in enumerate(borders):
        for start, stop in itertools.pairwise(starts):
            alone = layer(x_BLD[row : row + 1, start:stop], mask=MaskSpec(causal=causal))
            assert mx.abs(packed[row, start:stop] - alone[0]).max().item() <= tolerance(mx.float32)


def _depends_on_absolute_position(case: Case) -> bool:
    """Whether the pattern is not shift-invariant, so that a packed document is cut otherwise than a lone one."""
    return bool((case.reach(24, causal=False)[3:, 3:] != case.reach(21, causal=False)).any())


def _assert_documents_are_isolated(layer: Attention, x_BLD: mx.array, mask: MaskSpec, borders: list[list[int]]) -> None:
    changes_LL = _changes(layer, x_BLD, mask)[:, 0]
    for start, stop in itertools.pairwise(borders[0]):
        outside = np.ones(changes_LL.shape[1], dtype=bool)
        outside[start:stop] = False
        assert (changes_LL[start:stop, outside] <= UNSEEN).all()


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_every_parameter_gets_a_gradient(case: Case, causal: bool) -> None:
    changes = {"num_kv_heads": 2} if case.capabilities.grouped_heads else {}
    layer = case.layer(causal=causal, qkv_bias=True, output_bias=True, **changes)
    x_BLD, target_BLD = hidden_states(4, 2, 15), hidden_states(5, 2, 15)

    def loss(parameters: dict) -> mx.array:
        layer.update(parameters)
        return mx.square(layer(x_BLD, mask=MaskSpec(causal=causal)) - target_BLD).sum()

    weights = layer.parameters()
    gradients = dict(tree_flatten(mx.grad(loss)(weights)))
    assert gradients
    for name, gradient in gradients.items():
        assert mx.isfinite(gradient).all().item(), name
        # A key bias moves all scores of a query alike, so softmax cancels it: no effect, no gradient.
        if _has_effect(layer, weights, name, x_BLD, MaskSpec(causal=causal)):
            assert mx.abs(gradient).max().item() > 0, name
        else:
            assert name == "k_proj.bias"


def _has_effect(layer: Attention, weights: dict, name: str, x_BLD: mx.array, mask: MaskSpec) -> bool:
    layer.update(weights)
    before = layer(x_BLD, mask=mask)
    moved = [(key, value + 0.5 if key == name else value) for key, value in tree_flatten(weights)]
    layer.update(tree_unflatten(moved))
    after = layer(x_BLD, mask=mask)
    layer.update(weights)
    return mx.abs(after - before).max().item() > 10 * UNSEEN


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_compiled_equals_eager(case: Case, causal: bool) -> None:
    layer, x_BLD = case.layer(causal=causal, positions="rotary"), hidden_states(6, 2, 21)
    eager = layer(x_BLD, mask=MaskSpec(causal=causal))
    compiled = mx.compile(lambda x: layer(x, mask=MaskSpec(causal=causal)))(x_BLD)
    assert mx.abs(eager - compiled).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_saved_weights_load_into_an_equal_layer(case: Case, causal: bool, tmp_path: Path) -> None:
    layer, x_BLD = case.layer(causal=causal), hidden_states(7, 1, 9)
    layer.save_weights(str(tmp_path / "layer.safetensors"))
    mx.random.seed(99)
    other = case.mechanism.make_layer(case.parameters, case.implementation, layer.shape)
    other.load_weights(str(tmp_path / "layer.safetensors"), strict=True)
    mask = MaskSpec(causal=causal)
    assert mx.array_equal(layer(x_BLD, mask=mask), other(x_BLD, mask=mask)).item()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_undeclared_directions_are_refused_with_a_reason(case: Case) -> None:
    capabilities = case.capabilities
    assert capabilities.causal or capabilities.bidirectional
    for causal, able in ((True, capabilities.causal), (False, capabilities.bidirectional)):
        if able:
            continue
        with pytest.raises(UserError, match="attention: "):
            case.layer(causal=causal)
        layer = case.layer(causal=not causal)
        with pytest.raises(UserError, match="mask: "):
            layer(hidden_states(0, 1, 3), mask=MaskSpec(causal=causal))


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_flops_count_the_projections_and_grow_with_the_length(case: Case, causal: bool) -> None:
    layer = case.layer(causal=causal)
    assert HIDDEN_SIZE % NUM_HEADS, "the sizes of these tests must not coincide"
    weights = sum(value.size for name, value in tree_flatten(layer.parameters()) if name.endswith("_proj.weight"))
    short, long = (layer.flops(query_length=length, key_length=length) for length in (16, 64))
    assert short > 2 * 16 * weights
    assert long >= 4 * short - 4, "useful work is at least linear in the length"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_heads_that_do_not_divide_are_refused(case: Case) -> None:
    parameters = dataclasses.replace(case.parameters, num_kv_heads=4)
    with pytest.raises(UserError, match=r"divide|as many key/value heads"):
        Case(case.mechanism_name, case.implementation, parameters).layer(causal=case.directions[0])
