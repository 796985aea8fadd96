"""Takes a model back to other tools: as a folder for transformers and mlx-lm, its adapters put into its weights."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal, cast

import mlx.core as mx
from omegaconf import DictConfig

from recipes.speaker import plain_mapping
from recipes.surgery import Operation, SurgeryConfig, operate, report
from zoo.checkpoints import LoadedCheckpoint, load_whole, save_checkpoint
from zoo.checkpoints.export import Layout, export_model, stored_dtype
from zoo.checkpoints.export.card import Story, model_card
from zoo.checkpoints.export.gguf_file import write_gguf
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.checkpoints.schemes import Scheme, dequantize_weights, quantize_weights, require_plain
from zoo.config import MOST, UserError, from_mapping, require, require_within
from zoo.config.files import typed_path
from zoo.config.folders import new_file, new_folder
from zoo.data import Batch, CausalLoader, DataConfig, MaskedTokenLoader, data_config_from_mapping, held_out_sample
from zoo.models import Model
from zoo.models.adapters import fuse_adapters
from zoo.models.copies import copied
from zoo.runtime.backend import choose_backend, parse_dtype
from zoo.training import measure_damage

logger = logging.getLogger(__name__)

Format = Literal["huggingface", "zoo", "gguf"]
# What MLX's modes have where nothing is chosen: bits and the size of a group.
_USUAL = {"affine": (4, 64), "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationChoice:
    """How matrices are quantized; nothing chosen for not at all.

    Attributes:
        bits: Of each number.
        mode: One of MLX's.
        group_size: Numbers that share a scale.
    """

    bits: int | None = None
    mode: str | None = None
    group_size: int | None = None

    @property
    def scheme(self) -> Scheme | None:
        """What was chosen, completed; None for nothing.

        Raises:
            UserError: If MLX has no such scheme.
        """
        if (self.bits, self.mode, self.group_size) == (None, None, None):
            return None
        mode = self.mode or "affine"
        bits, group_size = _USUAL.get(mode, (4, 64))
        chosen = {"mode": mode, "bits": self.bits or bits, "group_size": self.group_size or group_size}
        return from_mapping(Scheme, chosen, path="quantization")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """`configs/convert.yaml`, composed.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        attention: Another variant or hybrid for the same weights, or None.
        layers: Numbers of the layers that get it; None for all.
        adapters: Folder of adapters to put into the weights, or None.
        out: Folder to write.
        format: What it is to be.
        dtype: Of weights that are not quantized.
        dequantize: Whether quantized weights become plain ones.
        quantization: How matrices are quantized.
        surgery: How what changed the model is looked at.
        data: Held-out text for that.
        batch_size: Rows of a batch of it.
        sequence_length: Tokens of a row.
        device: Back end.
        allow_large: Whether to begin what will not fit into memory.
    """

    checkpoint: str | None = None
    attention: dict[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    adapters: str | None = None
    out: str | None = None
    format: Format = "huggingface"
    dtype: str = "auto"
    dequantize: bool = False
    quantization: QuantizationChoice = dataclasses.field(default_factory=QuantizationChoice)
    surgery: SurgeryConfig = dataclasses.field(default_factory=SurgeryConfig)
    data: dict[str, Any] | None = None
    batch_size: int = 4
    sequence_length: int = 512
    device: str = "auto"
    allow_large: bool = False

    def __post_init__(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        require(bool(self.out), "out", "name a new folder", self.out)
        require(self.adapters != "", "adapters", "be a folder, or null", "")
        require_within(self, 1, MOST, "batch_size", "sequence_length")


def main(config: DictConfig) -> dict[str, Any]:
    """Converts a checkpoint.

    Returns:
        The command contract's keys, and what was written.

    Raises:
        UserError: On a mistake in the configuration, a checkpoint that cannot be loaded, or a model that no other tool
            can compute; nothing is written then.
    """
    recipe = from_mapping(ConvertRecipe, plain_mapping(config), path="convert")
    choose_backend(recipe.device)
    out, scheme = _place(recipe), recipe.quantization.scheme
    dtype = None if recipe.dtype == "auto" else parse_dtype(recipe.dtype)
    text = None if recipe.data is None else data_config_from_mapping(recipe.data)
    loaded = _loaded(recipe)
    operation = operate(cast(Model, loaded.model), recipe.attention, recipe.layers)
    changed = operation.surgery is not None or scheme is not None
    batches, lengths_V = _held_out(recipe, text, loaded) if changed else ([], None)
    surgery = report(operation, batches, lengths_V, recipe.surgery)
    model, quantization = _quantized(operation, scheme, dtype or stored_dtype(loaded.folder), batches, lengths_V)
    story = Story(
        checkpoint=str(recipe.checkpoint),
        adapters=recipe.adapters,
        surgery=surgery,
        quantization=quantization,
        text="of Python's standard library" if recipe.data is None else f"of the corpus {recipe.data.get('corpus')}",
    )
    layout = _write(recipe, out, dataclasses.replace(loaded, model=model), dtype, story)
    return {
        "out": str(out),
        "format": recipe.format,
        "architecture": layout.architecture if layout else "attention_zoo",
        "model_file": layout.has_model_file if layout else False,
        "in_transformers": layout.in_transformers if layout else False,
        "attention": model.config.attention.name,
        "num_parameters": operation.model.num_parameters(),
        "bytes": sum(path.stat().st_size for path in (out, *out.rglob("*")) if path.is_file()),
        "surgery": surgery,
        "quantization": quantization,
    }


def _place(recipe: ConvertRecipe) -> Path:
    """Where to write, refused before any work if something is there."""
    assert recipe.out is not None
    out = typed_path(recipe.out, what="out")
    if recipe.format == "gguf":
        if out.exists() or out.is_symlink() or out.suffix != ".gguf":
            raise UserError(f"out must be a new file whose name ends in .gguf for format=gguf; got {recipe.out!r}")
    elif out.is_dir() and not out.is_symlink():
        if any(out.iterdir()):
            raise UserError(f"out must be a new folder or an empty one; got {recipe.out!r}, which holds something")
    elif out.exists() or out.is_symlink():
        raise UserError(f"out must be a new folder; got {recipe.out!r}, which is something else")
    return out


def _loaded(recipe: ConvertRecipe) -> LoadedCheckpoint:
    """The model of its own weights."""
    assert recipe.checkpoint is not None
    path = typed_path(recipe.checkpoint, what="checkpoint")
    replaced = recipe.attention is not None and recipe.layers is None
    loaded = load_whole(path, allow_large=recipe.allow_large, replaced=replaced)
    if recipe.adapters is not None:
        load_adapters(loaded.model, typed_path(recipe.adapters, what="adapters"), base=recipe.checkpoint)
        fuse_adapters(loaded.model)
    if recipe.dequantize:
        dequantize_weights(loaded.model)
    if recipe.quantization.scheme is not None:
        require_plain(loaded.model)
    return loaded


def _held_out(recipe: ConvertRecipe, text: DataConfig | None, loaded: LoadedCheckpoint) -> tuple[list[Batch], Any]:
    """Batches on which models are compared, and the bytes of each token."""
    if not recipe.surgery.batches:
        return [], None
    if loaded.tokenizer is None:
        raise UserError(f"surgery.batches must be 0: {loaded.folder} has no tokenizer to read text with")
    model: Any = loaded.model
    if model.config.classifies:
        raise UserError(
            f"surgery.batches must be 0: {loaded.folder} is a classifier, which predicts no tokens (evaluate.py "
            "tasks=[surgery] compares it on texts with labels)"
        )
    length = min(recipe.sequence_length, model.config.max_seq_len)
    wanted = recipe.surgery.batches * recipe.batch_size * (length + 1)
    try:
        split = held_out_sample(
            text or data_config_from_mapping({"corpus": "stdlib"}), loaded.tokenizer, num_tokens=wanted
        )
    except UserError as error:
        raise UserError(f"{error} (surgery.batches=0 measures nothing)") from None
    kind = CausalLoader if model.config.causal else MaskedTokenLoader
    loader = kind(split, batch_size=recipe.batch_size, sequence_length=length, seed=0)
    return list(loader.validation_batches(recipe.surgery.batches)), loaded.tokenizer.token_byte_lengths()


def _quantized(
    operation: Operation, scheme: Scheme | None, dtype: mx.Dtype | None, batches: list[Batch], lengths_V: Any
) -> tuple[Model, dict[str, Any] | None]:
    """The model to write, and what quantizing it did; None if it was not."""
    if scheme is None:
        return operation.model, None
    model = copied(operation.model)
    if dtype is not None:
        # What scales are computed from, as well as what they are.
        model.set_dtype(dtype)
    about = {**dataclasses.asdict(scheme), "matrices": quantize_weights(model, scheme)}
    if batches:
        damage = measure_damage(model, operation.model, batches, lengths_V)
        about["damage"] = damage.as_mapping()
        for line in damage.lines():
            logger.info("quantized: %s", line)
    return model, about


def _write(
    recipe: ConvertRecipe, out: Path, loaded: LoadedCheckpoint, dtype: mx.Dtype | None, story: Story
) -> Layout | None:
    """Writes the folder, whole or not at all; gives how, of what is for other tools."""
    model, tokenizer = loaded.model, loaded.tokenizer
    try:
        if recipe.format == "zoo":
            if dtype is not None:
                model.set_dtype(dtype)
            if out.exists():
                out.rmdir()
            save_checkpoint(out, model=model, tokenizer=tokenizer, config=loaded.config)
            return None
        if recipe.format == "gguf":
            if tokenizer is None:
                raise UserError(f"format must not be gguf without a tokenizer; {loaded.folder} has none")
            with new_file(out) as path:
                return write_gguf(path, model, tokenizer)
        with new_folder(out) as folder:
            layout = export_model(folder, model, tokenizer=tokenizer, source=loaded.folder, dtype=dtype)
            card = model_card(model.config, layout, story, name=out.name, source=loaded.folder)
            (folder / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"out must be a place that can be written; got {str(out)!r} ({error.strerror or error})"
        ) from error
    if layout.has_model_file:
        logger.warning("mlx-lm runs this model with --trust-remote-code: the folder's Python file computes it")
    return layout
