"""Pretrains a model: corpus and tokenizer, model, optimizer, loop, and what the run leaves behind."""

import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from omegaconf import DictConfig

from recipes.job import Job, this_job
from recipes.material import Material, open_material, require_fit
from recipes.receipts import leave_receipt
from recipes.samples import continuation, filled_in, first_words
from zoo.checkpoints import History
from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.data import (
    DataConfig,
    DataSource,
    Tokenizer,
    TokenizerConfig,
    data_source_from_mapping,
    tokenizer_config_from_mapping,
)
from zoo.data.synthetic import SyntheticTask
from zoo.models import Model, ModelConfig, build_model, model_config_from_mapping
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.memory import active_bytes, is_exhaustion, peak_bytes, readable_bytes, require_room, reset_peak
from zoo.runtime.seeds import seed_everything
from zoo.runtime.versions import describe
from zoo.training import (
    OptimizerConfig,
    ProgressBar,
    RunFolder,
    StopReason,
    Trainer,
    TrainingConfig,
    TrainingState,
    ValidationBatches,
    build_optimizer,
    draw_loss_curve,
    open_loggers,
    optimizer_config_as_mapping,
    optimizer_config_from_mapping,
    read_metrics,
    require_installed,
    resume_run,
    training_bytes,
)

logger = logging.getLogger(__name__)
# Enough text for some document to begin in it.
_BATCHES_OF_WORDS = 16


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
            UserError: If they do not fit into memory, and the user does not insist.
        """
        needed = training_bytes(config, self.optimizer, self.training, self.dtype)
        what = "the training" if at_once == 1 else f"jobs={at_once} trainings"
        remedy = (
            "make the model, training.batch_size or training.sequence_length smaller, or training.accumulation larger"
        )
        require_room(at_once * needed, what, allow_large=self.recipe.allow_large, remedy=remedy)
        return needed

    def as_mapping(self, model: ModelConfig, material: Material) -> dict[str, Any]:
        """All that the result depends on, JSON-ready; a resumed run must agree with it."""
        data = {key: value for key, value in self.data.as_mapping().items() if key != "cache_dir"}
        return {
            "model": model.as_mapping(),
            "data": {
                **data,
                "identity": material.identity.as_mapping(),
                "tokenizer": None if material.tokenizer is None else material.tokenizer.fingerprint,
                "fingerprint": material.fingerprint,
            },
            "tokenizer": None if self.tokenizer is None else self.tokenizer.as_mapping(),
            "optimizer": optimizer_config_as_mapping(self.optimizer),
            "training": to_mapping(self.training),
            "seed": self.recipe.seed,
            "dtype": dtype_name(self.dtype),
        }


def main(config: DictConfig) -> dict[str, Any]:
    """Trains, or goes on with a run.

    Returns:
        The JSON object of the command contract.

    Raises:
        UserError: On a mistake in the configuration, before any work; on a damaged checkpoint; and if the loss is
            no number any more.
    """
    job = this_job(config)
    path = job.folder()
    resumes = path is not None and job.config["resume"] == "auto" and RunFolder(path).holds_run
    if path is not None and resumes:
        job = job.going_on(path)
    try:
        plan = checked_plan(job.config)
    except UserError as error:
        if not resumes:
            raise
        raise UserError(f"{error} (settings are those of the run in {str(path)!r}, and what was typed)") from None
    if path is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        run_folder = RunFolder.claimed(Path("runs"), job.name(now, plan.recipe.attention["name"], job.model_name))
    else:
        run_folder = RunFolder(path)
    with run_folder as folder:
        if folder.holds_run and plan.recipe.resume == "never":
            raise UserError(f"run_dir must be a new folder, or resume be auto; got {str(path)!r}, which holds a run")
        return _train(plan, job, folder)


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
    require_fit(plan.data, plan.tokenizer, plan.training, causal=config.causal)
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


def _train(plan: TrainingPlan, job: Job, folder: RunFolder) -> dict[str, Any]:
    training = plan.training
    material = open_material(plan.data, plan.tokenizer)
    seed_everything(plan.recipe.seed)
    config = plan.model_config(material.vocab_size)
    needed = plan.priced(config)
    model = build_model(config)
    optimizer = build_optimizer(plan.optimizer, model, steps=training.steps)
    run_config = plan.as_mapping(model.config, material)
    state = resume_run(folder.checkpoints, model=model, optimizer=optimizer, run_config=run_config)
    finished = folder.result() or {}
    if finished.get("steps") == state.step >= training.steps and finished.get("interrupted") is False:
        # The folder may have been moved since.
        return {**finished, **_whereabouts(folder)}
    resumed_step = state.step
    if isinstance(plan.data, DataConfig):
        leave_receipt(run_config["data"], cache_dir=plan.data.cache_dir)
    folder.write_description(job.config, dataclasses.asdict(job.command), describe())
    logger.info("the training takes about %s of memory", readable_bytes(needed))
    loaders = material.loaders(training, causal=model.config.causal, seed=plan.recipe.seed)
    reset_peak()
    with contextlib.ExitStack() as stack:
        loggers = open_loggers(training.loggers, folder.path, resumed_step=resumed_step, config=run_config)
        for each in loggers:
            stack.callback(each.close)
        progress = ProgressBar(steps=training.steps, resumed_step=resumed_step)
        stack.callback(progress.close)
        trainer = Trainer(
            model=model,
            optimizer=optimizer,
            loader=loaders.train,
            validation=loaders.validation,
            tokenizer=material.tokenizer,
            config=training,
            dtype=plan.dtype,
            checkpoints=folder.checkpoints,
            loggers=loggers,
            run_config=run_config,
            progress=progress,
        )
        with _naming_exhaustion(folder, state, needed):
            reason = trainer.train(state)
    result = _result(plan, job, folder, model, state, reason, resumed_step)
    _draw_loss(plan, job, folder)
    if material.tokenizer is not None and training.sample_tokens > 0 and reason != "signal":
        _write_sample(plan, folder, model, material.tokenizer, loaders.validation)
    folder.write_result(result)
    return result


@contextlib.contextmanager
def _naming_exhaustion(folder: RunFolder, state: TrainingState, needed: int) -> Iterator[None]:
    """Says in one line that memory ran out, what was priced, and what is saved."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        checkpoint = History(folder.checkpoints).newest()
        saved = "no checkpoint was saved before" if checkpoint is None else f"the last checkpoint is {checkpoint}"
        raise UserError(
            f"memory ran out at step {state.step + 1} of a training priced at about {readable_bytes(needed)}, with "
            f"{readable_bytes(active_bytes())} in use ({' '.join(str(error).split())}); {saved}"
        ) from None


