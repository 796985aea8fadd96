"""Adapter files as mlx-lm writes and reads them, and the checkpoints that hold nothing else of a model.

    adapters.safetensors   what was trained, by mlx-lm's names; what is no adapter of it mlx-lm passes over
    adapter_config.json    fine_tune_type, num_layers, lora_parameters

A checkpoint of an adapted model names its base by folder and digest; the base is loaded first, then adapted.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from zoo.checkpoints.tensors import open_tensors, read_tensors, write_tensors
from zoo.config import from_mapping, to_mapping
from zoo.models.adapters import Adapters, adapted_keys

ADAPTERS = "adapters.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
# Numbers of each array that its digest looks at: enough to tell models apart, and quick for any size.
_SAMPLED = 256


def write_adapters(folder: Path, model: nn.Module) -> None:
    """Writes an adapted model's adapters into an existing folder, for `mlx_lm --adapter-path` and for here.

    Raises:
        OSError: If it cannot be written.
    """
    write_tensors(folder / ADAPTERS, {mlx_lm_name(model, name): array for name, array in _trained(model).items()})
    adapters: Adapters = model.adapters
    lora = adapters.lora
    config = {
        "fine_tune_type": adapters.kind,
        "num_layers": len(model.layers) if lora.num_layers is None else lora.num_layers,
        "lora_parameters": {
            "rank": lora.rank,
            "scale": lora.scale,
            "dropout": lora.dropout,
            "keys": adapted_keys(model),
        },
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def restore_adapters(model: nn.Module, stream: Any, path: Path) -> None:
    """Gives an adapted model what `write_adapters` wrote of one that was adapted in the same way.

    Args:
        model: Has adapters already.
        stream: The file of tensors.
        path: Its name in messages.

    Raises:
        UserError: If names, shapes or dtypes do not fit, or a number is not finite; names those that do not.
    """
    trained = _trained(model)
    own = names_in_file(model, trained, open_tensors(stream, path).entries)
    stream.seek(0)
    wanted = {foreign: trained[name] for foreign, name in own.items()}
    arrays = read_tensors(stream, path, wanted, what="the model's adapters", same_dtypes=False)
    # Trained in float32, what is no adapter takes the model's dtype again.
    model.load_weights([(own[name], array.astype(wanted[name].dtype)) for name, array in arrays.items()], strict=False)
    mx.eval(model.parameters())


def adapters_as_mapping(adapters: Adapters) -> dict[str, Any]:
    """JSON-ready; `adapters_from_mapping` turns it back."""
    return to_mapping(adapters)


def adapters_from_mapping(mapping: Mapping[str, Any], *, path: str) -> Adapters:
    """What a checkpoint says of its adapters.

    Raises:
        UserError: On a missing, unknown or mistyped field.
    """
    return from_mapping(Adapters, mapping, path=path)


def weights_fingerprint(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """A digest of a model's weights: of every array its name, shape and dtype, and a sample of its numbers.

    Args:
        model: Any.
        without: Names of arrays that do not count.
    """
    digest = hashlib.sha256()
    for name, array in sorted(dict(tree_flatten(model.parameters())).items()):
        if name in without:
            continue
        flat = array.reshape(-1)
        places = mx.array(np.linspace(0, max(0, flat.size - 1), num=min(_SAMPLED, flat.size), dtype=np.int64))
        digest.update(f"{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(np.array(flat[places].astype(mx.float32)).tobytes())
    return digest.hexdigest()


def _trained(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.trainable_parameters()))


def mlx_lm_name(model: nn.Module, name: str) -> str:
    """A parameter's name in mlx-lm, whose language models keep all but the head below `model`."""
    return f"model.{name}" if model.config.causal and not name.startswith("lm_head") else name


def names_in_file(model: nn.Module, names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Our names of parameters by those of a file, which are mlx-lm's; of a GPT's earlier ones ours."""
    theirs = {mlx_lm_name(model, name): name for name in names}
    ours = {name: name for name in theirs.values()}
    return ours if not theirs.keys() & known and ours.keys() & known else theirs
