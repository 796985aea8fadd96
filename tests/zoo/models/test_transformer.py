"""Laws of every family: order, causality, decoding, positions, memory for speed, and the accounts."""

import functools
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.models import cases
from zoo.attention.catalog import attention_names, variant
from zoo.config import UserError
from zoo.models import cache_offset
from zoo.ops.masks import MaskSpec

VARIANTS = pytest.mark.parametrize(
    "attention", [cases.MHA, cases.WINDOW, cases.HYBRID], ids=lambda mapping: mapping["name"]
)
LANGUAGE_MODELS = pytest.mark.parametrize("family", cases.LANGUAGE_MODELS)
POSITIONS = pytest.mark.parametrize("positions", cases.POSITIONS)


def _scaled_tolerance(logits: mx.array) -> float:
    """The table's tolerance is for values of order 1; these logits are of order 10."""
    return tolerance(mx.float32) * max(1.0, mx.abs(logits).max().item())


def _model(family: str, **changes: Any) -> Any:
    return cases.varied(cases.model(family, **{"num_layers": 3, **changes})).eval()


@POSITIONS
@VARIANTS
@LANGUAGE_MODELS
def test_future_tokens_do_not_change_the_past(family: str, attention: dict, positions: str) -> None:
    model, tokens_BL = _model(family, attention=attention, positions=positions), cases.tokens(2, 19)
    whole = model(tokens_BL)
    for length in (1, 5, 6, 18):
        assert cases.difference(model(tokens_BL[:, :length]), whole[:, :length]) <= _scaled_tolerance(whole)


@pytest.mark.parametrize("name", attention_names())
def test_no_tokens_give_no_logits_and_change_no_cache(name: str) -> None:
    causal = all(each.capabilities.causal for each in variant(name).variants())
    model = _model("llama" if causal else "bert", attention=variant(name).as_mapping())
    assert model(cases.tokens(2, 0)).shape[:2] == (2, 0)
    if causal:
        cache = model.make_cache()
        model(cases.tokens(2, 3), cache=cache)
        assert model(cases.tokens(2, 0), cache=cache).shape[:2] == (2, 0)
        assert cache_offset(cache) == 3


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_positions_tell_the_order_of_tokens(family: str, positions: str) -> None:
    model, tokens_BL = _model(family, positions=positions), cases.tokens(1, 9)
    swapped = tokens_BL[:, [0, 1, 3, 2, 4, 5, 6, 7, 8]]
    assert cases.difference(model(tokens_BL)[:, -1], model(swapped)[:, -1]) > 1e-3


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_without_positions_the_order_of_earlier_tokens_is_lost(family: str) -> None:
    model, tokens_BL = _model(family, positions="none", num_layers=1), cases.tokens(1, 9)
    swapped = tokens_BL[:, [0, 1, 3, 2, 4, 5, 6, 7, 8]]
    logits = model(tokens_BL)[:, -1]
    assert cases.difference(logits, model(swapped)[:, -1]) <= _scaled_tolerance(logits)


@POSITIONS
@VARIANTS
@LANGUAGE_MODELS
def test_prefill_in_chunks_and_decoding_equal_the_full_forward(family: str, attention: dict, positions: str) -> None:
    model, tokens_BL = _model(family, attention=attention, positions=positions), cases.tokens(2, 23)
    whole, cache = model(tokens_BL), model.make_cache()
    assert cache_offset(cache) == 0
    parts = []
    for start, stop in [(0, 7), (7, 10), *((step, step + 1) for step in range(10, 23))]:
        parts.append(model(tokens_BL[:, start:stop], cache=cache))
        assert cache_offset(cache) == stop
    assert cases.difference(mx.concatenate(parts, axis=1), whole) <= _scaled_tolerance(whole)


