"""Pretrains a model: corpus and tokenizer, model, optimizer, loop, and what the run leaves behind."""

import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipes.job import Job, this_job
from recipes.material import open_material
from recipes.receipts import leave_receipt
from recipes.training_plan import TrainingPlan, TrainRecipe, checked_plan
from recipes.training_run import TrainingRun
from zoo.config import UserError
from zoo.data import DataConfig
from zoo.models import build_model
from zoo.runtime.seeds import seed_everything
from zoo.training import RunFolder, build_optimizer

__all__ = ["TrainRecipe", "main"]


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
    run = TrainingRun(
        job=job,
        folder=folder,
        model=model,
        optimizer=build_optimizer(plan.optimizer, model, steps=training.steps),
        tokenizer=material.tokenizer,
        loaders=material.loaders(training, causal=model.config.causal, seed=plan.recipe.seed),
        training=training,
        dtype=plan.dtype,
        seed=plan.recipe.seed,
        config=plan.as_mapping(model.config, material),
        needed=needed,
        names={"attention": plan.recipe.attention["name"], "model": job.model_name},
    )
    state = run.resumed()
    finished = run.finished(state)
    if finished is not None:
        return finished
    if isinstance(plan.data, DataConfig):
        leave_receipt(run.config["data"], cache_dir=plan.data.cache_dir)
    return run.train(state)
