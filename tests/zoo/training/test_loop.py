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
from zoo.training import NonFiniteError, read_metrics


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


def test_an_exploding_learning_rate_never_reaches_a_checkpoint(tmp_path):
    run = TinyRun(tmp_path, checkpoint_every=1, keep_checkpoints=50)
    run.optimizer_choices = {"name": "adamw", "learning_rate": 1e30, "schedule": "constant", "warmup_fraction": 0.0}
    with pytest.raises(NonFiniteError, match="training stopped at step"):
        run.go()
    for step in History(tmp_path / "checkpoints").steps():
        loaded = load_checkpoint(History(tmp_path / "checkpoints").path(step))
        logits = loaded.model(mx.array([[1, 2, 3]]))
        assert mx.all(mx.isfinite(loaded.model.embed_tokens.weight)).item()
        assert logits.shape[-1] == loaded.model.config.vocab_size


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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


def test_a_time_limit_stops_cleanly_and_more_time_goes_on(tmp_path):
    run = TinyRun(tmp_path)
    reason, state, _ = run.go(max_seconds=1e-9)
    assert (reason, state.step) == ("max_seconds", 0)
    reason, state, found = run.go(max_seconds=1e9)
    assert (reason, state.step) == ("steps", 12)
    _, _, expected = TinyRun(tmp_path / "unlimited").go()
    assert_identical(expected, found)


def test_only_the_newest_checkpoints_stay(tmp_path):
    run = TinyRun(tmp_path, checkpoint_every=2, keep_checkpoints=3)
    run.go()
    assert History(tmp_path / "checkpoints").steps() == [8, 10, 12]
    assert (tmp_path / "checkpoints" / "last").resolve() == (tmp_path / "checkpoints" / "step_000012").resolve()


def test_a_checkpoint_of_a_damaged_run_is_refused_on_resuming(tmp_path):
    run = TinyRun(tmp_path)
    run.go()
    weights = tmp_path / "checkpoints" / "step_000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=re.escape(str(weights))):
        run.go(steps=14)
