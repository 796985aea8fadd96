"""Pretrains a model: corpus and tokenizer, model, optimizer, loop, and what the run leaves behind."""

import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipes.job import Job, this_job
from recipes.material import open_material
from recipes.receipts import leave_receipt
from recipes.samples import continuation, filled_in, first_words
from recipes.training_plan import TrainingPlan, TrainRecipe, checked_plan
from zoo.checkpoints import History
from zoo.config import UserError
from zoo.data import (
    DataConfig,
    Tokenizer,
)
from zoo.models import Model, build_model
from zoo.runtime.last_words import last_words
from zoo.runtime.memory import active_bytes, is_exhaustion, peak_bytes, readable_bytes, reset_peak
from zoo.runtime.seeds import seed_everything
from zoo.runtime.versions import describe
from zoo.training import (
    ProgressBar,
    RunFolder,
    StopReason,
    Trainer,
    TrainingState,
    ValidationBatches,
    build_optimizer,
    draw_loss_curve,
    open_loggers,
    read_metrics,
    resume_run,
)

__all__ = ["TrainRecipe", "main"]

logger = logging.getLogger(__name__)
# Enough text for some document to begin in it.
_BATCHES_OF_WORDS = 16


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
    """Says in one line that memory ran out, what was priced, and what is saved; also if the process is killed."""
    words = (
        f"the training was killed, or crashed, as happens when memory runs out: it was priced at about "
        f"{readable_bytes(needed)}; resume=auto run_dir={folder.path} goes on from its last checkpoint"
    )
    try:
        with last_words(words):
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
