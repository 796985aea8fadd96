"""Recall: by likelihood at the axes of the synthetic task that was trained, and by what a model of text writes.

A synthetic task has axes such as number of pairs, length and depth. Each setting is asked on examples that neither
training nor validation has seen. Accuracy counts answer tokens; its standard error is clustered by example.

Log-likelihood can hide that a model never finds its way to the answer. A model of text therefore writes the answer
token by token, greedily, and it is right or not. By chance a model that knows that one of the numbers it has read is
asked for is right once in as many times as there are pairs; one that only knows that it is a number, once in 900.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.quality import Score, clustered_mean, score_of
from eval.quality.tasks import DECODING, RUNNING_TEXT, Evaluated, Need, QualityTask
from zoo.config import UserError
from zoo.data import SyntheticTask
from zoo.data.questions import Question, needle_question, recall_question
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.generation import GenerationConfig, generate_batch

# Batches at each setting where nothing says how many: with 8 examples each, a standard error of 0.05 at most.
_DEFAULT_BATCHES = 16
_NUM_PAIRS, _DEPTHS = (2, 4, 8), (0.1, 0.5, 0.9)
# A standard error of 0.09 at most; a large model takes a second for each.
_MOST = 32
# A space, three digits, and the sign that ends a number, if each is a token.
_ANSWER_TOKENS = 6


def recall(evaluated: Evaluated) -> list[Score]:
    """Accuracy of a synthetic task's model, over all settings that could be tried first, then at each setting.

    Settings longer than the model's positions reach are skipped.

    Raises:
        UserError: If no setting fits the model.
    """
    task = evaluated.data
    assert isinstance(task, SyntheticTask), "recall is asked of synthetic tasks only"
    predictor = evaluated.predictor()
    num_batches = _DEFAULT_BATCHES if evaluated.max_batches is None else evaluated.max_batches
    rows, scores = [], []
    settings: Sequence[Mapping[str, Any]] = task.settings()
    for setting in settings:
        reason = evaluated.too_long(task.at(setting).length)
        if reason is not None:
            scores.append(Score(metric="accuracy", skipped=reason, **setting))
            continue
        found = predictor(task.test_batches(setting, batch_size=evaluated.batch_size, num_batches=num_batches))
        rows.append((found.correct_RL.sum(axis=1), found.weights_RL.sum(axis=1)))
        scores.append(_accuracy(*rows[-1], **setting))
    if not rows:
        raise UserError(f"tasks: {task.name} has no setting that fits the model; {scores[0].skipped}")
    # Test rows have the same random numbers at every setting: what stands for a row is all that it was asked.
    return [_accuracy(*np.sum(rows, axis=0)), *scores]


def generated_recall(evaluated: Evaluated) -> list[Score]:
    """Share of the names whose number the model writes: over all numbers of pairs first, then at each."""
    numbers = range(min(_MOST, evaluated.batch_size * (evaluated.max_batches or _MOST)))
    asked = {
        num_pairs: [recall_question(number, num_pairs=num_pairs, seed=evaluated.seed) for number in numbers]
        for num_pairs in _NUM_PAIRS
    }
    return _answered(evaluated, "num_pairs", asked)


def generated_needle(evaluated: Evaluated) -> list[Score]:
    """Share of the sentences in rows of held-out text whose number the model writes: over all depths, then at each."""
    tokenizer, seed = evaluated.tokenizer, evaluated.seed
    question = needle_question(0, "", depth=0, seed=seed)
    # Other names and numbers may have a few tokens more.
    length = evaluated.sequence_length - len(tokenizer.encode(question.prompt)) - 2 * _ANSWER_TOKENS
    if length < 1:
        reason = f"rows of {evaluated.sequence_length} tokens have no room for text beside the sentence"
        return [Score(metric="accuracy", skipped=reason)]
    rows = (
        row[:length].tolist()
        for batch in evaluated.text_batches()
        for row, read in zip(batch.inputs_BL, batch.weights_BL, strict=True)
        if read.any()
    )
    texts = [tokenizer.decode(row) for row in itertools.islice(rows, _MOST)]
    asked = {
        depth: [needle_question(number, text, depth=depth, seed=seed) for number, text in enumerate(texts)]
        for depth in _DEPTHS
    }
    return _answered(evaluated, "depth", asked)


def _answered(evaluated: Evaluated, axis: str, asked: Mapping[Any, Sequence[Question]]) -> list[Score]:
    """The share of the questions that the model answers: over all first, then at each value of the axis."""
    config, size = GenerationConfig(max_tokens=_ANSWER_TOKENS), evaluated.batch_size
    right: dict[Any, list[bool]] = {value: [] for value in asked}
    for value, questions in asked.items():
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            results = generate_batch(evaluated.model, evaluated.tokenizer, [each.prompt for each in part], config)
            right[value] += [each.is_answered_by(result.text) for each, result in zip(part, results, strict=True)]
    parts = [_accuracy(own, np.ones(len(own)), **{axis: value}) for value, own in right.items()]
    whole = [each for own in right.values() for each in own]
    return [_accuracy(whole, np.ones(len(whole))), *parts]


def _accuracy(right_R: Sequence[float] | np.ndarray, weights_R: np.ndarray, **setting: Any) -> Score:
    mean = clustered_mean(np.asarray(right_R, dtype=float), weights_R)
    return score_of("accuracy", mean, count=weights_R.sum(), **setting)


def _trained_on(name: str) -> Need:
    otherwise = f"its tokens mean nothing to a model that was trained on {{data}}; train with data={name}"
    return Need(lambda it: it.data.name == name, otherwise)


TASKS = (
    QualityTask(name="generated_recall", needs=DECODING, measure=generated_recall, on_request=True),
    QualityTask(name="generated_needle", needs=(*DECODING, *RUNNING_TEXT), measure=generated_needle, on_request=True),
    *(QualityTask(name=name, needs=(_trained_on(name),), measure=recall) for name in SYNTHETIC_TASKS),
)
