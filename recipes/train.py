"""Pretrains a model: corpus and tokenizer, model, optimizer, loop, and what the run leaves behind."""

from typing import Any

from omegaconf import DictConfig

from recipes.job import Job, this_job
from recipes.receipts import leave_receipt
from recipes.run_start import in_run_folder
from recipes.training_plan import TrainingPlan, TrainRecipe, checked_plan
from recipes.training_run import Stage, TrainingRun, loaders_of
from zoo.data import DataConfig, open_data
from zoo.models import build_model
from zoo.runtime.processes import connected
from zoo.runtime.seeds import seed_everything
from zoo.training import RunFolder, build_optimizer

__all__ = ["TrainRecipe", "main", "train"]


def main(config: DictConfig) -> dict[str, Any]:
    """Trains, or goes on with a run.

    Returns:
        The JSON object of the command contract.

    Raises:
        UserError: On a mistake in the configuration, before any work; on a damaged checkpoint; and if the loss is
            no number any more.
    """
    return train(this_job(config))


def train(job: Job) -> dict[str, Any]:
    """The same of a job that was composed already."""
    return in_run_folder(
        job,
        check=checked_plan,
        facts=lambda plan, job: (plan.recipe.attention["name"], job.model_name),
        work=_train,
    )


def _train(plan: TrainingPlan, job: Job, folder: RunFolder) -> dict[str, Any]:
    training = plan.training
    data = open_data(plan.data, plan.tokenizer)
    seed_everything(plan.recipe.seed)
    config = plan.model_config(data.vocab_size)
    needed = plan.priced(config)
    model = build_model(config)
    loader, validation = loaders_of(
        data, training, causal=model.config.causal, seed=plan.recipe.seed, processes=connected()
    )
    run = TrainingRun(
        job=job,
        folder=folder,
        model=model,
        stages=(Stage(optimizer=build_optimizer(plan.optimizer, model, steps=training.steps), end=training.steps),),
        tokenizer=data.tokenizer,
        loader=loader,
        validation=validation,
        training=training,
        dtype=plan.dtype,
        seed=plan.recipe.seed,
        config=plan.as_mapping(model.config, data),
        needed=needed,
        shard=plan.recipe.launch.shard,
        names={"attention": plan.recipe.attention["name"], "model": job.model_name},
    )
    state = run.resumed()
    finished = run.finished(state)
    if finished is not None:
        return finished
    if isinstance(plan.data, DataConfig):
        leave_receipt(run.config["data"], cache_dir=plan.data.cache_dir)
    return run.train(state)
