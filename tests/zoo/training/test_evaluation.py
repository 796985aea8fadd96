import dataclasses
import math

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.training.tiny import TOKENIZER, TinyLoader, tiny_model
from zoo.training.evaluation import evaluate
from zoo.training.step import EvaluationStep, StepOptions


def evaluated(batches, model):
    step = EvaluationStep(model, StepOptions(causal=True, compile=False))
    return evaluate(model, step, batches, TOKENIZER.token_byte_lengths())


def reference_nats(model, batches):
    total = 0.0
    for batch in batches:
        logits = np.array(model(mx.array(batch.inputs_BL))).astype(np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= (np.take_along_axis(logits, batch.targets_BL[..., None], -1)[..., 0] * batch.weights_BL).sum()
    return total


def test_loss_and_bits_per_byte_are_exact_over_unequal_batches():
    model = tiny_model()
    batches = [TinyLoader(rows).batch(rows) for rows in (2, 5)]
    # A document's end counts its nats, but stands for no byte.
    targets = batches[0].targets_BL.copy()
    targets[0, :4] = TOKENIZER.eos_id
    batches[0] = dataclasses.replace(batches[0], targets_BL=targets)
    found = evaluated(batches, model)
    nats = reference_nats(model, batches)
    weight = sum(batch.weights_BL.sum() for batch in batches)
    num_bytes = sum((TOKENIZER.token_byte_lengths()[batch.targets_BL] * batch.weights_BL).sum() for batch in batches)
    assert num_bytes < weight
    assert found.tokens == weight
    assert found.loss == pytest.approx(nats / weight, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6)


def test_accuracy_is_the_weighted_share_of_first_guesses_that_are_right():
    model = tiny_model()
    batches = [TinyLoader(rows).batch(rows) for rows in (2, 5)]
    guesses = [np.array(mx.argmax(model(mx.array(batch.inputs_BL)), axis=-1)) for batch in batches]
    # A third of the targets are what the untrained model guesses.
    mostly_wrong = [
        dataclasses.replace(batch, targets_BL=np.where(np.arange(13) % 3 == 0, guess, batch.targets_BL))
        for batch, guess in zip(batches, guesses, strict=True)
    ]
    right = [
        ((guess == batch.targets_BL) * batch.weights_BL).sum()
        for batch, guess in zip(mostly_wrong, guesses, strict=True)
    ]
    found = evaluated(mostly_wrong, model)
    assert found.accuracy == pytest.approx(sum(right) / found.tokens, rel=1e-6)
    assert 0.2 < found.accuracy < 0.9


def test_tokens_that_are_no_text_have_no_bits_per_byte():
    batches, model = [TinyLoader().batch(0)], tiny_model()
    found = evaluate(model, EvaluationStep(model, StepOptions(causal=True, compile=False)), batches, None)
    assert found.bits_per_byte is None
    assert found.loss == pytest.approx(evaluated(batches, model).loss)


def test_targets_without_bytes_have_no_bits_per_byte():
    batch = TinyLoader().batch(0)
    batch = dataclasses.replace(batch, targets_BL=np.full_like(batch.targets_BL, TOKENIZER.eos_id))
    assert evaluated([batch], tiny_model()).bits_per_byte is None


def test_dropout_is_off_during_an_evaluation_and_on_after_it():
    plain, dropping = tiny_model(), tiny_model(dropout=0.5)
    batches = [TinyLoader().batch(3)]
    dropping.train()
    assert evaluated(batches, dropping).loss == pytest.approx(evaluated(batches, plain).loss, rel=1e-6)
    assert dropping.training
