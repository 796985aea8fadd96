"""Quantized layers for CPUs, where MLX multiplies quantized weights forty times more slowly than BLAS does plain ones.

    y = x W^T    with W written out for the moment, where x has more than a few rows

One row at a time, as in decoding, writing the weights out would cost more than it saves. The numbers are the same.
The backward pass writes them out again: kept from the forward pass on, those of all layers would exist at once.

Letters: B batch, L length, D inputs, E outputs.
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from zoo.runtime.backend import backend

# Where both ways cost the same, measured at 4 and 8 bits on an AVX-512 CPU.
_MOST_ROWS = 3


def _product(layer: nn.Module, x_BLD: mx.array) -> mx.array:
    """x W^T, as `mx.quantized_matmul`."""
    weights, scales, biases = layer["weight"], layer["scales"], layer.get("biases")
    scheme = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    if math.prod(x_BLD.shape[:-1]) <= _MOST_ROWS:
        return mx.quantized_matmul(x_BLD, weights, scales=scales, biases=biases, transpose=True, **scheme)

    def written_out(packed: tuple[mx.array, ...], after: mx.array) -> mx.array:
        # Later than what they are multiplied with, so that MLX takes no two writings for one.
        packed_weights, *rest = mx.depends(list(packed), [after])
        names = ("scales", "biases")
        return mx.dequantize(packed_weights, **dict(zip(names, rest, strict=False)), **scheme, dtype=after.dtype)

    def forward(x: mx.array, *packed: mx.array) -> mx.array:
        return x @ written_out(packed, x).T

    def backward(primals: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        packed = primals[1:]
        return (cotangent @ written_out(packed, cotangent), *(mx.zeros_like(each) for each in packed))

    product: Any = mx.custom_function(forward)
    product.vjp(backward)
    y_BLE: mx.array = product(x_BLD, weights, scales, *(() if biases is None else (biases,)))
    return y_BLE


class CpuQuantizedLinear(nn.QuantizedLinear):
    """`nn.QuantizedLinear` through BLAS."""

    def __call__(self, x_BLD: mx.array) -> mx.array:
        """Maps [..., D] to [..., E]."""
        y_BLE = _product(self, x_BLD)
        return y_BLE + self["bias"] if "bias" in self else y_BLE


class CpuQuantizedEmbedding(nn.QuantizedEmbedding):
    """`nn.QuantizedEmbedding` whose output projection goes through BLAS."""

    def as_linear(self, x_BLD: mx.array) -> mx.array:
        """Maps [..., D] to scores of the vocabulary."""
        return _product(self, x_BLD)


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.QuantizedLinear: CpuQuantizedLinear,
    nn.QuantizedEmbedding: CpuQuantizedEmbedding,
}


def suit_to_backend(model: nn.Module) -> None:
    """Puts these layers in place of a model's quantized ones where it is computed on a CPU."""
    if backend() != "cpu":
        return
    replaced = [(name, _as(_FASTER[type(each)], each)) for name, each in model.named_modules() if type(each) in _FASTER]
    model.update_modules(tree_unflatten(replaced))


def _as(cls: type[nn.Module], module: nn.Module) -> nn.Module:
    made = cls.__new__(cls)
    nn.Module.__init__(made)
    for name, value in {**vars(module), **module}.items():
        setattr(made, name, value)
    return made
