"""The figures of training, which `test_evaluate` compares, taken apart by position and at other lengths."""

import dataclasses
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from eval.quality.tasks.language import bins, extrapolation, language, masked, positions
from eval.quality.tasks.surgery import ablation
from tests.eval.quality.models import random_model, reads_text
from zoo.attention.catalog import variant_mapping


def holding(data, tokens_T):
    """The data with other held-out tokens."""
    validation = dataclasses.replace(data.corpus.validation, tokens_T=tokens_T)
    return dataclasses.replace(data, corpus=dataclasses.replace(data.corpus, validation=validation))


def test_positions_average_to_the_total(data):
    evaluated = reads_text(random_model(), data)
    total = {score.metric: score.value for score in language(evaluated)}
    assert total["perplexity"] == pytest.approx(math.exp(total["loss"]))
    binned = [score for score in positions(evaluated) if score.position is not None]
    for metric, tolerance in (("loss", 1e-9), ("bits_per_byte", 0.01)):
        chosen = [score for score in binned if score.metric == metric]
        assert [score.position for score in chosen] == [0, 1, 2, 4, 8, 16, 32]
        # All targets of a bin stand for one byte each but a document's end.
        mean = np.average([score.value for score in chosen], weights=[score.count for score in chosen])
        assert mean == pytest.approx(total[metric], rel=tolerance)


@pytest.mark.parametrize("length", [1, 2, 3, 37, 64, 65])
def test_bins_cover_a_row_once(length):
    covered = [position for start, end in bins(length) for position in range(start, end)]
    assert covered == list(range(length))


def test_a_fault_at_one_position_shows_from_its_bin_on(data):
    def losses():
        return {score.position: score.value for score in positions(reads_text(model, data)) if score.metric == "loss"}

    model = random_model(num_layers=1)
    plain = losses()
    # A wrecked embedding of position 20 is seen by later queries too, but never by earlier ones.
    model.embed_positions.weight = model.embed_positions.weight.at[20].add(100.0)
    assert {start for start, value in losses().items() if value != plain[start]} == {16, 32}


@pytest.mark.parametrize(
    ("choices", "tried"),
    [
        ({"max_seq_len": 40}, [37]),
        ({"max_seq_len": 80}, [74, 37]),
        ({"max_seq_len": 40, "positions": "rotary"}, [148, 74, 37]),
    ],
)
def test_no_position_is_fed_beyond_what_the_model_knows(data, monkeypatch, choices, tried):
    model, lengths = random_model(**choices), set()
    hidden = type(model).hidden

    def spy(self: Any, tokens_BL: mx.array, **rest: Any) -> mx.array:
        lengths.add(tokens_BL.shape[1])
        return hidden(self, tokens_BL, **rest)

    monkeypatch.setattr(type(model), "hidden", spy)
    scores = extrapolation(reads_text(model, data))
    assert lengths == set(tried)
    assert {score.length for score in scores} == {37, 74, 148}
    measured, skipped = scores[: len(tried)], scores[len(tried) :]
    assert [score.length for score in measured] == tried
    assert all(score.value is None and f"max_seq_len {choices['max_seq_len']}" in score.skipped for score in skipped)
    # The same amount of text at each length.
    counts = [score.count for score in measured]
    assert max(counts) <= 1.2 * min(counts)


def test_text_that_fills_no_row_of_that_length_is_not_passed_off_as_one(data):
    own, model = holding(data, data.corpus.validation.tokens_T[:601]), random_model(positions="rotary")
    scores = extrapolation(reads_text(model, own, sequence_length=200, batch_size=1, max_batches=1))
    assert [score.skipped is None for score in scores] == [True, True, False]
    assert "has 600 tokens" in scores[-1].skipped


def test_what_is_no_number_is_a_reason_and_not_a_value(data):
    model = random_model()
    model.norm.weight = model.norm.weight * math.nan
    for score in language(reads_text(model, data)):
        assert (score.value, score.standard_error) == (None, None)
        assert "nan" in score.skipped
    perplexity = language(reads_text(random_model(init_std=1e3), data))[2]
    assert "perplexity must be a finite number; it is inf" in perplexity.skipped


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_that_predict_nothing_change_nothing(data, compiled):
    """Rows of one token, some of which are a document's end: a batch of nothing else hides no token."""
    tokens_T = np.array(data.corpus.validation.tokens_T[:23])
    tokens_T[[0, 5, 6, 11]] = data.tokenizer.eos_id
    model, own = random_model("bert"), holding(data, tokens_T)
    settings = {"sequence_length": 1, "max_batches": None, "compile": compiled}
    alone, together = (masked(reads_text(model, own, batch_size=size, **settings)) for size in (1, 7))
    assert [score.count for score in alone] == [score.count for score in together]
    assert [score.value for score in alone] == pytest.approx([score.value for score in together], rel=1e-6)


def test_an_ablation_names_each_variant_of_a_hybrid_and_its_whole_is_the_languages_own(data):
    hybrid = {"name": "pair", "layer_pattern": [variant_mapping("mha"), variant_mapping("swa")]}
    evaluated = reads_text(random_model(num_layers=2, attention=hybrid), data)
    scores = {score.metric: score.value for score in ablation(evaluated)}
    assert list(scores) == ["bits_per_byte", *(f"bits_per_byte without {each}" for each in ("attention", "mha", "swa"))]
    assert scores["bits_per_byte"] == language(evaluated)[0].value
    assert len(set(scores.values())) == 4