def _result(
    plan: TrainingPlan,
    job: Job,
    folder: RunFolder,
    model: Model,
    state: TrainingState,
    reason: StopReason,
    resumed_step: int,
) -> dict[str, Any]:
    evaluation = state.evaluation if state.evaluation.get("step") == state.step else {}
    return {
        **_whereabouts(folder),
        "attention": plan.recipe.attention["name"],
        "model": job.model_name,
        "num_parameters": model.num_parameters(),
        "steps": state.step,
        "tokens": state.tokens,
        "first_train_loss": state.first_loss,
        "train_loss": state.loss,
        "val_loss": evaluation.get("val_loss"),
        "val_bits_per_byte": evaluation.get("val_bits_per_byte"),
        "val_accuracy": evaluation.get("val_accuracy"),
        "tokens_per_second": state.timed_tokens / state.timed_seconds if state.timed_seconds else None,
        "peak_memory_bytes": peak_bytes(),
        "seconds": state.seconds,
        "interrupted": reason == "signal",
        "stopped_by": reason,
        "resumed_from_step": resumed_step or None,
        "overrides": list(job.command.overrides),
    }


def _whereabouts(folder: RunFolder) -> dict[str, str | None]:
    checkpoint = History(folder.checkpoints).newest()
    return {"run_dir": str(folder.path), "checkpoint": None if checkpoint is None else str(checkpoint)}


def _draw_loss(plan: TrainingPlan, job: Job, folder: RunFolder) -> None:
    title = f"{job.model_name}, {plan.recipe.attention['name']}"
    with folder.writing("loss.png") as path:
        draw_loss_curve(read_metrics(folder.metrics), path, title=title)


def _write_sample(
    plan: TrainingPlan, folder: RunFolder, model: Model, tokenizer: Tokenizer, validation: ValidationBatches
) -> None:
    training = plan.training
    model.eval()
    if model.config.causal:
        prompt = training.sample_prompt
        if prompt is None:
            prompt = first_words(tokenizer, validation.validation_batches(_BATCHES_OF_WORDS))
        num_tokens = training.sample_tokens
        text = continuation(model, tokenizer, prompt=prompt, num_tokens=num_tokens, seed=plan.recipe.seed)
    else:
        (batch,) = validation.validation_batches(1)
        text = filled_in(model, tokenizer, batch, num_tokens=training.sample_tokens)
    with folder.writing("samples.txt") as path:
        path.write_text(text + "\n", encoding="utf-8")
