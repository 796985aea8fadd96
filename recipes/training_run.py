"""What pretraining and fine-tuning have in common: the folder of a run, the run itself, and what it leaves."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx.optimizers import MultiOptimizer
from mlx.utils import tree_flatten

from recipes.job import Job
from recipes.preview import continuation, filled_in, first_words
from zoo.checkpoints import History
from zoo.config import UserError
from zoo.data import SPLITS, Data, ProcessShare, Tokenizer
from zoo.models import Model
from zoo.runtime.last_words import last_words
from zoo.runtime.memory import active_bytes, is_exhaustion, peak_bytes, readable_bytes, reset_peak
from zoo.runtime.processes import Processes, connected
from zoo.runtime.versions import describe
from zoo.training import (
    MetricLogger,
    NextToken,
    Objective,
    ProgressBar,
    RunFolder,
    Shard,
    StopReason,
    Trainer,
    TrainingBatches,
    TrainingConfig,
    TrainingState,
    ValidationBatches,
    draw_loss_curve,
    largest_share,
    open_loggers,
    read_metrics,
    resume_run,
)

logger = logging.getLogger(__name__)
# Enough text for some document to begin in it.
_BATCHES_OF_WORDS = 16


def loaders_of(
    data: Data, training: TrainingConfig, *, causal: bool, seed: int, processes: Processes
) -> tuple[TrainingBatches, ValidationBatches]:
    """Batches to learn from, and batches that are held out, at the sizes of a training: a process's rows of them."""
    share = ProcessShare(rank=processes.rank, world_size=processes.size)
    sizes = {"batch_size": training.batch_size, "sequence_length": training.sequence_length}
    train, validation = (data.loader(split, causal=causal, **sizes, seed=seed, share=share) for split in SPLITS)
    return train, validation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Steps of a run that make one thing smaller.

    Attributes:
        optimizer: Of what learns, with its first state.
        end: Steps of the run at its end.
        objective: What is made smaller.
    """

    optimizer: MultiOptimizer
    end: int
    objective: Objective = dataclasses.field(default_factory=NextToken)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """A run that is ready to begin, or to go on.

    Attributes:
        job: As it was asked for.
        folder: Entered.
        model: With its first weights.
        stages: One after the other; the last one is of tokens, and ends with the run.
        tokenizer: None if tokens are no text.
        loader: Training batches.
        validation: Validation batches.
        training: Of the loop.
        dtype: Of the forward and backward pass.
        seed: Of the run.
        config: All that the result depends on; a resumed run must agree with it.
        needed: Bytes that it was priced at.
        shard: What each of several processes keeps only a part of; None for nothing.
        names: `attention` and `model` of the result, and other facts that stand there.
    """

    job: Job
    folder: RunFolder
    model: Model
    stages: tuple[Stage, ...]
    tokenizer: Tokenizer | None
    loader: TrainingBatches
    validation: ValidationBatches
    training: TrainingConfig
    dtype: mx.Dtype
    seed: int
    config: Mapping[str, Any]
    needed: int
    shard: Shard | None
    names: Mapping[str, Any]

    def resumed(self) -> TrainingState:
        """The state to go on from: a fresh one, or that of the newest checkpoint with model and optimizer."""
        checkpoints = self.folder.checkpoints
        step = max(History(checkpoints).steps(), default=0)
        # The last step of a stage is saved with the optimizer of that stage.
        stage = next((each for each in self.stages if step <= each.end), self.stages[-1])
        return resume_run(checkpoints, model=self.model, optimizer=stage.optimizer, run_config=self.config)

    def finished(self, state: TrainingState) -> dict[str, Any] | None:
        """The result of a run that has come to its end before; None if there is something to do."""
        finished = self.folder.result() or {}
        if finished.get("steps") == state.step >= self.training.steps and finished.get("interrupted") is False:
            # The folder may have been moved since.
            return {**finished, **self._whereabouts(state)}
        return None

    def train(self, state: TrainingState, *, export: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Trains from a state to the end; leaves the folder with all that a run leaves.

        Args:
            state: Where to begin.
            export: Writes what a recipe leaves besides. The result comes after it: what has one is finished.

        Returns:
            The result, which is in the folder too.
        """
        if not connected().leads:
            self._run_stages(state, (), None)
            return {}
        folder, training, resumed_step = self.folder, self.training, state.step
        folder.write_description(self.job.config, dataclasses.asdict(self.job.command), describe())
        logger.info("the training takes about %s of memory", readable_bytes(self.needed))
        reset_peak()
        with contextlib.ExitStack() as stack:
            loggers = open_loggers(training.loggers, folder.path, resumed_step=resumed_step, config=self.config)
            for each in loggers:
                stack.callback(each.close)
            progress = ProgressBar(steps=training.steps, resumed_step=resumed_step)
            stack.callback(progress.close)
            with self._naming_exhaustion(state):
                reason = self._run_stages(state, loggers, progress)
        result = self._result(state, reason, resumed_step)
        self._draw_loss()
        speaks = training.sample_tokens > 0 and not self.model.config.classifies
        if self.tokenizer is not None and speaks and reason != "signal":
            self._write_preview(self.tokenizer)
        export()
        folder.write_result(result)
        return result

    def _run_stages(
        self, state: TrainingState, loggers: Sequence[MetricLogger], progress: ProgressBar | None
    ) -> StopReason:
        reason: StopReason = "steps"
        for stage in self.stages:
            last = stage is self.stages[-1]
            if state.step > stage.end and not last:
                continue
            trainer = Trainer(
                model=self.model,
                optimizer=stage.optimizer,
                loader=self.loader,
                validation=self.validation,
                tokenizer=self.tokenizer,
                config=dataclasses.replace(self.training, steps=stage.end),
                dtype=self.dtype,
                checkpoints=self.folder.checkpoints,
                loggers=loggers,
                run_config=self.config,
                objective=stage.objective,
                goes_on=stage.end < self.training.steps,
                progress=progress,
                processes=connected(),
                shard=self.shard,
            )
            reason = trainer.train(state)
            if last or reason != "steps" or state.step >= self.training.steps:
                break
            state.begin_text()
        return reason

    @contextlib.contextmanager
    def _naming_exhaustion(self, state: TrainingState) -> Iterator[None]:
        """Says in one line that memory ran out, what was priced, and what is saved; also if the process is killed."""
        priced = readable_bytes(self.needed)
        words = (
            f"the training was killed, or crashed, as happens when memory runs out: it was priced at about {priced}; "
            f"resume=auto run_dir={self.folder.path} goes on from its last checkpoint"
        )
        try:
            # Of several processes, the others say it.
            with last_words(words) if connected().size == 1 else contextlib.nullcontext():
                yield
        except (MemoryError, RuntimeError) as error:
            if not is_exhaustion(error):
                raise
            checkpoint = History(self.folder.checkpoints).newest()
            saved = "no checkpoint was saved before" if checkpoint is None else f"the last checkpoint is {checkpoint}"
            raise UserError(
                f"memory ran out at step {state.step + 1} of a training priced at about {priced}, with "
                f"{readable_bytes(active_bytes())} in use ({' '.join(str(error).split())}); {saved}"
            ) from None

    def _result(self, state: TrainingState, reason: StopReason, resumed_step: int) -> dict[str, Any]:
        evaluation = state.evaluation if state.evaluation.get("step") == state.step else {}
        return {
            **self._whereabouts(state),
            **self.names,
            "implementation": self.model.config.implementations(
                phase="training",
                batch_size=self.training.batch_size // self.training.accumulation,
                length=self.training.sequence_length,
            ),
            "num_parameters": self.model.num_parameters(),
            "steps": state.step,
            "tokens": state.tokens,
            **self._losses(state),
            "val_loss": evaluation.get("val_loss"),
            "val_bits_per_byte": evaluation.get("val_bits_per_byte"),
            "val_accuracy": evaluation.get("val_accuracy"),
            "tokens_per_second": state.timed_tokens / state.timed_seconds if state.timed_seconds else None,
            "peak_memory_bytes": peak_bytes(),
            "seconds": state.seconds,
            **self._exchanges(),
            "interrupted": reason == "signal",
            "stopped_by": reason,
            "resumed_from_step": resumed_step or None,
            "overrides": list(self.job.command.overrides),
        }

    def _exchanges(self) -> dict[str, int]:
        """How many processes train, and what each of them sends for a step."""
        processes = connected()
        learnt: dict[str, mx.array] = dict(tree_flatten(self.model.trainable_parameters()))
        sizes = {name: array.nbytes for name, array in learnt.items()}
        sent = processes.sent_bytes(sum(sizes.values()))
        if self.shard == "optimizer":
            sent += (processes.size - 1) * largest_share(sizes, processes.size)
        elif self.shard == "weights":
            # Forward and backward gather the blocks, and the backward pass scatters their gradients.
            sent += sent // 2
        return {"processes": processes.size, "sent_bytes_per_step": sent}

    def _losses(self, state: TrainingState) -> dict[str, Any]:
        """First and last loss of each objective, and what an original has read."""
        first, last = self.stages[0].objective, self.stages[-1].objective
        matches = len(self.stages) > 1 and state.attention_losses is None
        losses = {NextToken.name: (None, None), (first if matches else last).name: (state.first_loss, state.loss)}
        if state.attention_losses is not None:
            losses[first.name] = state.attention_losses
        named = {
            f"{when}{name}": each[place] for name, each in losses.items() for place, when in enumerate(("first_", ""))
        }
        return {**named, "original_tokens": state.original_tokens} if first.reads_original else named

    def _whereabouts(self, state: TrainingState) -> dict[str, str | None]:
        history = History(self.folder.checkpoints)
        newest = history.newest()
        places = {"run_dir": str(self.folder.path), "checkpoint": None if newest is None else str(newest)}
        if self.training.keep_best:
            places["best_checkpoint"] = None if state.best_step is None else str(history.path(state.best_step))
        return places

    def _draw_loss(self) -> None:
        with self.folder.writing("loss.png") as path:
            title = f"{self.names['model']}, {self.names['attention']}"
            draw_loss_curve(read_metrics(self.folder.metrics), path, title=title)

    def _write_preview(self, tokenizer: Tokenizer) -> None:
        training, validation = self.training, self.validation
        self.model.eval()
        if self.model.config.causal:
            prompt = training.sample_prompt
            if prompt is None:
                prompt = first_words(tokenizer, validation.validation_batches(_BATCHES_OF_WORDS))
            num_tokens = training.sample_tokens
            text = continuation(self.model, tokenizer, prompt=prompt, num_tokens=num_tokens, seed=self.seed)
        else:
            (batch,) = validation.validation_batches(1)
            text = filled_in(self.model, tokenizer, batch, num_tokens=training.sample_tokens)
        with self.folder.writing("samples.txt") as path:
            path.write_text(text + "\n", encoding="utf-8")