@POSITIONS
@LANGUAGE_MODELS
def test_rows_with_different_histories_decode_together(family: str, positions: str) -> None:
    from zoo.layers.caches import RaggedKVCache

    model, lengths = _model(family, positions=positions), (3, 11)
    tokens_BL = cases.tokens(2, 15)
    alone = []
    for row, length in enumerate(lengths):
        cache = model.make_cache()
        model(tokens_BL[row : row + 1, :length], cache=cache)
        alone.append(cache)
    cache = [RaggedKVCache([rows[layer] for rows in alone]) for layer in range(3)]
    for step in range(4):
        column = mx.stack([tokens_BL[row, length + step] for row, length in enumerate(lengths)])[:, None]
        logits = model(column, cache=cache)
        for row, length in enumerate(lengths):
            expected = model(tokens_BL[row : row + 1, : length + step + 1])[:, -1]
            assert cases.difference(logits[row], expected) <= _scaled_tolerance(expected)
    assert cache_offset(cache).tolist() == [7, 15]


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_a_text_longer_than_learned_positions_is_refused(family: str) -> None:
    model = _model(family, positions="learned")
    assert model.config.position_limit == cases.MAX_SEQ_LEN
    assert model(cases.tokens(1, cases.MAX_SEQ_LEN)).shape[1] == cases.MAX_SEQ_LEN
    with pytest.raises(UserError, match=r"^model: max_seq_len must be at least the text's 38 tokens .*; got 37"):
        model(cases.tokens(1, cases.MAX_SEQ_LEN + 1))


@pytest.mark.parametrize("offset", [36, mx.array([3, 36], dtype=mx.int32)], ids=["one history", "ragged"])
def test_decoding_past_learned_positions_is_refused(offset: int | mx.array) -> None:
    model = _model("gpt")
    model.hidden(cases.tokens(2, 1), mask=MaskSpec(causal=True, offset=offset))
    with pytest.raises(UserError, match="at least the text's 38 tokens"):
        model.hidden(cases.tokens(2, 2), mask=MaskSpec(causal=True, offset=offset))


@pytest.mark.parametrize("positions", ["rotary", "alibi", "none"])
@LANGUAGE_MODELS
def test_other_positions_set_no_limit(family: str, positions: str) -> None:
    model = _model(family, positions=positions)
    assert model.config.position_limit is None
    assert mx.all(mx.isfinite(model(cases.tokens(1, cases.MAX_SEQ_LEN + 6)))).item()


@LANGUAGE_MODELS
def test_packed_documents_and_padding_stay_apart(family: str) -> None:
    model, tokens_BL = _model(family, positions="none"), cases.tokens(1, 12)
    segments_BL = mx.array([[0] * 5 + [1] * 7])
    packed = model(tokens_BL, mask=MaskSpec(causal=True, segments_BL=segments_BL))
    assert cases.difference(packed[:, 5:], model(tokens_BL[:, 5:])) <= _scaled_tolerance(packed)
    padded = model(tokens_BL, mask=MaskSpec(causal=True, lengths_B=mx.array([8])))
    assert cases.difference(padded[:, :8], model(tokens_BL[:, :8])) <= _scaled_tolerance(packed)


@LANGUAGE_MODELS
def test_a_language_model_refuses_a_bidirectional_mask(family: str) -> None:
    with pytest.raises(UserError, match=f"causal must be True in a {family}"):
        _model(family)(cases.tokens(1, 3), mask=MaskSpec(causal=False))


def test_logits_are_the_head_over_the_hidden_states() -> None:
    for family in cases.FAMILIES:
        model, tokens_BL = _model(family), cases.tokens(2, 5)
        hidden_BLD = model.hidden(tokens_BL)
        assert hidden_BLD.shape == (2, 5, cases.HIDDEN_SIZE)
        chosen = model.logits(hidden_BLD[:, 3])
        assert cases.difference(chosen, model(tokens_BL)[:, 3]) <= _scaled_tolerance(chosen)


