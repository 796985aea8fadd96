"""How the layers of a model are quantized: written with a checkpoint, and done to a fresh model before its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import mlx.nn as nn

from zoo.config import UserError, from_mapping, require
from zoo.layers.quantized import suit_to_backend

# Group sizes and bits of MLX's modes; what is none of these is not left to MLX, which some of them crash.
_MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((32, 64, 128), (2, 3, 4, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer's, so that what is no mapping is refused as such."""

    scheme: Scheme


def quantize_layers(model: nn.Module, schemes: Mapping[str, Scheme], *, where: str) -> None:
    """Makes layers of a model quantized ones; their weights are still to come.

    Args:
        model: Freshly built.
        schemes: By the layer's name.
        where: What says so, for messages.

    Raises:
        UserError: If a layer cannot be quantized so.
    """

    def chosen(path: str, module: nn.Module) -> bool | dict[str, Any]:
        scheme = schemes.get(path)
        return False if scheme is None else dataclasses.asdict(scheme)

    try:
        nn.quantize(model, class_predicate=chosen)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: quantization must be one that MLX can do to these layers; {reason}") from None
    suit_to_backend(model)


def quantize_weights(model: nn.Module, scheme: Scheme) -> int:
    """Quantizes the matrices of a model, embeddings included, in place; those of other widths stay as they are.

    Args:
        model: Without adapters and quantized layers.
        scheme: How.

    Returns:
        How many there are.

    Raises:
        UserError: If some are quantized already, or the width of none is a multiple of the group's size.
    """
    require_plain(model)

    def fits(path: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear | nn.Embedding) and module.weight.shape[-1] % scheme.group_size == 0

    nn.quantize(model, scheme.group_size, scheme.bits, mode=scheme.mode, class_predicate=fits)
    count = len(schemes_of(model))
    if not count:
        widths = sorted({each.weight.shape[-1] for _, each in model.named_modules() if isinstance(each, nn.Linear)})
        raise UserError(
            f"quantization.group_size must divide the width of a matrix, of {widths}; got {scheme.group_size}"
        )
    suit_to_backend(model)
    return count


def require_plain(model: nn.Module) -> None:
    """Refuses to quantize a model that is quantized.

    Raises:
        UserError: If it is.
    """
    if schemes_of(model):
        raise UserError("quantization must be left out for a model that is quantized already (or give dequantize=true)")


def dequantize_weights(model: nn.Module) -> None:
    """Writes the quantized layers of a model out as plain ones, in place."""
    # Late: it imports transformers.
    from mlx_lm.utils import dequantize_model

    dequantize_model(model)


def schemes_from(mapping: Mapping[str, Any], *, where: str) -> dict[str, Scheme]:
    """What `schemes_of` gave, as it was written.

    Raises:
        UserError: If it is no such mapping.
    """
    path = f"{where}: quantized"
    return {name: from_mapping(_Layer, {"scheme": each}, path=path).scheme for name, each in mapping.items()}


def schemes_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """How the layers of a model are quantized, as plain mappings by name; those that are not are left out."""
    kinds = (nn.QuantizedLinear, nn.QuantizedEmbedding)
    return {
        name: {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }
