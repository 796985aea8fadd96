"""Weights that MLX has quantized: which layers, and how, as `quantization` in `config.json` says."""

from collections.abc import Collection, Mapping
from typing import Any

import mlx.nn as nn

from zoo.checkpoints.huggingface.table import Module
from zoo.checkpoints.schemes import Scheme, quantize_layers
from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened


def quantize(
    model: nn.Module, config: Mapping[str, Any], *, modules: Collection[Module], names: Mapping[str, str], where: str
) -> None:
    """Makes those layers of a model quantized ones that a checkpoint has so; their weights are still to come.

    Args:
        model: Freshly built.
        config: The whole `config.json`.
        modules: The table.
        names: The tensors that the checkpoint has: name in the table -> name in the file.
        where: What to call `config.json` in messages.

    Raises:
        UserError: If another tool has quantized it, or MLX knows no such scheme.
    """
    # MLX writes the same under both names; of other tools there is the second one alone.
    other = config.get("quantization_config")
    given = config.get("quantization")
    if given is None and other is not None:
        method = other.get("quant_method") if isinstance(other, Mapping) else other
        if method is not None:
            raise UserError(
                f"{where}: quantization_config must be MLX's; got quant_method {shortened(method)} (load the original,"
                " or convert that with mlx_lm.convert -q)"
            )
        given = other
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: quantization must be a mapping; got {shortened(given)}")
    schemes = {}
    for module in modules:
        if f"{module.theirs}.scales" in names:
            path = names[f"{module.theirs}.scales"].removesuffix(".scales")
            scheme = _scheme(given, path, where)
            schemes.update(dict.fromkeys(module.ours, scheme))

    quantize_layers(model, schemes, where=where)


def _scheme(given: Mapping[str, Any], path: str, where: str) -> Scheme:
    """Of one layer; what the config says of it alone comes first."""
    own = given.get(path)
    mapping = own if isinstance(own, Mapping) else given
    picked = {key: mapping[key] for key in ("group_size", "bits", "mode") if key in mapping}
    return from_mapping(Scheme, picked, path=f"{where}: quantization")
