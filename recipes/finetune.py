"""Fine-tunes a checkpoint: all of its weights, or adapters on frozen ones, on texts, completions or conversations."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Literal, cast

import mlx.core as mx
from mlx.utils import tree_reduce
from omegaconf import DictConfig

from recipes.healing import healing_stages
from recipes.job import Job, this_job
from recipes.launch import TrainingLaunchConfig
from recipes.receipts import leave_receipt
from recipes.run_start import in_run_folder
from recipes.surgery import SurgeryConfig, look, operate
from recipes.training_run import TrainingRun, loaders_of
from zoo.checkpoints import LoadedCheckpoint, load_whole
from zoo.checkpoints.adapters import weights_fingerprint
from zoo.checkpoints.foreign_adapters import load_adapters, write_mlx_lm, write_peft
from zoo.checkpoints.schemes import schemes_of
from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.config.files import typed_path
from zoo.data import (
    Data,
    DataConfig,
    ExampleData,
    TextData,
    Tokenizer,
    data_description,
    open_data,
    text_source_from_mapping,
)
from zoo.data.examples import ExamplesConfig
from zoo.models import BertConfig, Model
from zoo.models.adapters import AdapterKind, Adapters, LoRAConfig, QuantizationConfig, attach_adapters
from zoo.models.classification import CLASSIFIER_HEAD, classifier_for, with_head_of
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.memory import require_room
from zoo.runtime.processes import ALONE, connected
from zoo.runtime.seeds import seed_everything
from zoo.training import (
    DistillationConfig,
    OptimizerConfig,
    RunFolder,
    TrainingConfig,
    adaptation_bytes,
    optimizer_config_as_mapping,
    optimizer_config_from_mapping,
    original_bytes,
    original_of,
    require_installed,
    training_bytes,
)

logger = logging.getLogger(__name__)

Method = Literal["full", "lora", "dora", "qlora"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """`configs/finetune.yaml`, composed.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        method: "full" trains all weights; "lora" and "dora" train adapters, "qlora" those of LoRA on quantized weights.
        attention: Another variant or hybrid for the same weights; None keeps the checkpoint's.
        layers: Numbers of the layers that get it; None for all.
        surgery: How the exchange is looked at.
        lora: Size and place of adapters.
        adapters: Folder of adapters to go on from, of mlx-lm, of PEFT or of a run; None for fresh ones.
        quantization: Of frozen weights, for qlora.
        data: Examples, or a corpus of text.
        distillation: What is learnt from the original of an exchanged attention.
        optimizer: Optimizer and schedule.
        training: Loop.
        run_dir: Output folder, or None for a new one under `runs/`.
        resume: "auto" goes on with the run in run_dir if there is one; "never" refuses to.
        seed: Of adapters, data order and dropout.
        device: Back end.
        dtype: Of the forward and backward pass, and of frozen weights.
        allow_large: Whether to begin what will not fit into memory.
        launch: Processes that train together.
    """

    data: dict[str, Any]
    optimizer: dict[str, Any]
    training: dict[str, Any]
    checkpoint: str | None = None
    method: Method = "lora"
    attention: dict[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    surgery: SurgeryConfig = dataclasses.field(default_factory=SurgeryConfig)
    lora: LoRAConfig = dataclasses.field(default_factory=LoRAConfig)
    adapters: str | None = None
    quantization: QuantizationConfig = dataclasses.field(default_factory=QuantizationConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    run_dir: str | None = None
    resume: Literal["auto", "never"] = "never"
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    allow_large: bool = False
    launch: TrainingLaunchConfig = dataclasses.field(default_factory=TrainingLaunchConfig)

    def __post_init__(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        require(self.run_dir != "", "run_dir", "name a folder, or be null for a new one", self.run_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """The recipe's sections, each checked."""

    recipe: FinetuneRecipe
    data: DataConfig | ExamplesConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    dtype: mx.Dtype

    def as_mapping(self, model: Model, data: Data, base_fingerprint: str) -> dict[str, Any]:
        """All that the result depends on, JSON-ready; a resumed run must agree with it."""
        recipe = self.recipe
        return {
            "model": model.config.as_mapping(),
            "checkpoint": base_fingerprint,
            "method": recipe.method,
            "lora": None if model.adapters is None else to_mapping(model.adapters.lora),
            # What they begin with.
            "adapters": None if recipe.adapters is None else weights_fingerprint(model),
            "quantization": to_mapping(recipe.quantization) if recipe.method == "qlora" else None,
            "data": data_description(data),
            "optimizer": optimizer_config_as_mapping(self.optimizer),
            "training": to_mapping(self.training),
            "distillation": to_mapping(recipe.distillation) if recipe.distillation.needs_original else None,
            "seed": recipe.seed,
            "dtype": dtype_name(self.dtype),
        }


