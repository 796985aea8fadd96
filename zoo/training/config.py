"""How a run trains: everything but the model, the data and the optimizer."""

import dataclasses
from typing import Literal

from zoo.config import MOST, require, require_within

LoggerName = Literal["tensorboard", "wandb"]

# Steps and rows are numbered in int64, and a step has many rows.
MOST_COUNTED = 10**18
# A sample is for the eye, and made token by token when the run is over.
MOST_SAMPLE_TOKENS = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Parameters of the training loop.

    Attributes:
        steps: Optimizer steps of the whole run.
        batch_size: Rows per optimizer step.
        sequence_length: Tokens per row.
        accumulation: Equal parts a batch is processed in, one after the other; saves memory and changes the result
            by rounding only. Divides batch_size.
        max_grad_norm: Gradients of a larger global norm are scaled down to it; None never scales.
        gradient_checkpointing: Recompute each block in the backward pass instead of keeping its intermediates; saves
            memory where the step is compiled.
        loss_rows: Positions whose logits exist at one time; saves memory and changes the result by rounding only. None
            for all at once, or a tenth of more than 128 MB where compiled kernels make that cheap.
        compile: Whether the step is compiled; off for debugging.
        eval_every: Steps between evaluations on the validation split; None for only one, at the end.
        eval_batches: Most batches an evaluation looks at, or None for the whole split.
        checkpoint_every: Steps between checkpoints; None for only one, at the end.
        keep_checkpoints: How many of the newest checkpoints stay.
        keep_best: Whether an evaluation better than all before saves a checkpoint, which stays beside the newest.
        log_every: Steps between rows of training metrics.
        max_seconds: Wall-clock limit of the run's training time over all resumptions, or None.
        target_accuracy: An evaluation that reaches it ends the run; None for no such end. For encoders and synthetic
            tasks, whose accuracy is measured.
        sample_prompt: Text that the trained model continues, for the eye; None for words of the validation text.
        sample_tokens: How many tokens it adds; 0 for no sample.
        loggers: Where metrics go besides `metrics.jsonl`.
    """

    steps: int
    batch_size: int
    sequence_length: int
    accumulation: int = 1
    max_grad_norm: float | None = 1.0
    gradient_checkpointing: bool = False
    loss_rows: int | None = None
    compile: bool = True
    eval_every: int | None = None
    eval_batches: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    keep_best: bool = False
    log_every: int = 10
    max_seconds: float | None = None
    target_accuracy: float | None = None
    sample_prompt: str | None = None
    sample_tokens: int = 0
    loggers: tuple[LoggerName, ...] = ()

    def __post_init__(self) -> None:
        require_within(self, 1, MOST, "batch_size", "sequence_length", "accumulation", "loss_rows")
        counted = ("steps", "eval_every", "eval_batches", "checkpoint_every", "keep_checkpoints", "log_every")
        require_within(self, 1, MOST_COUNTED, *counted)
        # What float32 tells from 0, and from infinity.
        require_within(self, 1e-30, 1e30, "max_grad_norm")
        seconds = self.max_seconds
        require(seconds is None or seconds > 0, "max_seconds", "be positive or null", seconds)
        target = self.target_accuracy
        require(target is None or 0 < target <= 1, "target_accuracy", "be above 0 and at most 1, or null", target)
        watched = target is None or self.eval_every is not None
        require(watched, "eval_every", "be given where a target_accuracy is", self.eval_every)
        require_within(self, 0, MOST_SAMPLE_TOKENS, "sample_tokens")
        divides = self.batch_size % self.accumulation == 0
        require(divides, "accumulation", f"divide batch_size {self.batch_size}", self.accumulation)


# What may differ when a run goes on: how far it goes and how it is watched, never what is computed in a step.
RESUMABLE_CHANGES = frozenset(
    f"training.{field}"
    for field in (
        "steps",
        "max_seconds",
        "target_accuracy",
        "eval_every",
        "eval_batches",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_best",
        "log_every",
        "sample_prompt",
        "sample_tokens",
        "loggers",
    )
)
