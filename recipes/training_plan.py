"""What a training is to be: the configuration of `train.py`, each section checked, and what it will take."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import mlx.core as mx

from recipes.launch import TrainingLaunchConfig
from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.data import (
    Data,
    DataConfig,
    DataSource,
    TokenizerConfig,
    data_description,
    data_source_from_mapping,
    tokenizer_config_from_mapping,
)
from zoo.data.synthetic import SyntheticTask
from zoo.models import ModelConfig, model_config_from_mapping
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.memory import require_room
from zoo.runtime.seeds import seed_everything
from zoo.training import (
    OptimizerConfig,
    TrainingConfig,
    optimizer_config_as_mapping,
    optimizer_config_from_mapping,
    require_installed,
    training_bytes,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """`configs/train.yaml`, composed.

    Attributes:
        attention: Variant or hybrid.
        model: Family and its fields.
        data: Corpus or synthetic task.
        tokenizer: Tokenizer; None for a synthetic task.
        optimizer: Optimizer and schedule.
        training: Loop.
        run_dir: Output folder, or None for a new one under `runs/`.
        resume: "auto" goes on with the run in run_dir if there is one; "never" refuses to.
        seed: Of weights, data order and dropout.
        device: Back end.
        dtype: Of the forward and backward pass.
        allow_large: Whether to begin what will not fit into memory.
        launch: Processes that train together.
    """

    attention: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    training: dict[str, Any]
    tokenizer: dict[str, Any] | None = None
    run_dir: str | None = None
    resume: Literal["auto", "never"] = "never"
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    allow_large: bool = False
    launch: TrainingLaunchConfig = dataclasses.field(default_factory=TrainingLaunchConfig)

    def __post_init__(self) -> None:
        if self.run_dir == "":
            raise UserError("run_dir must name a folder, or be null for a new one; got ''")
        require(isinstance(self.attention.get("name"), str), "attention.name", "be a text", self.attention.get("name"))
        if "attention" in self.model:
            raise UserError("model: unknown key 'attention'; it is chosen beside the model, as in attention=mha")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The recipe's sections, each checked."""

    recipe: TrainRecipe
    data: DataSource
    tokenizer: TokenizerConfig | None
    optimizer: OptimizerConfig
    training: TrainingConfig
    dtype: mx.Dtype

    def model_config(self, vocab_size: int) -> ModelConfig:
        mapping = {**self.recipe.model, "attention": self.recipe.attention}
        config = model_config_from_mapping(mapping, tokenizer_vocab_size=vocab_size)
        limit, length = config.position_limit, self.training.sequence_length
        with_limit = f"be at most model.max_seq_len {limit} with learned positions"
        require(limit is None or length <= limit, "training.sequence_length", with_limit, length)
        return config

    def priced(self, config: ModelConfig, *, at_once: int = 1) -> int:
        """Bytes that the training will take at its peak, about.

        Args:
            config: The model.
            at_once: How many such trainings run at the same time.

        Raises:
            UserError: If they, with the processes of each, do not fit into memory, and the user does not insist.
        """
        launch = self.recipe.launch
        needed = training_bytes(config, self.optimizer, self.training, self.dtype, launch.sharing)
        what = "the training" if at_once == 1 else f"jobs={at_once} trainings"
        what += f" by {launch.at_once} processes" if launch.at_once > 1 else ""
        remedy = (
            "make the model, training.batch_size or training.sequence_length smaller, or training.accumulation larger"
        )
        require_room(at_once * launch.at_once * needed, what, allow_large=self.recipe.allow_large, remedy=remedy)
        return needed

    def as_mapping(self, model: ModelConfig, data: Data) -> dict[str, Any]:
        """All that the result depends on, JSON-ready; a resumed run must agree with it."""
        return {
            "model": model.as_mapping(),
            "data": data_description(data),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.as_mapping(),
            "optimizer": optimizer_config_as_mapping(self.optimizer),
            "training": to_mapping(self.training),
            "seed": self.recipe.seed,
            "dtype": dtype_name(self.dtype),
        }


def checked_plan(mapping: Mapping[str, Any], *, at_once: int = 1) -> TrainingPlan:
    """What `train.py` is to do, with everything refused that can be refused before any work.

    Args:
        mapping: `configs/train.yaml`, composed.
        at_once: How many such trainings run at the same time.

    Raises:
        UserError: On a mistake in the configuration.
    """
    plan = _plan(from_mapping(TrainRecipe, mapping, path="train"))
    # A text's vocabulary is not known before its tokenizer; what the model refuses, and most of what it takes, is.
    config = plan.model_config(plan.data.vocab_size if isinstance(plan.data, SyntheticTask) else 1)
    _require_fit(plan.data, plan.tokenizer, plan.training, causal=config.causal)
    plan.priced(config, at_once=at_once)
    return plan


def _plan(recipe: TrainRecipe) -> TrainingPlan:
    choose_backend(recipe.device)
    seed_everything(recipe.seed)
    plan = TrainingPlan(
        recipe=recipe,
        data=data_source_from_mapping(recipe.data),
        tokenizer=None if recipe.tokenizer is None else tokenizer_config_from_mapping(recipe.tokenizer),
        optimizer=optimizer_config_from_mapping(recipe.optimizer),
        training=from_mapping(TrainingConfig, recipe.training, path="training"),
        dtype=parse_dtype(recipe.dtype),
    )
    require_installed(plan.training.loggers)
    return plan


def _require_fit(
    data: DataConfig | SyntheticTask, tokenizer: TokenizerConfig | None, training: TrainingConfig, *, causal: bool
) -> None:
    """Refuses choices that exclude each other, before any work.

    Raises:
        UserError: With what to change.
    """
    if isinstance(data, DataConfig):
        if tokenizer is None:
            raise UserError("tokenizer must be chosen for a corpus of text; got null")
        judged = training.target_accuracy is None or not causal
        condition = "be null for a language model on text, whose accuracy is not measured"
        require(judged, "training.target_accuracy", condition, training.target_accuracy)
        return
    if tokenizer is not None:
        raise UserError(f"tokenizer must be null: the tokens of data={data.name} are no text; got {tokenizer.kind}")
    if not causal:
        raise UserError(f"model must read left to right for data={data.name}; an encoder would see the answers")
    condition = f"be data.length {data.length}, the rows of data={data.name}"
    require(training.sequence_length == data.length, "training.sequence_length", condition, training.sequence_length)
