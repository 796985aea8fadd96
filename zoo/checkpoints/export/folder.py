"""Writes a model as a folder in Hugging Face's layout: config, weights in shards, tokenizer, code if it needs any."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.export.bundle import bundle
from zoo.checkpoints.export.layout import MODEL_FILE, Layout, layout_of
from zoo.checkpoints.huggingface.load import family_of, is_folder, read_config
from zoo.checkpoints.huggingface.table import Tensor, tensors
from zoo.checkpoints.huggingface.weights import INDEX, SINGLE, open_weights
from zoo.checkpoints.manifest import MANIFEST
from zoo.checkpoints.save import CONFIG, write_json
from zoo.checkpoints.tensors import dtype_of, require_finite, write_tensors
from zoo.data.tokenizers import Tokenizer

# As mlx-lm and transformers cut them.
SHARD_BYTES = 5 * 2**30
# What the tokenizer of a folder consists of, and how its model is to be asked.
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
_GENERATION = "generation_config.json"
# What a config says of tokens and classes.
_KEPT = (
    *(f"{name}_token_id" for name in ("bos", "eos", "pad", "sep", "cls", "mask")),
    *("id2label", "label2id", "problem_type"),
)


def export_model(
    folder: Path,
    model: nn.Module,
    *,
    tokenizer: Tokenizer | None,
    source: Path | None = None,
    dtype: mx.Dtype | None = None,
) -> Layout:
    """Writes a model into an empty folder.

    Args:
        folder: Exists, and holds nothing.
        model: A whole model, without adapters.
        tokenizer: Its tokenizer.
        source: Where the model comes from. Of a folder in Hugging Face's layout the tokenizer's files are taken as
            they are, and what the config says of tokens and classes.
        dtype: Of weights that are not quantized; None for that of the source, tensor by tensor, or else the model's.

    Returns:
        What was written.

    Raises:
        UserError: If no other tool can compute it, or a weight does not fit the dtype.
        OSError: If it cannot be written.
    """
    foreign = _foreign(source)
    before = {} if foreign is None else read_config(foreign)
    layout = layout_of(model, preferred=before.get("model_type"))
    named = _write_tokenizer(folder, tokenizer, foreign)
    dtypes = {} if foreign is None or dtype is not None else _stored_dtypes(foreign, before, model)
    arrays = dict(tree_flatten(model.parameters()))
    used = _write_weights(folder, layout.table, arrays, dtypes=dtypes, dtype=dtype)
    name = str(used).rpartition(".")[2]
    kept = {key: before[key] for key in _KEPT if key in before}
    # Version 4 of transformers knows the second name alone.
    config = {**layout.config, **named, **kept, "dtype": name, "torch_dtype": name}
    write_json(folder / CONFIG, config)
    if layout.has_model_file:
        (folder / MODEL_FILE).write_text(bundle(model.config), encoding="utf-8")
    return layout


def stored_dtype(source: Path) -> mx.Dtype | None:
    """The dtype that most weights of a folder in Hugging Face's layout have; None of anything else."""
    if _foreign(source) is None:
        return None
    with open_weights(source) as shards:
        return _usual(dtype_of(entry) for entry in shards.entries.values())


def _foreign(source: Path | None) -> Path | None:
    return source if source is not None and is_folder(source) and not (source / MANIFEST).exists() else None


def _usual(dtypes: Iterable[mx.Dtype]) -> mx.Dtype | None:
    counted = Counter(each for each in dtypes if mx.issubdtype(each, mx.floating)).most_common(1)
    return counted[0][0] if counted else None


def _write_tokenizer(folder: Path, tokenizer: Tokenizer | None, foreign: Path | None) -> dict[str, Any]:
    """Writes the tokenizer's files; gives what the config says of its tokens."""
    if foreign is not None:
        for pattern in (*_TOKENIZER, _GENERATION):
            for path in sorted(foreign.glob(pattern)):
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
        return {}
    if tokenizer is None:
        return {}
    tokenizer.export(folder)
    ends = sorted(tokenizer.end_ids)
    named = {"eos_token_id": ends[0] if len(ends) == 1 else ends, "pad_token_id": tokenizer.pad_id}
    write_json(folder / _GENERATION, named)
    return named


def _stored_dtypes(folder: Path, config: Mapping[str, Any], model: nn.Module) -> dict[str, mx.Dtype]:
    """The dtype of each float tensor of a folder, by the name of the first of our arrays that it holds."""
    with open_weights(folder) as shards:
        entries = shards.entries
    family = family_of(config, entries, where=f"checkpoint: {folder / CONFIG}")
    known = {name: dtype_of(entries[theirs]) for theirs, name in family.canonical(entries).items()}
    table = tensors(family.modules(model.config, known), dict(tree_flatten(model.parameters())))
    floats = {name for name, each in known.items() if mx.issubdtype(each, mx.floating)}
    return {tensor.ours[0]: known[tensor.theirs] for tensor in table if tensor.theirs in floats}


def _write_weights(
    folder: Path,
    table: list[Tensor],
    arrays: Mapping[str, mx.array],
    *,
    dtypes: Mapping[str, mx.Dtype],
    dtype: mx.Dtype | None,
) -> mx.Dtype:
    """Writes the tensors in shards; gives the dtype that most of them have."""
    usual = dtype or _usual(dtypes.values())

    def wanted(tensor: Tensor) -> mx.array:
        array = tensor.theirs_from(arrays)
        chosen = dtypes.get(tensor.ours[0], usual)
        is_float = mx.issubdtype(array.dtype, mx.floating)
        return array.astype(chosen) if chosen is not None and is_float else array

    shards = list(_shards(table, {tensor.theirs: wanted(tensor).nbytes for tensor in table}))
    index = {}
    used: list[mx.Dtype] = []
    for number, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        written = {tensor.theirs: wanted(tensor) for tensor in shard}
        require_finite(written, f"dtype: {folder / name}")
        write_tensors(folder / name, written)
        index.update(dict.fromkeys(written, name))
        used += [each.dtype for each in written.values()]
    if len(shards) > 1:
        total = sum(wanted(tensor).nbytes for tensor in table)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})
    return _usual(used) or mx.float32


def _shards(table: list[Tensor], sizes: Mapping[str, int]) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    size = 0
    for tensor in table:
        if shard and size + sizes[tensor.theirs] > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += sizes[tensor.theirs]
    yield shard
