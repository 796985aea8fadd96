import dataclasses
import json
import os
import re
import signal

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.training.tiny import TinyLoader, TinyRun, assert_identical
from zoo.checkpoints import History, load_checkpoint
from zoo.config import UserError
from zoo.training import EvaluationStep, NonFiniteError, TrainStep, read_metrics


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon"])
def test_every_optimizer_lowers_the_loss(optimizer, tmp_path):
    run = TinyRun(tmp_path, steps=40)
    choices = {
        "adamw": {"learning_rate": 1e-2},
        "lion": {"learning_rate": 5e-3},
        "muon": {"learning_rate": 5e-2, "adamw_learning_rate": 1e-2},
    }
    run.optimizer_choices = {"name": optimizer, "steps": 40, **choices[optimizer]}
    reason, state, _ = run.go()
    assert reason == "steps"
    assert state.last_loss < state.first_loss - 1


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one(optimizer, accumulation, tmp_path):
    whole = TinyRun(tmp_path / "whole", dropout=0.3, accumulation=accumulation, eval_every=4, checkpoint_every=5)
    parted = TinyRun(tmp_path / "parted", dropout=0.3, accumulation=accumulation, eval_every=4, checkpoint_every=5)
    whole.optimizer_choices = parted.optimizer_choices = {"name": optimizer}
    _, expected_state, expected = whole.go()
    for steps in (3, 7, 12):
        mx.random.seed(steps)
        _, state, found = parted.go(steps=steps)
    assert_identical(expected, found)
    for field in ("step", "tokens", "first_loss", "evaluation"):
        assert getattr(state, field) == getattr(expected_state, field), field
    rows = [[row for row in read_metrics(run.folder / "metrics.jsonl") if row["step"] == 12] for run in (whole, parted)]
    assert rows[0][-1] == rows[1][-1]
    assert mx.array_equal(*(run.model.embed_tokens.weight for run in (whole, parted))).item()


def test_dropout_goes_on_where_it_was(tmp_path):
    run = TinyRun(tmp_path / "a", dropout=0.4)
    run.go(steps=5)
    (key,) = list(mx.random.state)
    expected = key.tolist()
    mx.random.seed(99)
    run.go(steps=5)
    (key,) = list(mx.random.state)
    assert key.tolist() == expected
    assert expected != [0, 5]


def test_metrics_after_the_resumed_step_are_dropped(tmp_path):
    run = TinyRun(tmp_path, log_every=1, checkpoint_every=4)
    run.go(steps=4)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "train_loss": 1.0}) + "\n" + '{"step": 6, "tra')
    run.go()
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if "train_loss" in row]
    assert steps == list(range(1, 13))


def test_rows_of_training_average_by_token(tmp_path):
    run = TinyRun(tmp_path / "coarse", log_every=6)
    run.go()
    fine = TinyRun(tmp_path / "fine", log_every=1)
    fine.go()
    weights = [float(TinyLoader().batch(step).weights_BL.sum()) for step in range(12)]
    losses = [row["train_loss"] for row in read_metrics(tmp_path / "fine" / "metrics.jsonl") if "train_loss" in row]
    coarse = [row["train_loss"] for row in read_metrics(tmp_path / "coarse" / "metrics.jsonl") if "train_loss" in row]
    for part, found in zip((slice(0, 6), slice(6, 12)), coarse, strict=True):
        assert found == pytest.approx(np.average(losses[part], weights=weights[part]), rel=1e-12)


class PoisonedLoader(TinyLoader):
    """Infinite weights in one batch."""

    def __init__(self, poisoned_step: int) -> None:
        super().__init__()
        self.poisoned_step = poisoned_step

    def batch(self, step):
        batch = super().batch(step)
        if step != self.poisoned_step:
            return batch
        weights = batch.weights_BL.copy()
        weights[2, 0] = np.inf
        return dataclasses.replace(batch, weights_BL=weights, identity="the poisoned rows")


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    run = TinyRun(tmp_path, loader=PoisonedLoader(7), checkpoint_every=3)
    with pytest.raises(NonFiniteError) as caught:
        run.go()
    good = tmp_path / "checkpoints" / "step_000006"
    message = str(caught.value)
    assert "step 8" in message
    assert "the poisoned rows" in message
    assert str(good) in message
    assert "\n" not in message
    assert History(tmp_path / "checkpoints").newest() == good
    weights = load_checkpoint(good).model.embed_tokens.weight
    assert mx.all(mx.isfinite(weights)).item()


