"""Weights that MLX has quantized: which layers, and how, as `quantization` in `config.json` says."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import mlx.nn as nn

from zoo.checkpoints.huggingface.table import Module
from zoo.config import UserError, from_mapping, require
from zoo.config.errors import shortened
from zoo.layers.quantized import suit_to_backend

# Group sizes and bits of MLX's modes; what is none of these is not left to MLX, which some of them crash.
_MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((32, 64, 128), (2, 3, 4, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scheme:
    """How a weight is quantized.

    Attributes:
        group_size: Weights that share a scale.
        bits: Of a weight.
        mode: One of MLX's.
    """

    group_size: int
    bits: int
    mode: str = "affine"

    def __post_init__(self) -> None:
        require(self.mode in _MODES, "mode", "be one of MLX's", self.mode, allowed=_MODES)
        group_sizes, bits = _MODES[self.mode]
        require(
            self.group_size in group_sizes,
            "group_size",
            f"be one of {self.mode}'s",
            self.group_size,
            allowed=group_sizes,
        )
        require(self.bits in bits, "bits", f"be one of {self.mode}'s", self.bits, allowed=bits)


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

    def chosen(path: str, module: nn.Module) -> bool | dict[str, Any]:
        scheme = schemes.get(path)
        return False if scheme is None else dataclasses.asdict(scheme)

    try:
        nn.quantize(model, class_predicate=chosen)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: quantization must be one that MLX can do to these layers; {reason}") from None
    suit_to_backend(model)


def _scheme(given: Mapping[str, Any], path: str, where: str) -> _Scheme:
    """Of one layer; what the config says of it alone comes first."""
    own = given.get(path)
    mapping = own if isinstance(own, Mapping) else given
    picked = {key: mapping[key] for key in ("group_size", "bits", "mode") if key in mapping}
    return from_mapping(_Scheme, picked, path=f"{where}: quantization")
