"""A mechanism's pure op, without projections: `op(*arrays, spec) -> y_BNLH`.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from eval.bench import Workload
from eval.checks import verdict
from eval.checks.op import check_op
from eval.rows import Cell
from eval.workloads import FORWARDS, Setting, computed_function, random_normal, with_gradients, work_of
from zoo.attention import LayerShape, VariantConfig, build_attention, mechanism, variant_from_mapping
from zoo.attention.mechanism import Mechanism
from zoo.attention.variants.adaptive import AdaptiveConfig
from zoo.config import UserError, require
from zoo.ops.masks import MaskSpec

MODES = ("forward", "forward_backward")
# Sizes that `axes` asks an op's inputs for, twice: pairwise different, and with heads that can be shared.
_PROBES = ({"B": 2, "L": 3, "N": 10, "K": 5, "H": 8}, {"B": 4, "L": 13, "N": 22, "K": 11, "H": 16})
# An axis whose size is no matter of the call, and one whose size is made of several.
_FIXED, _MIXED = "1", "?"


def build(cell: Cell) -> Workload:
    """Builds a cell of level op.

    Modes: `forward` returns y; `forward_backward` returns y and the gradients, with respect to every input array, of
    the sum of y times fixed random weights.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    require(cell.mode in MODES, "modes", "suit an op", cell.mode, allowed=MODES)
    setting = op_setting(cell)
    gradient = cell.mode == "forward_backward"
    given, timed = setting.arguments(gradient=gradient), setting.function(gradient=gradient)
    layer = build_attention(setting.variant, setting.shape, 0)
    flops = layer.mixing_flops(query_length=cell.length, key_length=cell.length)
    work = work_of(
        setting.eager_function(gradient=gradient)(*given),
        useful_flops=None if flops is None else cell.batch_size * flops * FORWARDS[cell.mode],
        tokens=cell.batch_size * cell.length,
    )
    return Workload(
        call=functools.partial(timed, *given),
        check=lambda: verdict(check_op(setting, gradient=gradient, timed=timed)),
        work=work,
        function=computed_function(cell, setting.variant.capabilities.exact_class),
        analytic_bytes=op_bytes(setting, gradient=gradient),
    )


def op_setting(cell: Cell) -> "OpSetting":
    """The setting of a cell of level op.

    Raises:
        UserError: If the variant is a hybrid, or cannot do what the cell asks for.
    """
    setting = OpSetting(variant=single_variant(cell), shape=layer_shape(cell), cell=cell)
    setting.variant.shape_in(setting.shape)
    return setting


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpSetting(Setting):
    """What decides a call of an op.

    The cell says B, L, the dtype of all arrays and their seed, and whether the call is compiled.

    Attributes:
        variant: Mechanism, implementation and parameters.
        shape: The model around it; says N, K, H, and whether the future is hidden.
    """

    variant: VariantConfig
    shape: LayerShape

    @property
    def declared(self) -> Mechanism:
        """The mechanism."""
        return mechanism(self.variant.mechanism)

    @property
    def mask(self) -> MaskSpec:
        """Whole rows, causal or not."""
        return MaskSpec(causal=self.shape.causal)

    @functools.cached_property
    def num_kv_heads(self) -> int:
        """K of the variant."""
        return self.variant.shape_in(self.shape).num_kv_heads

    @property
    def spec(self) -> Any:
        """The op's last argument."""
        return self.declared.make_spec(self.variant.parameters, self.mask, self.shape.head_dim, None)

    def reference(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Float64 y_BNLH of the mechanism, from the first tokens of one head or more."""
        parameters, declared, spec = self.variant.parameters, self.declared, self.spec
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
        generator = np.random.default_rng(cell.seed)
        sizes = {"B": cell.batch_size, "L": cell.length, "N": shape.num_heads, "K": self.num_kv_heads}
        samples = self._samples(generator, **sizes, H=shape.head_dim)
        arrays = [mx.array(array.astype(np.float32)).astype(self.dtype) for array in samples]
        mx.eval(arrays)
        return arrays

    def cotangent(self) -> mx.array:
        """Random weights of the outputs, [B, N, L, H]; evaluated."""
        cell, shape = self.cell, self.shape
        sizes = cell.batch_size, shape.num_heads, cell.length, shape.head_dim
        return random_normal(*sizes, seed=cell.seed + 1, dtype=self.dtype)

    def arguments(self, *, gradient: bool) -> list[mx.array]:
        """What a call is given."""
        return [self.cotangent(), *self.inputs()] if gradient else self.inputs()

    def eager_function(self, *, gradient: bool) -> Callable[..., Any]:
        """`(*arrays) -> y_BNLH`; with the gradient `(cotangent, *arrays) -> (y_BNLH, gradients)`."""
        op = self.declared.implementations[self.variant.implementation](self.variant.parameters)

        def forward(*arrays: mx.array) -> mx.array:
            return op(*arrays, self.spec)

        return with_gradients(forward) if gradient else forward

    def function(self, *, gradient: bool) -> Callable[..., Any]:
        """`eager_function`, compiled if the cell says so."""
        eager = self.eager_function(gradient=gradient)
        return mx.compile(eager) if self.cell.compiled else eager


def op_bytes(setting: OpSetting, *, gradient: bool) -> int:
    """The least that any implementation of an op has to hold: what goes in and comes out, with their gradients."""
    cell, shape = setting.cell, setting.shape
    output = cell.batch_size * shape.num_heads * cell.length * shape.head_dim * setting.dtype.size
    return (output + sum(array.nbytes for array in setting.inputs())) * (2 if gradient else 1)