def main(config: DictConfig) -> dict[str, Any]:
    """Fine-tunes, or goes on with a run.

    Returns:
        The JSON object of the command contract.

    Raises:
        UserError: On a mistake in the configuration or a checkpoint that cannot be used, before any work; and if the
            loss is no number any more.
    """
    return in_run_folder(
        this_job(config), check=checked_plan, facts=lambda plan, _: (plan.recipe.method,), work=_finetune
    )


def checked_plan(mapping: Mapping[str, Any]) -> FinetunePlan:
    """What `finetune.py` is to do, with everything refused that can be refused before any work.

    Raises:
        UserError: On a mistake in the configuration.
    """
    recipe = from_mapping(FinetuneRecipe, mapping, path="finetune")
    choose_backend(recipe.device)
    plan = FinetunePlan(
        recipe=recipe,
        data=text_source_from_mapping(recipe.data),
        optimizer=optimizer_config_from_mapping(recipe.optimizer),
        training=from_mapping(TrainingConfig, recipe.training, path="training"),
        dtype=parse_dtype(recipe.dtype),
    )
    require_installed(plan.training.loggers)
    unused = recipe.method != "full" or recipe.adapters is None
    require(unused, "adapters", "be null for method=full, which trains none", recipe.adapters)
    matching, condition = recipe.distillation.attention_steps, f"be at most the {plan.training.steps} of training.steps"
    require(matching <= plan.training.steps, "distillation.attention_steps", condition, matching)
    exchanges = recipe.attention is not None or not matching
    require(exchanges, "attention", "be another one for distillation.attention_steps", "keep")
    # Dropped inputs are drawn anew where a block is computed again, and the gradient would be that of others.
    again = plan.training.gradient_checkpointing and recipe.method != "full"
    condition = "be 0 beside training.gradient_checkpointing"
    require(not again or recipe.lora.dropout == 0, "lora.dropout", condition, recipe.lora.dropout)
    return plan


def _opened(plan: FinetunePlan, model: Model, tokenizer: Tokenizer) -> TextData | ExampleData:
    """What is learnt from, in the checkpoint's tokens.

    Raises:
        UserError: If it cannot be read, or the model cannot learn from it.
    """
    length, limit = plan.training.sequence_length, model.config.position_limit
    condition = f"be at most model.max_seq_len {limit} with learned positions"
    require(limit is None or length <= limit, "training.sequence_length", condition, length)
    if not isinstance(plan.data, ExamplesConfig):
        config = model.config
        if isinstance(config, BertConfig) and not config.masked_token_head:
            raise UserError("checkpoint must have a masked-token head to learn from plain text; this encoder has none")
        return open_data(plan.data, tokenizer, exact=False)
    for layer in model.layers:
        capable = not plan.data.pack or layer.self_attn.capabilities.segments
        name = layer.self_attn.capabilities.exact_class
        require(capable, "data.pack", f"be false with {name}, which cannot keep examples apart", plan.data.pack)
    data = open_data(plan.data, tokenizer)
    if not model.config.causal and not data.corpus.labels:
        raise UserError("data must be texts with labels, or a corpus of text, as data=text, for an encoder")
    if model.config.causal and data.corpus.labels:
        raise UserError(
            "checkpoint must be an encoder to classify texts; got a language model (data.format=text leaves labels out)"
        )
    require(not (data.corpus.labels and plan.data.pack), "data.pack", "be false for texts to classify", plan.data.pack)
    return data


