"""A variant's pure op at one setting: its arrays, its specification, and how to call it forward and backward.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from eval.rows import Cell
from zoo.attention import LayerShape, VariantConfig, mechanism, variant_from_mapping
from zoo.attention.mechanism import Mechanism
from zoo.attention.variants.adaptive import AdaptiveConfig
from zoo.config import UserError
from zoo.ops.masks import MaskSpec
from zoo.runtime.backend import parse_dtype

# Sizes that `axes` asks an op's inputs for, twice: pairwise different, and with heads that can be shared.
_PROBES = ({"B": 2, "L": 3, "N": 10, "K": 5, "H": 8}, {"B": 4, "L": 13, "N": 22, "K": 11, "H": 16})
# An axis whose size is no matter of the call, and one whose size is made of several.
FIXED, MIXED = "1", "?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpSetting:
    """What decides a call of an op.

    Attributes:
        variant: Mechanism, implementation and parameters.
        batch_size: B.
        length: L.
        num_heads: N.
        num_kv_heads: K.
        head_dim: H.
        causal: Whether the future is hidden.
        dtype: Of all arrays.
        compiled: Whether the call is compiled.
        seed: Of the arrays.
    """

    variant: VariantConfig
    batch_size: int
    length: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    causal: bool
    dtype: mx.Dtype
    compiled: bool
    seed: int

    @property
    def declared(self) -> Mechanism:
        """The mechanism."""
        return mechanism(self.variant.mechanism)

    @property
    def spec(self) -> Any:
        """The op's last argument."""
        return self.declared.make_spec(self.variant.parameters, MaskSpec(causal=self.causal), self.head_dim, None)

    def reference(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Float64 y_BNLH of the mechanism, from the first tokens of one head or more."""
        parameters, spec = self.variant.parameters, self.spec
        declared = self.declared
        if isinstance(parameters, AdaptiveConfig) and parameters.allow_mechanisms:
            # Which mechanism answers is a matter of the whole length.
            chooser = parameters.chooser()
            member = chooser.members[chooser.mechanism(self.length)]
            declared, spec = member.declared, spec.of(member)
        y_BNLH: np.ndarray = declared.reference(*arrays, spec)
        return y_BNLH

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The axes of each input array by letter, such as "BNLH", or `FIXED` or `MIXED`; read off sample inputs."""
        grouped = self.variant.capabilities.grouped_heads
        probes = [{**probe, "K": probe["K"] if grouped else probe["N"]} for probe in _PROBES]
        shapes = [[array.shape for array in self._samples(np.random.default_rng(0), **probe)] for probe in probes]
        letters = {(probes[0][letter], probes[1][letter]): letter for letter in reversed(probes[0])}

        def axis(sizes: tuple[int, int]) -> str:
            return FIXED if sizes[0] == sizes[1] else letters.get(sizes, MIXED)

        pairs = zip(*shapes, strict=True)
        return tuple("".join(axis(sizes) for sizes in zip(*pair, strict=True)) for pair in pairs)

    @functools.cached_property
    def input_bytes(self) -> int:
        """Of all input arrays."""
        return sum(array.nbytes for array in self.inputs())

    def _samples(self, generator: np.random.Generator, **sizes: int) -> tuple[np.ndarray, ...]:
        return self.declared.inputs(self.variant.parameters, generator, *(sizes[axis] for axis in "BLNKH"))

    def inputs(self) -> list[mx.array]:
        """Random arrays, the same for every variant that takes the same kind of arrays; evaluated."""
        generator = np.random.default_rng(self.seed)
        sizes = {"B": self.batch_size, "L": self.length, "N": self.num_heads, "K": self.num_kv_heads}
        samples = self._samples(generator, **sizes, H=self.head_dim)
        arrays = [mx.array(array.astype(np.float32)).astype(self.dtype) for array in samples]
        mx.eval(arrays)
        return arrays

    def cotangent(self) -> mx.array:
        """Random weights of the outputs, [B, N, L, H]; evaluated."""
        generator = np.random.default_rng(self.seed + 1)
        shape = (self.batch_size, self.num_heads, self.length, self.head_dim)
        weights_BNLH = mx.array(generator.standard_normal(shape, dtype=np.float32)).astype(self.dtype)
        mx.eval(weights_BNLH)
        return weights_BNLH

    def eager_forward(self) -> Callable[..., mx.array]:
        """`(*arrays) -> y_BNLH`."""
        op = self.declared.implementations[self.variant.implementation](self.variant.parameters)
        return lambda *arrays: op(*arrays, self.spec)

    def eager_backward(self) -> Callable[..., tuple[mx.array, list[mx.array]]]:
        """`(cotangent, *arrays) -> (y_BNLH, gradients)`: those of the sum of y times the cotangent."""
        forward = self.eager_forward()

        def backward(cotangent_BNLH: mx.array, *arrays: mx.array) -> tuple[mx.array, list[mx.array]]:
            outputs, gradients = mx.vjp(forward, list(arrays), [cotangent_BNLH])
            return outputs[0], gradients

        return backward

    def forward(self) -> Callable[..., mx.array]:
        """`eager_forward`, compiled if the setting says so."""
        return mx.compile(self.eager_forward()) if self.compiled else self.eager_forward()

    def backward(self) -> Callable[..., tuple[mx.array, list[mx.array]]]:
        """`eager_backward`, compiled if the setting says so."""
        return mx.compile(self.eager_backward()) if self.compiled else self.eager_backward()


def single_variant(cell: Cell) -> VariantConfig:
    """The variant of a cell whose level has one attention.

    Raises:
        UserError: If it is a hybrid.
    """
    variant = variant_from_mapping(cell.attention_mapping)
    if not isinstance(variant, VariantConfig):
        raise UserError(f"variants: {cell.variant} is a hybrid, which has no single {cell.level}; use level=model")
    return variant


def layer_shape(cell: Cell, *, positions: Any = "none") -> LayerShape:
    """The shape of the model that a cell of level op or layer imagines around its attention."""
    hidden_size = cell.num_heads * cell.head_dim if cell.hidden_size is None else cell.hidden_size
    return LayerShape(
        hidden_size=hidden_size,
        num_heads=cell.num_heads,
        num_kv_heads=cell.num_heads if cell.num_kv_heads is None else cell.num_kv_heads,
        head_dim=cell.head_dim,
        causal=cell.causal,
        max_seq_len=cell.length,
        positions=positions,
    )


def op_setting(cell: Cell) -> OpSetting:
    """The setting of a cell of level op or layer.

    Raises:
        UserError: If the variant is a hybrid, or cannot do what the cell asks for.
    """
    variant = single_variant(cell)
    return OpSetting(
        variant=variant,
        batch_size=cell.batch_size,
        length=cell.length,
        num_heads=cell.num_heads,
        num_kv_heads=variant.shape_in(layer_shape(cell)).num_kv_heads,
        head_dim=cell.head_dim,
        causal=cell.causal,
        dtype=parse_dtype(cell.dtype),
        compiled=cell.compiled,
        seed=cell.seed,
    )
