"""What a comparison of a checkpoint's variants is asked for, and what each fine-tuning of it would be."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra import compose
from omegaconf import OmegaConf

from eval.suites.series import series_named
from recipes.app import CONFIGS, config_groups
from recipes.command_line import rewritten
from recipes.comparison_run import benchmark_script, machine_overrides
from recipes.finetune import FinetunePlan, checked_plan
from recipes.scripts import Script
from zoo.attention.catalog import attention_names, variant_mapping
from zoo.config.files import typed_path
from zoo.models import ModelConfig, model_config_from_mapping
from zoo.models.catalog import model_names, shipped_model
from zoo.training import RunFolder

Arm = Literal["heal", "finetune", "scratch"]
# What a comparison of a checkpoint's variants decides itself, and what the checkpoint brings.
NOT_TYPED = ("attention", "seed", "resume", "model", "tokenizer", "budgets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchanges:
    """What is compared.

    Attributes:
        checkpoint: As typed.
        variants: Names of series.
        layers: Numbers of the layers that are exchanged; None for all.
        arms: Ways to mend.
        seeds: Of data order, and of fresh weights.
        tasks: What every model is asked; None for all that fit.
        max_batches: Of an evaluation, as for `evaluate.py`.
        scratch: Overrides of `finetune.py` for models with fresh weights.
        folder: Of the comparison.
        typed: Overrides of `finetune.py`.
        data: Name of a YAML in configs/data.
    """

    checkpoint: str
    variants: tuple[str, ...]
    layers: tuple[int, ...] | None
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...] | None
    max_batches: int | str | None
    scratch: tuple[str, ...]
    folder: Path
    typed: tuple[str, ...]
    data: str

    @property
    def name(self) -> str:
        """Of the checkpoint in records: its run's or its path's, and the layers if not all are exchanged."""
        path = typed_path(self.checkpoint, what="checkpoint")
        name = self.checkpoint
        if path.exists():
            run = RunFolder.of_checkpoint(path)
            name = path.resolve().name if run is None else run.path.name
        return name if self.layers is None else f"{name}, layers {','.join(map(str, self.layers))}"

    @property
    def of_data(self) -> tuple[str, ...]:
        """The overrides that choose the data."""
        own = (each for each in self.typed if each.startswith("data."))
        return (f"data={self.data}", *own)

    @property
    def of_layers(self) -> tuple[str, ...]:
        """The override that chooses the layers."""
        return () if self.layers is None else (f"layers={list(self.layers)}".replace(" ", ""),)


def finetuning_plan(asked: Exchanges) -> FinetunePlan:
    """What a fine-tuning of the first variant would be, with everything refused that can be before any work."""
    overrides = [f"data={asked.data}", *(each for each in asked.typed if not each.startswith("data="))]
    composed = rewritten(
        overrides, script="finetune", config=CONFIGS / "finetune.yaml", groups=config_groups("finetune"), sweep=False
    )
    plain = OmegaConf.to_container(compose(config_name="finetune", overrides=composed), resolve=True)
    assert isinstance(plain, dict)
    mapping = {str(key): value for key, value in plain.items()}
    return checked_plan(
        {**mapping, "checkpoint": asked.checkpoint, "attention": series_named(asked.variants[0]).mapping}
    )


def timing_script(
    asked: Exchanges, config: ModelConfig, variants: Sequence[str], length: int, budget_minutes: float | None
) -> Script | None:
    """The benchmark of a checkpoint's shape beside its own attention, or None where no YAML in configs/model has it.

    Args:
        asked: What is compared.
        config: The checkpoint's.
        variants: Names of series.
        length: Tokens.
        budget_minutes: None for no limit.
    """
    mine = _shape(config.as_mapping())
    found = [name for name in model_names() if _shape(shipped_model(name)) == mine]
    if not found or not variants or asked.layers is not None:
        return None
    # The others are compared with the first.
    own = [config.attention.name] if config.attention.name in attention_names() else []
    timed = list(dict.fromkeys([*own, *variants]))
    script = benchmark_script(timed, found[0], length, folder=asked.folder, budget_minutes=budget_minutes)
    return dataclasses.replace(script, arguments=(*script.arguments, *machine_overrides(asked.typed)))


def _shape(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how much a model computes, apart from its attention, its vocabulary and its longest text."""
    config = model_config_from_mapping(
        {**values, "vocab_size": 1, "max_seq_len": 1, "attention": variant_mapping("mha"), "dropout": 0.0}
    )
    free = ("vocab_size", "max_seq_len", "attention", "dropout", "init_std", "norm_eps", "rope_theta", "rope_scaling")
    return {key: value for key, value in config.as_mapping().items() if key not in free}
