"""One attention: a mechanism's pure op, `op(*arrays, spec) -> y_BNLH`, and the layer around it, `x_BLD -> y_BLD`.

Modes of both: `forward` returns y; `forward_backward` returns y and the gradients, with respect to every argument, of
the sum of y times fixed random weights.

Letters: B batch, L length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from eval.bench import Workload
from eval.checks.attention import check_layer, check_op
from eval.rows import Cell
from eval.workloads import Setting, bytes_of, computed_function, named_arrays, with_gradients, workload_of
from zoo.attention import (
    Attention,
    LayerShape,
    PositionKind,
    VariantConfig,
    build_attention,
    mechanism,
    variant_from_mapping,
)
from zoo.attention.mechanism import Mechanism
from zoo.attention.variants.adaptive import AdaptiveConfig
from zoo.config import UserError, require
from zoo.ops.masks import MaskSpec

MODES = ("forward", "forward_backward")
# Sizes that `axes` asks an op's inputs for, twice: pairwise different, and with heads that can be shared.
_PROBES = ({"B": 2, "L": 3, "N": 10, "K": 5, "H": 8}, {"B": 4, "L": 13, "N": 22, "K": 11, "H": 16})
# An axis whose size is no matter of the call, and one whose size is made of several.
_FIXED, _MIXED = "1", "?"


def build_op(cell: Cell) -> Workload:
    """Builds a cell of level op.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    setting = attention_setting(cell)
    layer = build_attention(setting.variant, setting.shape, 0)
    flops = layer.mixing_flops(query_length=cell.length, key_length=cell.length)
    return workload_of(
        cell,
        setting.eager_function(),
        setting.arguments(),
        lambda timed: check_op(setting, timed),
        computes=computed_function(cell, setting.variant.capabilities.exact_class),
        useful_flops=None if flops is None else cell.batch_size * flops * setting.forwards,
        inside_bytes=0,
    )


