"""Recall: accuracy of a synthetic task's model at the task's own axes, such as number of pairs, length and depth.

Each setting is asked on examples that neither training nor validation has seen. Accuracy counts answer tokens; its
standard error is clustered by example.
"""

import dataclasses

import numpy as np

from eval.quality.evaluated import Evaluated
from eval.quality.score import Score, clustered_mean
from zoo.config import UserError
from zoo.data.synthetic import Setting

# Batches at each setting where nothing says how many: with 8 examples each, a standard error of 0.05 at most.
DEFAULT_BATCHES = 16


def recall(evaluated: Evaluated) -> list[Score]:
    """Accuracy at every setting of the task's axes.

    Args:
        evaluated: A model that was trained on a synthetic task.

    Returns:
        accuracy over all settings that could be tried first, then at each setting; settings longer than the model's
        positions reach are skipped.

    Raises:
        UserError: If no setting fits the model.
    """
    task = evaluated.task
    assert task is not None, "recall is asked of synthetic tasks only"
    predictor = evaluated.predictor()
    num_batches = DEFAULT_BATCHES if evaluated.max_batches is None else evaluated.max_batches
    correct, weights, scores = [], [], []
    for setting in task.settings():
        if evaluated.too_long(length := task.at(setting).length):
            limit = evaluated.model.config.position_limit
            reason = f"learned positions end at max_seq_len {limit}, before {length} tokens"
            scores.append(_accuracy(setting, skipped=reason))
            continue
        batches = task.test_batches(setting, batch_size=evaluated.batch_size, num_batches=num_batches)
        predictions = predictor.all(batches)
        correct.append(predictions.correct_RL.sum(axis=1))
        weights.append(predictions.weights_RL.sum(axis=1))
        scores.append(_accuracy(setting, correct[-1], weights[-1]))
    if not correct:
        raise UserError(f"tasks: {task.name} has no setting that fits the model; {scores[0].skipped}")
    # Test rows have the same random numbers at every setting: what stands for a row is all that it was asked.
    return [_accuracy({}, np.sum(correct, axis=0), np.sum(weights, axis=0)), *scores]


def _accuracy(
    setting: Setting,
    correct_R: np.ndarray | None = None,
    weights_R: np.ndarray | None = None,
    *,
    skipped: str | None = None,
) -> Score:
    length, num_pairs, depth = (setting.get(axis) for axis in ("length", "num_pairs", "depth"))
    known = {"length", "num_pairs", "depth"}
    assert setting.keys() <= known, f"rows have no column for {sorted(setting.keys() - known)}"
    score = Score(
        metric="accuracy",
        length=None if length is None else int(length),
        num_pairs=None if num_pairs is None else int(num_pairs),
        depth=depth,
        skipped=skipped,
    )
    if correct_R is None or weights_R is None:
        return score
    mean = clustered_mean(correct_R, weights_R)
    return dataclasses.replace(
        score, value=mean.value, standard_error=mean.standard_error, count=round(float(weights_R.sum()))
    )