def _finetune(plan: FinetunePlan, job: Job, folder: RunFolder) -> dict[str, Any]:
    recipe, training = plan.recipe, plan.training
    loaded, base = _base(recipe)
    assert loaded.tokenizer is not None
    operation = operate(cast(Model, loaded.model), recipe.attention, recipe.layers)
    model: Any = operation.model
    data = _opened(plan, model, loaded.tokenizer)
    if recipe.method == "full" and schemes_of(model):
        raise UserError("method must be lora or dora: the checkpoint's quantized weights cannot be trained; got 'full'")
    seed_everything(recipe.seed)
    # What the new attention has of its own is in no checkpoint, and no adapter.
    whole = () if operation.surgery is None else operation.surgery.new_names(model)
    if isinstance(data, ExampleData) and data.corpus.labels:
        model, classes = classifier_for(model, data.corpus.labels)
        if operation.surgery is not None:
            before = with_head_of(model, operation.original)
            operation = dataclasses.replace(operation, model=cast(Model, model), original=cast(Model, before))
        data, whole = dataclasses.replace(data, classes=classes), (*whole, *CLASSIFIER_HEAD)
    learns = recipe.distillation.needs_original
    original = cast(Model, original_of(operation.original, dtype=plan.dtype)) if learns else None
    fingerprint = weights_fingerprint(model, without=whole)
    causal = model.config.causal
    loader, validation = loaders_of(data, training, causal=causal, seed=recipe.seed, processes=connected())
    _, whole_validation = loaders_of(data, training, causal=causal, seed=recipe.seed, processes=ALONE)
    surgery = look(operation, whole_validation, loaded.tokenizer, recipe.surgery, known=folder.surgery())
    if recipe.method != "full":
        _adapt(plan, model, base, fingerprint, whole)
    needed = _priced(plan, model, original)
    run = TrainingRun(
        job=job,
        folder=folder,
        model=model,
        stages=healing_stages(recipe.distillation, plan.optimizer, model, original, steps=training.steps),
        tokenizer=data.tokenizer,
        loader=loader,
        validation=validation,
        training=training,
        dtype=plan.dtype,
        seed=recipe.seed,
        config=plan.as_mapping(model, data, fingerprint),
        needed=needed,
        shard=plan.recipe.launch.shard,
        names={
            "attention": model.config.attention.name,
            "model": model.config.family,
            "base": base,
            "method": recipe.method,
            "trainable_parameters": tree_reduce(lambda count, each: count + each.size, model.trainable_parameters(), 0),
            "surgery": surgery,
        },
    )
    if surgery is not None and connected().leads:
        # For when the run goes on; not before, since a run that cannot begin leaves nothing.
        folder.write_surgery(surgery)
    state = run.resumed()
    finished = run.finished(state)
    if finished is not None:
        return finished
    leave_receipt(run.config["data"], cache_dir=plan.data.cache_dir)

    def export() -> None:
        # Other tools' files have no place for what an exchanged attention has of its own.
        if model.adapters is not None and not set(whole) - set(CLASSIFIER_HEAD):
            for name, write in (("peft", write_peft), ("mlx_lm", write_mlx_lm)):
                with folder.writing(name) as path:
                    write(path, model)

    return run.train(state, export=export)


def _base(recipe: FinetuneRecipe) -> tuple[LoadedCheckpoint, str]:
    """The checkpoint as a whole model, and how to find it again from any folder."""
    assert recipe.checkpoint is not None
    path = typed_path(recipe.checkpoint, what="checkpoint")
    replaced = recipe.attention is not None and recipe.layers is None
    loaded = load_whole(path, allow_large=recipe.allow_large, replaced=replaced)
    if loaded.tokenizer is None:
        raise UserError(f"checkpoint: {loaded.folder} must hold a tokenizer; it was saved without one")
    return loaded, str(loaded.folder.absolute()) if path.exists() else recipe.checkpoint


def _adapt(plan: FinetunePlan, model: Model, base: str, fingerprint: str, whole: tuple[str, ...]) -> None:
    """Gives the model fresh adapters, or those to go on from; parameters in `whole` are trained themselves."""
    recipe = plan.recipe
    kind: AdapterKind = "dora" if recipe.method == "dora" else "lora"
    quantization = recipe.quantization if recipe.method == "qlora" else None
    if recipe.adapters is None:
        fresh = Adapters(
            kind=kind, lora=recipe.lora, quantization=quantization, base=base, base_fingerprint=fingerprint, whole=whole
        )
        attach_adapters(model, fresh, dtype=plan.dtype)
        return
    folder = typed_path(recipe.adapters, what="adapters")
    load_adapters(model, folder, base=base, quantization=quantization, dtype=plan.dtype, whole=whole)
    found: Adapters = model.adapters
    require(found.kind == kind, "method", f"be {found.kind}, as the adapters are", recipe.method)
    own = recipe.lora in (LoRAConfig(), found.lora)
    require(own, "lora", "be left out beside adapters, which have their own", to_mapping(recipe.lora))


def _priced(plan: FinetunePlan, model: Model, original: Model | None) -> int:
    """Bytes that the training will take at its peak, about.

    Raises:
        UserError: If it does not fit into memory, and the user does not insist.
    """
    how = (plan.optimizer, plan.training, plan.dtype, plan.recipe.launch.sharing)
    needed = training_bytes(model.config, *how) if model.adapters is None else adaptation_bytes(model, *how)
    if original is not None:
        # Frozen weights are the original's arrays, unless both were cast.
        shared = model.adapters is not None and plan.dtype == mx.float32
        needed += original_bytes(original, plan.training, plan.dtype, shared=shared)
    remedy = "make training.batch_size or training.sequence_length smaller, or training.accumulation larger"
    require_room(needed, "the fine-tuning", allow_large=plan.recipe.allow_large, remedy=remedy)
    return needed
