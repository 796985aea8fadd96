"""Training: loss, optimizers, the compiled step, the loop, and what a run leaves behind."""

from zoo.training.batches import TrainingBatches, ValidationBatches
from zoo.training.config import TrainingConfig
from zoo.training.damage import Damage, measure_damage
from zoo.training.distillation import AttentionTransfer, DistillationConfig, Divergence, original_of
from zoo.training.evaluation import Evaluation, evaluate
from zoo.training.figures import draw_loss_curve
from zoo.training.loop import StopReason, Trainer
from zoo.training.loss import token_nats
from zoo.training.metrics import MetricLogger, open_loggers, read_metrics, require_installed
from zoo.training.objective import NextToken, Objective
from zoo.training.optimizers import (
    OptimizerConfig,
    build_optimizer,
    optimizer_config_as_mapping,
    optimizer_config_from_mapping,
)
from zoo.training.price import Sharing, adaptation_bytes, original_bytes, training_bytes
from zoo.training.progress import ProgressBar
from zoo.training.resume import resume_run
from zoo.training.run_folder import RunFolder
from zoo.training.shards import largest_share
from zoo.training.state import TrainingState
from zoo.training.step import EvaluationStep, NonFiniteError, Shard, StepOptions, TrainStep

__all__ = [
    "AttentionTransfer",
    "Damage",
    "DistillationConfig",
    "Divergence",
    "Evaluation",
    "EvaluationStep",
    "MetricLogger",
    "NextToken",
    "NonFiniteError",
    "Objective",
    "OptimizerConfig",
    "ProgressBar",
    "RunFolder",
    "Shard",
    "Sharing",
    "StepOptions",
    "StopReason",
    "TrainStep",
    "Trainer",
    "TrainingBatches",
    "TrainingConfig",
    "TrainingState",
    "ValidationBatches",
    "adaptation_bytes",
    "build_optimizer",
    "draw_loss_curve",
    "evaluate",
    "largest_share",
    "measure_damage",
    "open_loggers",
    "optimizer_config_as_mapping",
    "optimizer_config_from_mapping",
    "original_bytes",
    "original_of",
    "read_metrics",
    "require_installed",
    "resume_run",
    "token_nats",
    "training_bytes",
]
