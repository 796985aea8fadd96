"""BERT against its definition."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.models import cases, reference
from zoo.config import UserError
from zoo.ops.masks import MaskSpec

SHAPE = {"num_layers": 2, "num_heads": cases.NUM_HEADS, "eps": 1e-12}
LENGTHS = np.array([17, 1, 9])


@pytest.fixture(scope="module")
def bert():
    return cases.varied(cases.model("bert", num_token_types=3, num_classes=5))


def _assert_close(actual: mx.array, expected: np.ndarray) -> None:
    # The tolerance is for values of order 1.
    assert np.abs(np.array(actual) - expected).max() <= tolerance(mx.float32) * max(1.0, np.abs(expected).max())


def test_both_heads_equal_the_definition(bert) -> None:
    tokens_BL = cases.tokens(3, 17)
    types_BL = np.random.default_rng(3).integers(0, 3, (3, 17))
    mask = MaskSpec(causal=False, lengths_B=mx.array(LENGTHS))
    weights = reference.weights_of(bert)
    expected = reference.bert_hidden(weights, np.array(tokens_BL), types_BL, LENGTHS, **SHAPE)
    valid = np.arange(17) < LENGTHS[:, None]
    hidden_BLD = bert.hidden(tokens_BL, mask=mask, token_types_BL=mx.array(types_BL))
    _assert_close(np.array(hidden_BLD)[valid], expected[valid])
    logits = np.array(bert.logits(hidden_BLD))
    _assert_close(logits[valid], reference.bert_logits(weights, expected, eps=1e-12)[valid])
    classes = bert.classify(tokens_BL, mask=mask, token_types_BL=mx.array(types_BL))
    _assert_close(classes, reference.bert_classes(weights, expected))


def test_token_type_0_is_the_default(bert) -> None:
    tokens_BL = cases.tokens(2, 7)
    zeros, ones = mx.zeros((2, 7), dtype=mx.int32), mx.ones((2, 7), dtype=mx.int32)
    assert cases.difference(bert.hidden(tokens_BL), bert.hidden(tokens_BL, token_types_BL=zeros)) == 0
    assert cases.difference(bert.hidden(tokens_BL), bert.hidden(tokens_BL, token_types_BL=ones)) > 0.1


@pytest.mark.parametrize("positions", cases.POSITIONS)
def test_every_token_sees_every_token(positions: str) -> None:
    model = cases.varied(cases.model("bert", positions=positions))
    tokens_BL = cases.tokens(1, 11)
    for position in (0, 5, 10):
        changed = tokens_BL + (mx.arange(11) == position)
        change_L = mx.abs(model.hidden(changed % cases.VOCAB_SIZE) - model.hidden(tokens_BL)).max(axis=-1)[0]
        assert change_L.min().item() > 1e-3


def test_an_untied_head_has_weights_of_its_own() -> None:
    tied, untied = cases.model("bert"), cases.model("bert", tie_word_embeddings=False)
    assert untied.num_parameters() - tied.num_parameters() == cases.VOCAB_SIZE * cases.HIDDEN_SIZE
    assert untied(cases.tokens(1, 3)).shape == (1, 3, cases.VOCAB_SIZE)


def test_an_encoder_refuses_to_decode(bert) -> None:
    with pytest.raises(UserError, match="only causal models can decode"):
        bert.make_cache()
    with pytest.raises(UserError, match="an encoder must not be given a cache"):
        bert(cases.tokens(1, 3), cache=[])


def test_an_encoder_refuses_a_causal_mask(bert) -> None:
    with pytest.raises(UserError, match="causal must be False in a bert"):
        bert(cases.tokens(1, 3), mask=MaskSpec(causal=True))
