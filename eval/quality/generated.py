"""Recall by generation: a model writes the answer token by token, greedily, and it is right or not.

Log-likelihood can hide that a model never finds its way to the answer. By chance a model that knows that one of the
numbers it has read is asked for is right once in as many times as there are pairs; one that only knows that it is a
number, once in 900.

Beside it: bits per byte with attention and with it switched off. A model that predicts as well without an attention has
learnt to go round it.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.quality.evaluated import Evaluated
from eval.quality.language import bits_per_byte, num_targets
from eval.quality.score import Score, clustered_mean, score_of
from zoo.data.questions import Question, needle_question, recall_question
from zoo.generation import GenerationConfig, generate_batch
from zoo.models.silence import silenced

_NUM_PAIRS, _DEPTHS = (2, 4, 8), (0.1, 0.5, 0.9)
# A standard error of 0.09 at most; a large model takes a second for each.
_MOST = 32
# A space, three digits, and the sign that ends a number, if each is a token.
_ANSWER_TOKENS = 6


def generated_recall(evaluated: Evaluated) -> list[Score]:
    """Share of the names whose number the model writes: over all numbers of pairs first, then at each."""
    count = min(_MOST, evaluated.batch_size * (evaluated.max_batches or _MOST))
    seed = evaluated.seed
    asked = {
        pairs: [recall_question(number, num_pairs=pairs, seed=seed) for number in range(count)] for pairs in _NUM_PAIRS
    }
    right = {pairs: _answered(evaluated, questions) for pairs, questions in asked.items()}
    return [
        _score([*itertools.chain(*right.values())]),
        *(_score(each, num_pairs=pairs) for pairs, each in right.items()),
    ]


def generated_needle(evaluated: Evaluated) -> list[Score]:
    """Share of the sentences in rows of held-out text whose number the model writes: over all depths, then at each."""
    tokenizer = evaluated.tokenizer
    assert tokenizer is not None, "a model of text has a tokenizer"
    question = needle_question(0, "", depth=0, seed=evaluated.seed)
    # Other names and numbers may have a few tokens more.
    length = evaluated.sequence_length - len(tokenizer.encode(question.prompt)) - 2 * _ANSWER_TOKENS
    if length < 1:
        reason = f"rows of {evaluated.sequence_length} tokens have no room for text beside the sentence"
        return [Score(metric="accuracy", skipped=reason)]
    rows: list[list[int]] = []
    for batch in evaluated.text_batches():
        rows += [
            row[:length].tolist() for row, read in zip(batch.inputs_BL, batch.weights_BL, strict=True) if read.any()
        ]
        if len(rows) >= _MOST:
            break
    texts = [tokenizer.decode(row) for row in rows[:_MOST]]
    right = {
        depth: _answered(
            evaluated,
            [needle_question(number, text, depth=depth, seed=evaluated.seed) for number, text in enumerate(texts)],
        )
        for depth in _DEPTHS
    }
    return [
        _score([*itertools.chain(*right.values())]),
        *(_score(each, depth=depth) for depth, each in right.items()),
    ]


def _answered(evaluated: Evaluated, questions: Sequence[Question]) -> list[bool]:
    tokenizer, right = evaluated.tokenizer, []
    assert tokenizer is not None, "a model of text has a tokenizer"
    config = GenerationConfig(max_tokens=_ANSWER_TOKENS)
    for start in range(0, len(questions), evaluated.batch_size):
        part = questions[start : start + evaluated.batch_size]
        results = generate_batch(evaluated.model, tokenizer, [each.prompt for each in part], config)
        right += [each.is_answered_by(result.text) for each, result in zip(part, results, strict=True)]
    return right


def _score(right: Sequence[bool], **where: Any) -> Score:
    mean = clustered_mean(np.array(right, dtype=float), np.ones(len(right)))
    return Score(metric="accuracy", value=mean.value, standard_error=mean.standard_error, count=len(right), **where)


def ablation(evaluated: Evaluated) -> list[Score]:
    """Bits per byte of a language model, whole and without attention, all of it or of each variant among its layers.

    Args:
        evaluated: With text.
    """
    attention = evaluated.model.config.attention
    names = [attention.layer(index).name for index in range(evaluated.model.config.num_layers)]
    parts = dict.fromkeys(names) if len(set(names)) > 1 else {}
    found = {"bits_per_byte": evaluated.text_predictions}
    for what in ("attention", *parts):
        layers = [index for index, name in enumerate(names) if what in ("attention", name)]
        without = evaluated.predictor(silenced(evaluated.model, layers))
        found[f"bits_per_byte without {what}"] = without.all(evaluated.text_batches())
    return [score_of(name, bits_per_byte(each), count=num_targets(each)) for name, each in found.items()]