def build_layer(cell: Cell) -> Workload:
    """Builds a cell of level layer; positions are "none" unless the cell's detail is `positions=KIND`.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    setting = attention_setting(cell)
    layer = setting.layer()
    function, given = setting.layer_function(layer), setting.layer_arguments(layer)
    inside = setting.op_bytes()
    if not cell.compiled and not setting.gradient:
        # As its users call it: what `layer_function` does to the weights is no part of an eager call.
        function, given = functools.partial(layer, mask=setting.mask), given[:1]
        inside += bytes_of(layer.parameters())
    flops = cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length)
    return workload_of(
        cell,
        function,
        given,
        lambda timed: check_layer(setting, layer, timed(*given)),
        computes=computed_function(cell, layer.capabilities.exact_class),
        useful_flops=flops * setting.forwards,
        inside_bytes=inside,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSetting(Setting):
    """What decides a call of an op or of the layer around it.

    Attributes:
        variant: Mechanism, implementation and parameters.
        shape: The model around it; says D, N, K, H, positions, and whether the future is hidden.
    """

    variant: VariantConfig
    shape: LayerShape

    def __hash__(self) -> int:
        # Parameters may hold mappings, which have no hash.
        return hash(self.cell)

    @property
    def declared(self) -> Mechanism:
        """The mechanism."""
        return mechanism(self.variant.mechanism)

    @property
    def mask(self) -> MaskSpec:
        """Whole rows, causal or not."""
        return MaskSpec(causal=self.shape.causal)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Of y_BNLH."""
        return self.cell.batch_size, self.shape.num_heads, self.cell.length, self.shape.head_dim

    @functools.cached_property
    def num_kv_heads(self) -> int:
        """K of the variant."""
        return self.variant.shape_in(self.shape).num_kv_heads

    def spec(self, slopes: mx.array | None = None) -> Any:
        """The op's last argument, with the slopes of ALiBi if they are given."""
        return self.declared.make_spec(self.variant.parameters, self.mask, self.shape.head_dim, slopes)

    def reference(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Float64 y_BNLH of the mechanism, from the first tokens of one head or more."""
        parameters, declared, spec = self.variant.parameters, self.declared, self.spec()
        if isinstance(parameters, AdaptiveConfig) and parameters.allow_mechanisms:
            # Which mechanism answers is a matter of the whole length.
            chooser = parameters.chooser()
            member = chooser.members[chooser.mechanism(self.cell.length)]
            declared, spec = member.declared, spec.of(member)
        y_BNLH: np.ndarray = declared.reference(*arrays, spec)
        return y_BNLH

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The axes of each input array by letter, such as "BNLH", or 1 or ? for others; read off sample inputs."""
        grouped = self.variant.capabilities.grouped_heads
        probes = [{**probe, "K": probe["K"] if grouped else probe["N"]} for probe in _PROBES]
        shapes = [[array.shape for array in self._samples(np.random.default_rng(0), **probe)] for probe in probes]
        letters = {(probes[0][letter], probes[1][letter]): letter for letter in reversed(probes[0])}

        def axis(sizes: tuple[int, int]) -> str:
            return _FIXED if sizes[0] == sizes[1] else letters.get(sizes, _MIXED)

        pairs = zip(*shapes, strict=True)
        return tuple("".join(axis(sizes) for sizes in zip(*pair, strict=True)) for pair in pairs)

    @property
    def has_rows(self) -> bool:
        """Whether it is known what of the inputs belongs to a row, a head and a token."""
        return all(_MIXED not in axes for axes in self.axes)

    def _samples(self, generator: np.random.Generator, **sizes: int) -> tuple[np.ndarray, ...]:
        return self.declared.inputs(self.variant.parameters, generator, *(sizes[axis] for axis in "BLNKH"))

    def inputs(self) -> list[mx.array]:
        """Random arrays, the same for every variant that takes the same kind of arrays; evaluated."""
        cell, shape = self.cell, self.shape
        sizes = {"B": cell.batch_size, "L": cell.length, "N": shape.num_heads, "K": self.num_kv_heads}
        samples = self._samples(np.random.default_rng(cell.seed), **sizes, H=shape.head_dim)
        arrays = [mx.array(array.astype(np.float32)).astype(self.dtype) for array in samples]
        mx.eval(arrays)
        return arrays

    def arguments(self) -> list[mx.array]:
        """What a call of the op is given: its inputs, and with the gradient first random weights of y_BNLH."""
        if not self.gradient:
            return self.inputs()
        return [self.normal(*self.output_shape, stream=1), *self.inputs()]

    def eager_function(self) -> Callable[..., Any]:
        """`(*arrays) -> y_BNLH`; with the gradient `(cotangent, *arrays) -> (y_BNLH, gradients)`."""
        op = self.declared.implementations[self.variant.implementation](self.variant.parameters)

        def forward(*arrays: mx.array) -> mx.array:
            return op(*arrays, self.spec())

        return with_gradients(forward) if self.gradient else forward

    def function(self) -> Callable[..., Any]:
        """`eager_function`, compiled if the cell says so."""
        return mx.compile(self.eager_function()) if self.cell.compiled else self.eager_function()

    def op_bytes(self) -> int:
        """The least that any implementation has to hold: what goes in and comes out, with their gradients."""
        output = math.prod(self.output_shape) * self.dtype.size
        return (output + bytes_of(self.inputs())) * (2 if self.gradient else 1)

    def layer(self) -> Attention:
        """The layer with the seed's weights, evaluated.

        Raises:
            UserError: If the mechanism cannot do what the shape asks for.
        """
        mx.random.seed(self.cell.seed)
        layer = build_attention(self.variant, self.shape, 0)
        layer.set_dtype(self.dtype)
        mx.eval(layer.parameters())
        return layer

    def hidden_states(self) -> mx.array:
        """Standard-normal x_BLD, evaluated."""
        return self.normal(self.cell.batch_size, self.cell.length, self.shape.hidden_size)

    def layer_arguments(self, layer: Attention) -> list[mx.array]:
        """What `layer_function` is given: x_BLD and the layer's weights, and with the gradient first those of y_BLD."""
        given = [self.hidden_states(), *named_arrays(layer.parameters()).values()]
        return [self.normal(*given[0].shape, stream=1), *given] if self.gradient else given

    def layer_function(self, layer: Attention) -> Callable[..., Any]:
        """`(x_BLD, *weights) -> y_BLD`; with the gradient `(cotangent, x_BLD, *weights) -> (y_BLD, gradients)`.

        Weights are arguments, so that they have gradients and compile as inputs.
        """
        own = layer.parameters()

        def forward(x_BLD: mx.array, *weights: mx.array) -> mx.array:
            layer.update(tree_unflatten(list(zip(named_arrays(own), weights, strict=True))))
            y_BLD = layer(x_BLD, mask=self.mask)
            layer.update(own)
            return y_BLD

        return with_gradients(forward) if self.gradient else forward


def attention_setting(cell: Cell) -> AttentionSetting:
    """The setting of a cell of level op or layer, in the shape of the model that it imagines around its attention.

    The detail of a layer may be `positions=KIND`, and is "none" otherwise.

    Raises:
        UserError: If the variant is a hybrid or cannot do what the cell asks for, or the detail is none of these.
    """
    require(
        cell.mode in MODES, "modes", "suit an op" if cell.level == "op" else "suit a layer", cell.mode, allowed=MODES
    )
    variant = variant_from_mapping(cell.attention_mapping)
    if not isinstance(variant, VariantConfig):
        raise UserError(f"variants: {cell.variant} is a hybrid, which has no single {cell.level}; use level=model")
    positions = cell.detail.removeprefix("positions=") if cell.level == "layer" and cell.detail else "none"
    require(positions in get_args(PositionKind), "detail", "be empty or positions=KIND", cell.detail)
    shape = LayerShape(
        hidden_size=cell.num_heads * cell.head_dim if cell.hidden_size is None else cell.hidden_size,
        num_heads=cell.num_heads,
        num_kv_heads=cell.num_heads if cell.num_kv_heads is None else cell.num_kv_heads,
        head_dim=cell.head_dim,
        causal=cell.causal,
        max_seq_len=cell.length,
        positions=cast(PositionKind, positions),
    )
    build_attention(variant, shape, 0)
    return AttentionSetting(variant=variant, shape=shape, cell=cell)
