"""Language, positions, extrapolation and masked tokens: the same sums as in training, taken apart."""

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
from zoo.training import EvaluationStep, StepOptions, evaluate


def trainers_own(model, data, limit):
    """What the training loop reports of the same batches."""
    loader = data.loader("validation", causal=model.config.causal, batch_size=3, sequence_length=37, seed=9)
    step = EvaluationStep(model, StepOptions(causal=model.config.causal, compile=False))
    found = evaluate(model, step, loader.validation_batches(limit), data.tokenizer.token_byte_lengths())
    model.eval()
    return found


@pytest.mark.parametrize(("family", "task", "limit"), [("gpt", language, 1), ("gpt", language, 4), ("bert", masked, 4)])
def test_the_figures_are_the_trainers_own(data, family, task, limit):
    model = random_model(family)
    ours = {score.metric: score for score in task(reads_text(model, data, max_batches=limit))}
    theirs = trainers_own(model, data, limit)
    expected = {**vars(theirs), "perplexity": math.exp(theirs.loss)}
    assert {score.count for score in ours.values()} == {theirs.tokens}
    for metric, score in ours.items():
        assert score.value == pytest.approx(expected[metric], rel=1e-5 if metric == "perplexity" else 1e-6)


@pytest.mark.parametrize("metric", ["loss", "bits_per_byte"])
def test_positions_average_to_the_total(data, metric):
    model = random_model()
    total = {score.metric: score.value for score in language(reads_text(model, data))}[metric]
    binned = [score for score in positions(reads_text(model, data)) if score.position is not None]
    chosen = [score for score in binned if score.metric == metric]
    assert [score.position for score in chosen] == [0, 1, 2, 4, 8, 16, 32]
    # All targets of a bin stand for one byte each but a document's end.
    mean = np.average([score.value for score in chosen], weights=[score.count for score in chosen])
    assert mean == pytest.approx(total, rel=1e-9 if metric == "loss" else 0.01)


@pytest.mark.parametrize("length", [1, 2, 3, 37, 64, 65])
def test_bins_cover_a_row_once(length):
    covered = [position for start, end in bins(length) for position in range(start, end)]
    assert covered == list(range(length))


def test_a_fault_at_one_position_shows_from_its_bin_on(data):
    model = random_model(num_layers=1)
    plain = {score.position: score for score in positions(reads_text(model, data)) if score.metric == "loss"}
    # A wrecked embedding of position 20 is seen by later queries too, but never by earlier ones.
    model.embed_positions.weight = model.embed_positions.weight.at[20].add(100.0)
    wrecked = {score.position: score for score in positions(reads_text(model, data)) if score.metric == "loss"}
    changed = {start for start in plain if wrecked[start].value != plain[start].value}
    assert changed == {16, 32}


@pytest.mark.parametrize(
    ("choices", "tried"),
    [
        ({"max_seq_len": 40}, [37]),
        ({"max_seq_len": 80}, [74, 37]),
        ({"max_seq_len": 40, "positions": "rotary"}, [148, 74, 37]),
    ],
)
def test_no_position_is_fed_beyond_what_the_model_knows(data, monkeypatch, choices, tried):
    model = random_model(**choices)
    lengths = []
    hidden = type(model).hidden

    def spy(self: Any, tokens_BL: mx.array, **rest: Any) -> mx.array:
        lengths.append(tokens_BL.shape[1])
        return hidden(self, tokens_BL, **rest)

    monkeypatch.setattr(type(model), "hidden", spy)
    scores = extrapolation(reads_text(model, data))
    assert sorted(set(lengths)) == sorted(tried)
    assert [score.length for score in scores if score.skipped is None] == tried
    skipped = [score for score in scores if score.skipped is not None]
    assert {score.length for score in scores} == {37, 74, 148}
    assert all(f"max_seq_len {choices['max_seq_len']}" in score.skipped for score in skipped)
    assert all(score.value is None for score in skipped)
    # The same amount of text at each length.
    counts = [score.count for score in scores if score.count is not None]
    assert max(counts) <= 1.2 * min(counts)


def test_text_that_fills_no_row_of_that_length_is_not_passed_off_as_one(data):
    data = holding(data, data.corpus.validation.tokens_T[:601])
    enough = 600
    model = random_model(positions="rotary")
    scores = extrapolation(reads_text(model, data, sequence_length=200, batch_size=1, max_batches=1))
    assert [score.skipped is None for score in scores] == [True, True, False]
    assert f"has {enough} tokens" in scores[-1].skipped


def test_what_is_no_number_is_a_reason_and_not_a_value(data):
    model = random_model()
    model.norm.weight = model.norm.weight * math.nan
    for score in language(reads_text(model, data)):
        assert (score.value, score.standard_error) == (None, None)
        assert "nan" in score.skipped
    model = random_model(init_std=1e3)
    perplexity = language(reads_text(model, data))[2]
    assert "perplexity must be a finite number; it is inf" in perplexity.skipped


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_that_predict_nothing_change_nothing(data, compiled):
    """Rows of one token, some of which are a document's end: a batch of nothing else hides no token."""
    model = random_model("bert")
    settings = {"sequence_length": 1, "max_batches": None, "compile": compiled}
    asked = [reads_text(model, few_ends(data), batch_size=size, **settings) for size in (1, 7)]
    alone, together = ({score.metric: score for score in masked(each)} for each in asked)
    for metric, score in together.items():
        assert alone[metric].value == pytest.approx(score.value, rel=1e-6)
        assert alone[metric].count == score.count
    loader = few_ends(data).loader("validation", causal=False, batch_size=1, sequence_length=1, seed=0)
    step = EvaluationStep(model, StepOptions(causal=False, compile=compiled))
    found = evaluate(model, step, loader.validation_batches(), data.tokenizer.token_byte_lengths())
    model.eval()
    assert found.loss == pytest.approx(together["loss"].value, rel=1e-6)


def few_ends(data):
    """The beginning of the held-out text, with a document's end here and there."""
    tokens_T = np.array(data.corpus.validation.tokens_T[:23])
    tokens_T[[0, 5, 6, 11]] = data.tokenizer.eos_id
    return holding(data, tokens_T)


def holding(data, tokens_T):
    """The data with other held-out tokens."""
    validation = dataclasses.replace(data.corpus.validation, tokens_T=tokens_T)
    return dataclasses.replace(data, corpus=dataclasses.replace(data.corpus, validation=validation))


def test_an_ablation_names_each_variant_of_a_hybrid_and_its_whole_is_the_languages_own(data):
    hybrid = {"name": "pair", "layer_pattern": [variant_mapping("mha"), variant_mapping("swa")]}
    evaluated = reads_text(random_model(num_layers=2, attention=hybrid), data)
    scores = {score.metric: score.value for score in ablation(evaluated)}
    assert list(scores) == ["bits_per_byte", *(f"bits_per_byte without {each}" for each in ("attention", "mha", "swa"))]
    assert scores["bits_per_byte"] == language(evaluated)[0].value
    assert len(set(scores.values())) == 4