def _gradients(model: Any, tokens_BL: mx.array, mask: MaskSpec | None) -> tuple[mx.array, dict[str, mx.array]]:
    def loss(model: nn.Module) -> mx.array:
        logits = model(tokens_BL[:, :-1], mask=mask)
        return nn.losses.cross_entropy(logits, tokens_BL[:, 1:], reduction="mean")

    value, gradients = nn.value_and_grad(model, loss)(model)
    return value, dict(tree_flatten(gradients))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_recomputing_blocks_changes_no_gradient(family: str, dropout: float) -> None:
    model, tokens_BL = cases.varied(cases.model(family, dropout=dropout)), cases.tokens(3, 14)
    mask = MaskSpec(causal=family != "bert", lengths_B=mx.array([13, 2, 7]))
    mx.random.seed(5)
    loss, kept = _gradients(model, tokens_BL, mask)
    model.checkpoint_gradients()
    mx.random.seed(5)
    loss_again, recomputed = _gradients(model, tokens_BL, mask)
    assert loss.item() == loss_again.item()
    for name, gradient in kept.items():
        assert cases.difference(gradient, recomputed[name]) <= 1e-6 * max(1.0, mx.abs(gradient).max().item()), name


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_a_compiled_step_equals_an_eager_one(family: str, checkpointed: bool) -> None:
    model, tokens_BL = cases.varied(cases.model(family, dropout=0.2)), cases.tokens(2, 9)
    model.checkpoint_gradients(checkpointed)
    mx.random.seed(6)
    loss, eager = _gradients(model, tokens_BL, None)
    mx.random.seed(6)
    state = [model.state, mx.random.state]
    step = mx.compile(functools.partial(_gradients, model, mask=None), inputs=state, outputs=state)
    compiled_loss, compiled = step(tokens_BL)
    assert compiled_loss.item() == pytest.approx(loss.item(), rel=tolerance(mx.float32))
    for name, gradient in eager.items():
        bound = tolerance(mx.float32, gradient=True) * max(1.0, mx.abs(gradient).max().item())
        assert cases.difference(gradient, compiled[name]) <= bound, name


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_dropout_acts_in_training_alone(family: str) -> None:
    model, tokens_BL = cases.varied(cases.model(family, dropout=0.3)), cases.tokens(1, 9)
    assert cases.difference(model(tokens_BL), model(tokens_BL)) > 1e-2
    model.eval()
    assert cases.difference(model(tokens_BL), model(tokens_BL)) == 0
    plain = cases.varied(cases.model(family))
    assert cases.difference(model(tokens_BL), plain(tokens_BL)) == 0


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_useful_operations_are_those_of_the_matrix_products(family: str) -> None:
    length, model = 13, cases.model(family, attention=cases.HYBRID, num_layers=3, num_kv_heads=2)
    D, F, V, H = cases.HIDDEN_SIZE, cases.INTERMEDIATE_SIZE, cases.VOCAB_SIZE, cases.HIDDEN_SIZE // cases.NUM_HEADS
    query, key = np.indices((length, length))
    causal = np.ones_like(query, dtype=bool) if family == "bert" else key <= query
    window = causal & (abs(query - key) < 5)
    scores = 2 * int(window.sum()) + int(causal.sum())
    # Scores and the mixing of values, each a product of width H for each of the heads.
    mixing = 2 * 2 * cases.NUM_HEADS * H * scores
    projections = 2 * D * (2 * D + 2 * 2 * H)
    feed_forward = 2 * D * F * (3 if family == "llama" else 2)
    head = 2 * D * V + (2 * D * D if family == "bert" else 0)
    expected = 3 * (projections + feed_forward) + head + mixing / length
    assert model.flops_per_token(length) == int(expected)


@VARIANTS
@LANGUAGE_MODELS
@pytest.mark.parametrize("length", [1, 4, 9])
def test_cache_bytes_equal_the_real_caches(family: str, attention: dict, length: int) -> None:
    model, cache = _model(family, attention=attention), None
    cache = model.make_cache()
    for step in range(length):
        model(cases.tokens(3, 1, seed=step), cache=cache)
    expected = sum(layer_cache.nbytes for layer_cache in cache)
    assert model.cache_bytes(batch_size=3, length=length, dtype=mx.float32) == expected


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_half_precision_stays_half_precision(family: str) -> None:
    model = cases.model(family)
    model.set_dtype(mx.bfloat16)
    logits = model(cases.tokens(2, 9))
    assert logits.dtype == mx.bfloat16
    assert mx.all(mx.isfinite(logits)).item()
