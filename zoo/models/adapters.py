"""Low-rank adapters on a frozen model: mlx-lm's own layers, so that its adapter files fit.

    LoRA:  y = W x + scale · B A x                                          Hu et al., https://arxiv.org/abs/2106.09685
    DoRA:  y = m · (W + scale · B A) x / ‖W + scale · B A‖                  Liu et al., https://arxiv.org/abs/2402.09353
    QLoRA: LoRA on quantized W                                              Dettmers et al., https://arxiv.org/abs/2305.14314

`scale` is mlx-lm's: what PEFT writes as alpha / rank.
"""

import dataclasses
from collections.abc import Iterator, Set
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear

from zoo.config import UserError, require, require_within
from zoo.layers.quantized import suit_to_backend

AdapterKind = Literal["lora", "dora"]
_LAYERS = (LoRALinear, DoRALinear)
# What MLX's affine quantization has kernels for.
_BITS, _GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """How large adapters are and where they sit.

    Attributes:
        rank: Of the update of each matrix.
        scale: The update's factor.
        dropout: Probability that an input of the update is dropped in training.
        keys: Linear layers of a block that get adapters, by their path in the block; null for all of them.
        num_layers: How many of the last blocks get adapters; null for all.
    """

    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    keys: tuple[str, ...] | None = None
    num_layers: int | None = None

    def __post_init__(self) -> None:
        require_within(self, 1, 2**16, "rank", "num_layers")
        require_within(self, 1e-30, 1e30, "scale")
        require(0 <= self.dropout < 1, "dropout", "be at least 0 and below 1", self.dropout)
        require(self.keys != (), "keys", "name at least one linear layer, or be null for all", [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How the frozen matrices of the blocks are quantized: MLX's affine form.

    Attributes:
        bits: Of each number.
        group_size: Numbers that share a scale and a bias.
    """

    bits: int = 4
    group_size: int = 64

    def __post_init__(self) -> None:
        require(self.bits in _BITS, "bits", "be one that can be computed with", self.bits, allowed=_BITS)
        require(self.group_size in _GROUPS, "group_size", "be a known one", self.group_size, allowed=_GROUPS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapters:
    """What a model with adapters was made of.

    Attributes:
        kind: Of the adapters.
        lora: Their size and place.
        quantization: Of the frozen matrices; None where they are as in the base.
        base: Folder of the checkpoint that was adapted, or its Hub id.
        base_fingerprint: Digest of the base's weights, without those named in `whole`.
        whole: Parameters, by name, that are trained themselves and saved with the adapters: what an exchanged attention
            has of its own, which is in no base.
    """

    kind: AdapterKind
    lora: LoRAConfig
    quantization: QuantizationConfig | None = None
    base: str
    base_fingerprint: str
    whole: tuple[str, ...] = ()


class _LoRALinear(LoRALinear):
    """Adds the update in its last product, where mlx-lm's scales and adds whole outputs: fewer passes over memory."""

    def __call__(self, x: mx.array) -> mx.array:
        """Of x [..., inputs], in its dtype, to [..., outputs]."""
        y, update = self.linear(x), self.scale * (self.dropout(x) @ self.lora_a)
        if y.dtype != update.dtype:
            return y + (update @ self.lora_b).astype(y.dtype)
        return mx.addmm(y, update, self.lora_b)


def attach_adapters(model: nn.Module, adapters: Adapters, *, dtype: mx.Dtype | None = None) -> None:
    """Freezes a model and gives it fresh adapters, in place; `model.adapters` says which.

    Args:
        model: A whole model, without adapters.
        adapters: Which.
        dtype: Of the frozen weights from now on, for training; None leaves them theirs. What is trained is float32.

    Raises:
        UserError: If the model has no such layers or blocks, or matrices that cannot be quantized.
    """
    # It imports transformers.
    from mlx_lm.tuner.utils import linear_to_lora_layers

    lora, whole = adapters.lora, frozenset(adapters.whole)
    names = dict(tree_flatten(model.parameters()))
    for name in adapters.whole:
        require(name in names, "whole", "name parameters of the model with this attention", name)
    keys = sorted({key for layer in model.layers for key, _ in _linear_layers(layer)})
    keys = [key for key in keys if not any(name.endswith(f".{key}.weight") for name in whole)]
    for key in lora.keys or ():
        require(key in keys, "lora.keys", "name linear layers of the model's blocks", key, allowed=keys)
    num_layers = len(model.layers) if lora.num_layers is None else lora.num_layers
    condition = f"be at most the model's {len(model.layers)}, or null"
    require(num_layers <= len(model.layers), "lora.num_layers", condition, num_layers)
    if adapters.quantization is not None:
        _quantize(model, adapters.quantization, whole)
    model.freeze()
    if dtype is not None:
        for name, each in dict(tree_flatten(model.parameters())).items():
            if name in whole or _is_wide(each, dtype):
                model.load_weights([(name, each.astype(mx.float32 if name in whole else dtype))], strict=False)
    modules = dict(model.named_modules())
    for name in whole:
        path, _, leaf = name.rpartition(".")
        modules[path].unfreeze(keys=leaf, recurse=False)
    sizes = {"rank": lora.rank, "scale": lora.scale, "dropout": lora.dropout, "keys": lora.keys or keys}
    linear_to_lora_layers(model, num_layers, sizes, use_dora=adapters.kind == "dora")
    # mlx-lm makes layers of its own class only.
    for module in model.modules():
        if type(module) is LoRALinear:
            module.__class__ = _LoRALinear
    model.adapters = adapters


def fuse_adapters(model: nn.Module) -> None:
    """Puts the adapters into the matrices that they adapt, which become float again where they were quantized."""
    fused = [
        (name, module.fuse(dequantize=True)) for name, module in model.named_modules() if isinstance(module, _LAYERS)
    ]
    model.update_modules(tree_unflatten(fused))
    model.unfreeze()
    model.adapters = None


def adapted_keys(model: nn.Module) -> list[str]:
    """Paths, inside their blocks, of the layers that have adapters."""
    return sorted({name for layer in model.layers for name, each in layer.named_modules() if isinstance(each, _LAYERS)})


def _linear_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, each in module.named_modules():
        if isinstance(each, nn.Linear | nn.QuantizedLinear):
            yield name, each


def _quantize(model: nn.Module, config: QuantizationConfig, whole: Set[str]) -> None:
    def wanted(name: str, module: nn.Module) -> bool:
        return name.startswith("layers.") and isinstance(module, nn.Linear) and f"{name}.weight" not in whole

    for name, each in model.named_modules():
        if wanted(name, each):
            width = each.weight.shape[-1]
            condition = f"divide the {width} inputs of {name}"
            require(width % config.group_size == 0, "quantization.group_size", condition, config.group_size)

    try:
        nn.quantize(model, config.group_size, config.bits, class_predicate=wanted)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"quantization must be one that MLX can do; {' '.join(str(error).split())}") from None
    suit_to_backend(model)


def _is_wide(array: mx.array, dtype: mx.Dtype) -> bool:
    return mx.issubdtype(array.dtype, mx.floating) and array.dtype.size > dtype.size
