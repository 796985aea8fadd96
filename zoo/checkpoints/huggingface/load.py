"""Builds a model from a folder in Hugging Face's layout; no code of it is ever run.

Everything is checked against the headers before a weight is read, and each weight is converted as it is read, so that
loading takes little more memory than the model. On a CPU a model is computed in float32 whatever its file holds, since
half precision is forty times slower there; elsewhere in the dtype of the file.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.huggingface.bert import Bert
from zoo.checkpoints.huggingface.exported import DESCRIPTION, Exported, exported_names, is_exported
from zoo.checkpoints.huggingface.family import Family
from zoo.checkpoints.huggingface.gpt2 import GPT2
from zoo.checkpoints.huggingface.llama import Llama, Mistral, Qwen2, Qwen3
from zoo.checkpoints.huggingface.quantized import quantize
from zoo.checkpoints.huggingface.table import Tensor, tensors
from zoo.checkpoints.huggingface.weights import Weights, open_weights, weight_files
from zoo.checkpoints.manifest import linked_from
from zoo.checkpoints.tensors import WEIGHTS, Entry, require_finite, require_names
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import inside, open_regular, read_json_mapping
from zoo.models import Model, build_model
from zoo.runtime.backend import backend
from zoo.runtime.memory import require_room

CONFIG = "config.json"
FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (Llama(), Mistral(), Qwen2(), Qwen3(), GPT2(), Bert())
}


def is_folder(folder: Path) -> bool:
    """Whether a folder looks like a model in Hugging Face's layout."""
    return (folder / CONFIG).exists()


def load_folder(folder: Path, config: Mapping[str, Any], *, allow_large: bool) -> Model:
    """The model of a folder, with its weights.

    Args:
        folder: In Hugging Face's layout.
        config: Its `config.json`.
        allow_large: Whether to load what will not fit into memory.

    Raises:
        UserError: If the architecture or something in its config is not read here, a file is missing or malformed, a
            tensor is missing, left over or of another shape, or memory is short.
    """
    with open_weights(folder) as shards:
        where = f"checkpoint: {folder / CONFIG}"
        return model_of(config, shards, folder, where=where, allow_large=allow_large)


def model_of(
    config: Mapping[str, Any],
    weights: Weights,
    path: Path,
    *,
    where: str,
    allow_large: bool,
) -> Model:
    """The model that a `config.json` describes, with its weights.

    Args:
        config: As of a folder in Hugging Face's layout.
        weights: By the names of that layout.
        path: The checkpoint, for messages.
        where: What to call the config in messages.
        allow_large: As `load_folder` takes it.

    Raises:
        UserError: As `load_folder`.
    """
    family = family_of(config, weights.entries, where=where)
    # Name in the table -> name in the file.
    names = {known: name for name, known in family.canonical(weights.entries).items()}
    if len(names) < len(weights.entries):
        raise UserError(f"checkpoint: {path} must hold each tensor once; it holds one under two names")
    config = {**config, "tie_word_embeddings": _is_tied(family, config, weights, names, where)}
    if config["tie_word_embeddings"] and family.embedding not in names and family.head in names:
        # One of the two is enough.
        names[family.embedding] = names.pop(family.head)
    described = family.config(config, names, where=where)
    try:
        model = build_model(described)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    own = exported_names(dict(tree_flatten(model.parameters()))) if isinstance(family, Exported) else []
    modules = list(family.modules(described, {*names, *own}))
    quantize(model, config, modules=modules, names=names, where=where)
    arrays: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    table = tensors(modules, arrays)
    _require_all(path, family, table, arrays, names)
    _fill(model, weights, {names[tensor.theirs]: tensor for tensor in table}, arrays, allow_large=allow_large)
    model.eval()
    return model


def content_sums(folder: Path) -> bytes:
    """Names the content of a folder: the sums of the files that decide what its model computes."""
    sums = {}
    for path in (inside(folder, CONFIG, what="checkpoint", linked=linked_from(folder)), *weight_files(folder)):
        with open_regular(path, what="checkpoint") as stream:
            sums[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return json.dumps(sums, sort_keys=True).encode()


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder.

    Raises:
        UserError: If it cannot be read.
    """
    path = inside(folder, CONFIG, what="checkpoint", linked=linked_from(folder))
    return read_json_mapping(path, what="checkpoint")


def family_of(config: Mapping[str, Any], names: Collection[str], *, where: str) -> Family:
    """The family of a checkpoint, refused unless its stock code, or ours, is all that the model needs.

    Args:
        config: Its `config.json`.
        names: Its tensors.
        where: What to call the config in messages.

    Raises:
        UserError: Names what is not read here.
    """
    if is_exported(config, names):
        return Exported()
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        choices = ", ".join(FAMILIES)
        raise UserError(
            f"{where}: model_type must be one that is read here; got {shortened(kind)} (choices: {choices})"
        )
    family = FAMILIES[kind]
    for key in ("auto_map", "model_file"):
        # Of what left from here the file says nothing that the config does not.
        if config.get(key) and not (key == "model_file" and DESCRIPTION in config):
            raise UserError(
                f"{where}: {key} must not be given: it names code of the checkpoint's own, which is never run; got"
                f" {shortened(config[key])} (without it the checkpoint is read as a plain {kind})"
            )
    named = config.get("architectures") or []
    if not isinstance(named, list) or not all(each in family.architectures for each in named):
        choices = ", ".join(family.architectures)
        raise UserError(f"{where}: architectures must be read here; got {shortened(named)} (choices: {choices})")
    return family


def _is_tied(family: Family, config: Mapping[str, Any], weights: Weights, names: Mapping[str, str], where: str) -> bool:
    """Whether the output projection is the embedding: as the config says, unless the file holds two that differ."""
    said = family.is_tied(config, where=where)
    if not said or family.head not in names or family.embedding not in names:
        return said
    ours, theirs = (weights.read(names[each]) for each in (family.embedding, family.head))
    return bool(mx.array_equal(ours, theirs).item())


def _require_all(
    path: Path, family: Family, table: list[Tensor], arrays: Mapping[str, mx.array], names: Mapping[str, str]
) -> None:
    """Refuses a checkpoint with other tensors than the model's, but for those that are passed over by name."""
    assert arrays.keys() == {name for tensor in table for name in tensor.ours}
    wanted = {tensor.theirs for tensor in table}
    found = [name for name in names if name in wanted or not _is_harmless(family, name, wanted)]
    # As the file spells them, where it has them.
    require_names(
        [names[name] for name in found],
        [names.get(name, name) for name in wanted],
        f"checkpoint: {path} must hold exactly the tensors of a {family.model_type} of this config",
    )


def _is_harmless(family: Family, name: str, wanted: set[str]) -> bool:
    return name == family.head or family.harmless.fullmatch(name) is not None


def _fill(
    model: nn.Module,
    weights: Weights,
    table: Mapping[str, Tensor],
    arrays: Mapping[str, mx.array],
    *,
    allow_large: bool,
) -> None:
    """Reads the weights into a model: one tensor at a time, in the dtype in which it is computed."""
    entries = weights.entries
    for name, tensor in table.items():
        dtype = arrays[tensor.ours[0]].dtype
        allowed = WEIGHTS if mx.issubdtype(dtype, mx.floating) else (dtype,)
        entries[name].require(f"{weights.where(name)}: {name}", tensor.shape(arrays), allowed)
    on_cpu = backend() == "cpu"
    size = sum(_computed_bytes(entries[name], on_cpu=on_cpu) for name in table)
    require_room(size, weights.where(next(iter(table))), allow_large=allow_large, remedy="free memory")
    for name, array in weights.arrays():
        if name not in table:
            continue
        if on_cpu and mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(mx.float32)  # noqa: PLW2901
        taken = table[name].ours_from(array, arrays)
        require_finite(taken, weights.where(name))
        model.load_weights(list(taken.items()), strict=False)


def _computed_bytes(entry: Entry, *, on_cpu: bool) -> int:
    if on_cpu and entry.dtype in ("F16", "BF16"):
        return math.prod(entry.shape) * mx.float32.size
    return entry.data_offsets[1] - entry.data_offsets[0]