def test_weights_that_explode_in_a_good_step_never_reach_a_checkpoint(tmp_path):
    run = TinyRun(tmp_path, checkpoint_every=1)
    run.optimizer_choices = {"name": "adamw", "learning_rate": 1e30, "schedule": "constant", "warmup_fraction": 0.0}
    with pytest.raises(NonFiniteError, match=r"step 1: the loss of the next batch is nan.*no checkpoint was saved"):
        run.go()
    assert History(tmp_path / "checkpoints").steps() == []


def test_a_weight_that_overflowed_unseen_by_the_loss_never_reaches_a_checkpoint(tmp_path):
    class Saboteur(TinyLoader):
        def batch(self, step):
            if step == 5:
                # No row of the corpus is so long that its loss would see the last position.
                table = run.model.embed_positions.weight
                run.model.embed_positions.weight = mx.concatenate([table[:-1], mx.full((1, table.shape[1]), mx.inf)])
            return super().batch(step)

    run = TinyRun(tmp_path, checkpoint_every=2)
    run.loader = Saboteur()
    with pytest.raises(NonFiniteError, match=r"largest weight of embed_positions\.weight is inf") as caught:
        run.go()
    assert "step_000004" in str(caught.value)
    assert History(tmp_path / "checkpoints").steps() == [2, 4]


def test_a_validation_loss_that_is_no_number_ends_the_run(tmp_path):
    class BadValidation(TinyLoader):
        def validation_batches(self, limit):
            for batch in super().validation_batches(limit):
                yield dataclasses.replace(batch, weights_BL=batch.weights_BL * np.nan)

    run = TinyRun(tmp_path, loader=BadValidation(), checkpoint_every=3, eval_every=4)
    with pytest.raises(NonFiniteError, match=r"step 4: the validation loss is nan; .*step_000003"):
        run.go()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(number, tmp_path):
    class SignallingLoader(TinyLoader):
        def batch(self, step):
            if step == 5:
                os.kill(os.getpid(), number)
            return super().batch(step)

    run = TinyRun(tmp_path, loader=SignallingLoader())
    before = signal.getsignal(number)
    reason, state, _ = run.go()
    assert (reason, state.step) == ("signal", 5)
    assert History(tmp_path / "checkpoints").steps() == [5]
    assert signal.getsignal(number) is before
    run.loader = TinyLoader()
    reason, state, found = run.go()
    assert (reason, state.step) == ("steps", 12)
    _, _, expected = TinyRun(tmp_path / "uninterrupted").go()
    assert_identical(expected, found)


def test_a_signal_does_not_wait_for_an_evaluation_which_is_made_up_for(tmp_path):
    class SignallingLoader(TinyLoader):
        def validation_batches(self, limit):
            for batch in super().validation_batches(limit):
                os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    run = TinyRun(tmp_path, loader=SignallingLoader(), eval_every=4)
    reason, state, _ = run.go()
    assert (reason, state.step, state.evaluation) == ("signal", 4, {})
    run.loader = TinyLoader()
    run.go()
    evaluations = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if "val_loss" in row]
    assert evaluations == [4, 8, 12]


