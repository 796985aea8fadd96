"""The training loop: steps, metrics, evaluations and checkpoints, until the run is done or asked to stop."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import MultiOptimizer
from mlx.utils import tree_flatten

from zoo.checkpoints import History
from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.runtime.memory import active_bytes, peak_bytes
from zoo.runtime.processes import ALONE, Processes, require_divisible
from zoo.training.agreement import Agreement
from zoo.training.batches import TrainingBatches, ValidationBatches, num_tokens, to_arrays
from zoo.training.config import TrainingConfig
from zoo.training.evaluation import evaluate, scalar
from zoo.training.metrics import MetricLogger
from zoo.training.objective import Details, NextToken, Objective
from zoo.training.progress import ProgressBar
from zoo.training.signals import StopRequest
from zoo.training.state import TrainingState
from zoo.training.step import EvaluationStep, NonFiniteError, Shard, StepOptions, TrainStep

Computed = TypeVar("Computed")
StopReason = Literal["steps", "max_seconds", "target_accuracy", "signal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything a run consists of.

    Attributes:
        model: Trained in place.
        optimizer: With its state.
        loader: Training batches.
        validation: Validation batches.
        tokenizer: Goes into the checkpoints; knows the bytes of each token. None if tokens are no text.
        config: Of the loop.
        dtype: Of the forward and backward pass.
        checkpoints: Folder of the checkpoints.
        loggers: Receive the metrics.
        run_config: The whole configuration, kept in the checkpoints.
        objective: What the steps make smaller.
        goes_on: Whether the run goes on with another objective afterwards.
        progress: Shows progress to people, or None.
        processes: That train the model together; the one that leads saves it.
        shard: What each of them keeps only a part of; None for nothing.
    """

    model: nn.Module
    optimizer: MultiOptimizer
    loader: TrainingBatches
    validation: ValidationBatches
    tokenizer: Tokenizer | None
    config: TrainingConfig
    dtype: mx.Dtype
    checkpoints: Path
    loggers: Sequence[MetricLogger]
    run_config: Mapping[str, Any]
    objective: Objective = dataclasses.field(default_factory=NextToken)
    goes_on: bool = False
    progress: ProgressBar | None = None
    processes: Processes = ALONE
    shard: Shard | None = None

    def train(self, state: TrainingState) -> StopReason:
        """Trains from a state until the run's end; the state is advanced in place.

        Args:
            state: A fresh one, or a restored one together with model and optimizer.

        Returns:
            What ended it. The state at the end is saved as a checkpoint.

        Raises:
            NonFiniteError: If loss or gradient is not finite; the last good checkpoint stays.
            UserError: If a checkpoint cannot be written.
        """
        return _Loop(self, state).run()