@pytest.mark.parametrize("when", ["the first step", "an evaluation", "a save"])
def test_a_ctrl_c_that_kills_the_compiler_is_a_clean_stop(when, tmp_path, monkeypatch):
    kind = {"the first step": TrainStep, "an evaluation": EvaluationStep, "a save": EvaluationStep}[when]
    original, died = kind.__call__, []

    def dying(self, *arguments):
        if not died:
            died.append(True)
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("[Compile::eval_cpu] Failed to compile function")
        return original(self, *arguments)

    run = TinyRun(tmp_path, eval_every=4 if when == "an evaluation" else None, checkpoint_every=5)
    with monkeypatch.context() as patched:
        patched.setattr(kind, "__call__", dying)
        if when == "the first step":
            with pytest.raises(KeyboardInterrupt):
                run.go()
        else:
            assert run.go()[0] == "signal"
    # The save that was due is followed by the one at the end.
    saved = {"the first step": [], "an evaluation": [4], "a save": [5, 6]}
    assert History(tmp_path / "checkpoints").steps() == saved[when]
    _, _, found = run.go()
    _, _, expected = TinyRun(tmp_path / "uninterrupted").go()
    assert_identical(expected, found)


def test_an_error_without_a_signal_is_an_error(tmp_path, monkeypatch):
    def broken(self, *arguments):
        raise RuntimeError("out of memory")

    for kind in (TrainStep, EvaluationStep):
        run = TinyRun(tmp_path / kind.__name__, eval_every=1)
        with monkeypatch.context() as patched:
            patched.setattr(kind, "__call__", broken)
            with pytest.raises(RuntimeError, match="out of memory"):
                run.go()


def test_a_time_limit_stops_cleanly_and_more_time_goes_on(tmp_path):
    run = TinyRun(tmp_path)
    reason, state, _ = run.go(max_seconds=1e-9)
    assert (reason, state.step) == ("max_seconds", 0)
    reason, state, found = run.go(max_seconds=1e9)
    assert (reason, state.step) == ("steps", 12)
    _, _, expected = TinyRun(tmp_path / "unlimited").go()
    assert_identical(expected, found)


@pytest.fixture
def judged_run(tmp_path):
    """A run without a tokenizer, whose accuracy is measured."""
    run = TinyRun(tmp_path, eval_every=2, steps=40)
    run.tokenizer = None
    return run


def accuracies(run) -> list[tuple[int, float]]:
    rows = read_metrics(run.folder / "metrics.jsonl")
    return [(row["step"], row["val_accuracy"]) for row in rows if "val_accuracy" in row]


def test_the_first_evaluation_that_reaches_the_target_ends_the_run(judged_run):
    reason, _, _ = judged_run.go()
    assert reason == "steps"
    found = accuracies(judged_run)
    target = sorted(accuracy for _, accuracy in found)[len(found) // 2]
    first = next(step for step, accuracy in found if accuracy >= target)
    assert first < 40
    again = TinyRun(judged_run.folder / "again", eval_every=2, steps=40, target_accuracy=target)
    again.tokenizer = None
    reason, state, weights = again.go()
    assert (reason, state.step, state.evaluation["step"]) == ("target_accuracy", first, first)
    assert accuracies(again) == [row for row in found if row[0] <= first]
    assert History(again.folder / "checkpoints").newest().name == f"step_{first:06d}"
    # Resumed, it has ended already; without the target it goes on as if there had never been one.
    reason, state, unchanged = again.go()
    assert (reason, state.step) == ("target_accuracy", first)
    assert_identical(weights, unchanged)
    reason, state, further = again.go(target_accuracy=None)
    assert (reason, state.step) == ("steps", 40)
    assert_identical(judged_run.arrays(), further)


def test_a_language_model_on_text_has_no_accuracy(tmp_path):
    run = TinyRun(tmp_path, eval_every=6)
    run.go()
    assert [accuracy for _, accuracy in accuracies(run)] == [None, None]


def test_only_the_newest_checkpoints_stay(tmp_path):
    run = TinyRun(tmp_path, checkpoint_every=2, keep_checkpoints=3)
    run.go()
    assert History(tmp_path / "checkpoints").steps() == [8, 10, 12]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_a_checkpoint_of_a_damaged_run_is_refused_on_resuming(tmp_path):
    run = TinyRun(tmp_path)
    run.go()
    weights = tmp_path / "checkpoints" / "step_000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=re.escape(str(weights))):
        run.go(steps=14)