class _Loop:
    """One uninterrupted stretch of a run."""

    def __init__(self, trainer: Trainer, state: TrainingState) -> None:
        self.trainer, self.config, self.state = trainer, trainer.config, state
        self.processes = trainer.processes
        require_divisible(self.config.batch_size, self.config.accumulation, self.processes.size)
        options = StepOptions(
            causal=trainer.model.config.causal,
            dtype=trainer.dtype,
            max_grad_norm=self.config.max_grad_norm,
            compile=self.config.compile,
            loss_rows=self.config.loss_rows,
        )
        trainer.model.checkpoint_gradients(self.config.gradient_checkpointing)
        trainer.model.train()
        learner = (trainer.model, trainer.optimizer, options, trainer.objective, self.processes)
        self.step = TrainStep(*learner, shard=trainer.shard)
        self.evaluation_step = EvaluationStep(trainer.model, options)
        self.history = History(trainer.checkpoints, keep=self.config.keep_checkpoints, best=state.best_step)
        tokenizer = trainer.tokenizer
        tells = tokenizer is not None and tokenizer.lossless and not trainer.model.config.classifies
        self.token_bytes_V: np.ndarray | None = tokenizer.token_byte_lengths() if tokenizer and tells else None
        self.first_step = state.step
        self.stop = StopRequest()
        began = time.perf_counter() - state.seconds
        self.agreement = Agreement(self.processes, asked=self.stop.requested, clock=lambda: time.perf_counter() - began)
        self.window_seconds, self.window_tokens = 0.0, 0

    def run(self) -> StopReason:
        with self.stop:
            # A run that was killed while it saved its last step saves none again.
            if self.processes.leads:
                self.history.tidy()
            self.batch = self.trainer.loader.batch(self.state.step)
            self.agreement.renew()
            # An interruption may have cut short the evaluation of the step that is gone on from.
            reason = self._after_step()
            while reason is None:
                self._train_one()
                reason = self._after_step()
            finished = self.state.evaluation.get("step") == self.state.step and not self.trainer.goes_on
            self.agreement.renew()
            self.step.release()
            return "signal" if self.agreement.stops and not finished else reason

    def _reason(self) -> StopReason | None:
        self.state.seconds = self.agreement.seconds
        if self.state.step >= self.config.steps:
            return "steps"
        if self.config.max_seconds is not None and self.state.seconds >= self.config.max_seconds:
            return "max_seconds"
        return "target_accuracy" if self._on_target() else "signal" if self.agreement.stops else None

    def _train_one(self) -> None:
        state, batch = self.state, self.batch
        began = time.perf_counter()
        weight, tokens = self.trainer.objective.weight(batch), num_tokens(batch)
        alone = self.processes.size == 1
        # Of several processes each knows its own rows: what all of them have is found out in the step.
        totals = self.processes.sum_arrays(mx.array([weight, tokens], dtype=mx.float32))
        if alone:
            self._require_weight(weight, batch.identity)
        batch_loss, gradient_norm, details, agreement = self._computed(weight if alone else totals[0])
        if not alone:
            weight, tokens = scalar(totals[0]), round(scalar(totals[1]))
            self._require_weight(weight, batch.identity)
        self._require_finite(batch_loss / weight, "the loss", state.step + 1, f"; batch: {batch.identity}")
        self._require_finite(gradient_norm, "the gradient's norm", state.step + 1, f"; batch: {batch.identity}")
        seconds = time.perf_counter() - began
        state.step += 1
        state.tokens += tokens
        state.original_tokens += tokens if self.trainer.objective.reads_original else 0
        state.window_nats += batch_loss
        state.window_weight += weight
        if state.first_loss is None:
            state.first_loss = batch_loss / weight
        # The first step after a start compiles the graph.
        if state.step > self.first_step + 1:
            state.timed_seconds += seconds
            state.timed_tokens += tokens
        self.window_seconds += seconds
        self.window_tokens += tokens
        if self.trainer.progress is not None:
            self.trainer.progress.advance(state.step)
        if state.step % self.config.log_every == 0 or state.step == self.config.steps:
            # The loss is the window's; what tells more of a step is that of the last one.
            self._log_training(gradient_norm, {name: scalar(each) / weight for name, each in details.items()})
        self.agreement.received(agreement)

    def _computed(self, weight: float | mx.array) -> tuple[float, float, Details, mx.array]:
        """Loss, gradient norm, details of a computed step, and what was agreed on; the next batch is read."""
        state = self.state
        try:
            parts = to_arrays(self.batch, parts=self.config.accumulation)
            with self.processes.own_randomness(state.step):
                loss, norm, details = self.step(parts, weight)
            agreement = self.agreement.sent()
            mx.async_eval(loss, norm, details, self.step.state, agreement)
            # Prepared while the device computes.
            self.batch = self.trainer.loader.batch(state.step + 1)
            return scalar(loss), scalar(norm), details, agreement
        except RuntimeError as error:
            # Ctrl-C reaches MLX's C++ compiler too, which works in the first step, when there is nothing to save yet.
            if self.stop.requested() and state.step == self.first_step:
                raise KeyboardInterrupt from error
            raise

    def _require_weight(self, weight: float, identity: str) -> None:
        if weight == 0:
            raise UserError(
                "training.sequence_length must be long enough, or batch_size large enough, for a token to predict in"
                f" every batch; got none in {identity}"
            )

    def _log_training(self, gradient_norm: float, details: Mapping[str, float]) -> None:
        state = self.state
        state.last_loss = state.window_nats / state.window_weight
        values = {
            self.trainer.objective.name: state.last_loss,
            **details,
            "learning_rate": scalar(self.trainer.optimizer.learning_rate),
            "gradient_norm": gradient_norm,
            "tokens": state.tokens,
            "tokens_per_second": self.window_tokens / self.window_seconds,
            "memory_bytes": active_bytes(),
            "peak_memory_bytes": peak_bytes(),
        }
        self._log(values)
        state.window_nats = state.window_weight = self.window_seconds = 0.0
        self.window_tokens = 0

    def _after_step(self) -> StopReason | None:
        """Evaluates and saves where that is due; returns why the run ends here, or None if it goes on."""
        state, config = self.state, self.config
        reason = self._reason()
        finished = reason in ("steps", "max_seconds")
        due = config.eval_every is not None and state.step % config.eval_every == 0 and state.step > 0
        improved = False
        if (due or finished) and state.evaluation.get("step") != state.step:
            improved = self._evaluate() and config.keep_best
        if reason is None:
            # Both may have come with the evaluation.
            reason = "target_accuracy" if self._on_target() else "signal" if self.agreement.stops else None
        due = config.checkpoint_every is not None and state.step % config.checkpoint_every == 0
        if improved:
            # At the step that is gone on from, whose evaluation was cut short, the checkpoint is there already.
            state.best_step, state.best_loss = state.step, state.evaluation["val_loss"]
            self.history.best = state.step
        if (due or improved or reason is not None) and state.step > self.first_step:
            self._save()
        return reason

    def _evaluate(self) -> bool:
        """Evaluates; returns whether the loss is less than that of the best weights so far."""
        batches = self.trainer.validation.validation_batches(self.config.eval_batches)
        # A forward pass of shared blocks needs all processes: none may stop by itself.
        together = self.trainer.shard == "weights"
        wanted = itertools.takewhile(lambda _: together or self.stop.name is None, batches)
        found = self._again_if_stopped(
            lambda: evaluate(self.trainer.model, self.evaluation_step, wanted, self.token_bytes_V, self.processes)
        )
        # Whoever stops a run does not wait for an evaluation; part of one is no evaluation.
        self.agreement.renew()
        if self.agreement.stops:
            return False
        if not found.tokens:
            raise UserError("data: the validation split must predict at least one token; it predicts none")
        self._require_finite(found.loss, "the validation loss", self.state.step)
        # A language model's first guess of a word says little; an encoder and a synthetic task have answers.
        judged = self.trainer.tokenizer is None or not self.trainer.model.config.causal
        values = {
            "val_loss": found.loss,
            "val_bits_per_byte": found.bits_per_byte,
            "val_accuracy": found.accuracy if judged else None,
        }
        self.state.evaluation = {"step": self.state.step, **values}
        self._log(values)
        return self.state.best_loss is None or found.loss < self.state.best_loss

    def _on_target(self) -> bool:
        """Whether the present weights were evaluated and are accurate enough."""
        target, evaluation = self.config.target_accuracy, self.state.evaluation
        accuracy = evaluation.get("val_accuracy") if evaluation.get("step") == self.state.step else None
        return target is not None and accuracy is not None and accuracy >= target

    def _log(self, values: Mapping[str, float | int | None]) -> None:
        for logger in self.trainer.loggers:
            logger.log(self.state.step, values)
        if self.trainer.progress is not None:
            self.trainer.progress.show(values)

    def _save(self) -> None:
        state, trainer = self.state, self.trainer
        self._require_good()
        optimizer_state = self.step.whole_optimizer_state()
        for logger in trainer.loggers:
            logger.flush()
        with self.step.whole_model():
            if self.processes.leads:
                state.seconds = self.agreement.clock()
                self.history.save(
                    state.step,
                    model=trainer.model,
                    tokenizer=trainer.tokenizer,
                    optimizer_state=optimizer_state,
                    training_state=state.as_mapping(),
                    config=trainer.run_config,
                )

    def _require_good(self) -> None:
        """Refuses to save what a step with finite loss and gradient can still leave: weights that explode."""
        step, model = self.state.step, self.trainer.model
        for name, array in dict(tree_flatten(model.trainable_parameters())).items():
            largest = mx.max(mx.abs(array)) if array.size else mx.zeros(())
            self._require_finite(scalar(largest), f"the largest weight of {name}", step)
        if self.state.evaluation.get("step") == step:
            return
        model.eval()
        (first, *_) = to_arrays(self.batch, parts=self.config.accumulation)
        nats = self._again_if_stopped(lambda: scalar(self.evaluation_step(first)[0]))
        model.train()
        (nats,) = self.processes.sums(nats)
        self._require_finite(nats, "the loss of the next batch", step, f"; batch: {self.batch.identity}")

    def _again_if_stopped(self, compute: Callable[[], Computed]) -> Computed:
        """Computes without a trace in the weights; once more if the wish to stop has killed MLX's C++ compiler."""
        try:
            return compute()
        except RuntimeError:
            if not self.stop.requested():
                raise
            return compute()

    def _require_finite(self, value: float, what: str, step: int, where: str = "") -> None:
        if math.isfinite(value):
            return
        newest = self.history.newest()
        good = "no checkpoint was saved before" if newest is None else f"the last good checkpoint is {newest}"
        raise NonFiniteError(f"training stopped at step {step}: {what} is {value}{where}; {good}")
