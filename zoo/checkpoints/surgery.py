"""Exchanges the attention of a trained model: what both have stays, key/value heads are pooled, the rest begins anew.

Pooling is the recipe of Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints", https://arxiv.org/abs/2305.13245: the mean of the heads that one new head stands for.

Letters: K key/value heads, H head_dim.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.attention import Attention, LayerPattern, LayerShape, VariantConfig
from zoo.attention.registry import mechanism
from zoo.config import UserError
from zoo.config.errors import SHOWN, shortened
from zoo.layers.quantized import suit_to_backend
from zoo.models import Model, copied
from zoo.runtime.seeds import keeping_randomness

_GROUPED = ("k_proj", "v_proj")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheCost:
    """What the caches of a text cost before and after, in bytes of float32.

    Attributes:
        length: Tokens of the text.
        before: Bytes per token of it.
        after: The same.
    """

    length: int
    before: float
    after: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surgery:
    """What exchanging a model's attention did. Tensors are counted by their name within a layer.

    Attributes:
        attention: Name of the attention that was put in.
        layers: Numbers of the layers that have it now.
        num_layers: Of the model.
        reused: Tensors that are the original's.
        regrouped: Tensors of key/value heads that were pooled or repeated.
        new: Tensors that begin anew.
        dropped: Tensors of the original that have no place any more.
        begins: How new tensors begin, by the variant's name.
        parameters_before: Of the whole model.
        parameters_after: The same.
        cache: What caches cost; None of an encoder.
    """

    attention: str
    layers: tuple[int, ...]
    num_layers: int
    reused: dict[str, int]
    regrouped: dict[str, int]
    new: dict[str, int]
    dropped: dict[str, int]
    begins: dict[str, str]
    parameters_before: int
    parameters_after: int
    cache: CacheCost | None

    def new_names(self, swapped: nn.Module) -> tuple[str, ...]:
        """Full names of the new tensors in the model that came out."""
        names = {f"layers.{index}.self_attn.{name}" for index in self.layers for name in self.new}
        return tuple(name for name in dict(tree_flatten(swapped.parameters())) if name in names)

    def as_mapping(self) -> dict[str, Any]:
        """Plain, JSON-ready mapping."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    def lines(self) -> Iterator[str]:
        """The same in words, a line for each fact."""
        which = "all" if len(self.layers) == self.num_layers else ", ".join(map(str, self.layers))
        yield f"attention {self.attention} in {len(self.layers)} of {self.num_layers} layers: {which}"
        for what in ("reused", "regrouped", "new", "dropped"):
            counts: dict[str, int] = getattr(self, what)
            if counts:
                yield f"{what}: {', '.join(f'{name} ({count} layers)' for name, count in counts.items())}"
        for name, how in self.begins.items():
            yield f"{name} begins {how}"
        change = self.parameters_after - self.parameters_before
        yield f"parameters: {self.parameters_before:,} before, {self.parameters_after:,} after ({change:+,})"
        if self.cache is not None:
            before, after, length = self.cache.before, self.cache.after, self.cache.length
            yield f"cache per token of {length:,}: {before:,.0f} bytes before, {after:,.0f} after"


def swap_attention(
    model: Model, attention: VariantConfig | LayerPattern, *, layers: Sequence[int] | None = None
) -> tuple[Model, Surgery]:
    """A copy of a model with another attention; the arrays that stay are shared, so it takes little memory.

    Projections, norms and positions stay the original's. New tensors always begin with the same values.

    Args:
        model: A trained model; it is not changed.
        attention: A variant, or a hybrid, whose variant number i belongs to layer number i of the model.
        layers: Numbers of the layers to exchange, from the end if negative; None for all.

    Returns:
        The copy, whose config says what it is now, and what was done.

    Raises:
        UserError: If a layer does not exist, the attention cannot do what the model needs, the heads cannot be
            regrouped, or adapters are in the way.
    """
    config = model.config
    chosen = _indices(layers, config.num_layers)
    swapped = copied(model)
    tally, begins = _Tally(), {}
    for index in chosen:
        block, before, after = swapped.layers[index], config.attention.layer(index), attention.layer(index)
        block.self_attn, how = _exchanged(
            block.self_attn, before, after, shape=config.layer_shape, index=index, tally=tally
        )
        if how is not None:
            begins[after.name] = how
    suit_to_backend(swapped)
    now = attention
    if len(chosen) < config.num_layers:
        of_layer = {index: attention.layer(index) for index in chosen}
        now = _mixed(tuple(of_layer.get(index, config.attention.layer(index)) for index in range(config.num_layers)))
    swapped.config = dataclasses.replace(config, attention=now)
    return swapped, Surgery(
        attention=attention.name,
        layers=chosen,
        num_layers=config.num_layers,
        **vars(tally),
        begins=begins,
        parameters_before=model.num_parameters(),
        parameters_after=swapped.num_parameters(),
        cache=_cache_cost(model, swapped),
    )


def exchanged(
    model: Model, attention: VariantConfig | LayerPattern | None, layers: Sequence[int] | None
) -> tuple[Model, Surgery | None]:
    """As `swap_attention`, but where no attention is asked for the model itself.

    Raises:
        UserError: As `swap_attention`, or if layers are named for no other attention.
    """
    if attention is not None:
        return swap_attention(model, attention, layers=layers)
    if layers is not None:
        raise UserError(f"layers must be null without another attention; got {shortened(list(layers))}")
    return model, None


@dataclasses.dataclass
class _Tally:
    """Counts what becomes of each tensor, by its name within a layer."""

    reused: dict[str, int] = dataclasses.field(default_factory=dict)
    regrouped: dict[str, int] = dataclasses.field(default_factory=dict)
    new: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, what: str, names: Iterable[str]) -> None:
        counts: dict[str, int] = getattr(self, what)
        for name in names:
            counts[name] = counts.get(name, 0) + 1


def _indices(layers: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(num_layers))
    if not layers:
        raise UserError("layers must name at least one layer, or be null for all; got []")
    for layer in layers:
        if not -num_layers <= layer < num_layers:
            raise UserError(f"layers must be numbers from {-num_layers} to {num_layers - 1}; got {shortened(layer)}")
    return tuple(sorted({layer % num_layers for layer in layers}))


def _mixed(layers: tuple[VariantConfig, ...]) -> LayerPattern:
    """Layers of several variants, named after them."""
    name = "+".join(dict.fromkeys(layer.name for layer in layers))
    return LayerPattern(name=name if len(name) <= SHOWN else "mixed", layer_pattern=layers)


def _exchanged(
    old: Attention, before: VariantConfig, after: VariantConfig, *, shape: LayerShape, index: int, tally: _Tally
) -> tuple[Attention, str | None]:
    """The layer that takes a layer's place, and how what is new in it begins; None if nothing is."""
    declared = mechanism(after.mechanism)
    with keeping_randomness():
        mx.random.seed(index)
        new: Any = declared.make_layer(after.parameters, after.implementation, shape)
    arrays = dict(tree_flatten(old.parameters()))
    new.set_dtype(next(array.dtype for array in arrays.values() if mx.issubdtype(array.dtype, mx.floating)))
    begins = "as in a new model" if declared.settle is None else declared.settle(new)
    fresh = dict(tree_flatten(new.parameters()))
    regrouped = []
    heads = before.shape_in(shape).num_kv_heads, after.shape_in(shape).num_kv_heads
    for name, child in old.children().items():
        if name not in new:
            continue
        if name in _GROUPED and heads[0] != heads[1]:
            new[name] = _regrouped(child, *heads)
            regrouped.append(name)
        elif _sizes(child) == _sizes(new[name]):
            new[name] = child
    if before.mechanism == after.mechanism:
        for name, array in old.items():
            if isinstance(array, mx.array) and name in new and new[name].shape == array.shape:
                new[name] = array
    new.train(old.training)
    after_arrays = dict(tree_flatten(new.parameters()))
    kept = {name for name, array in after_arrays.items() if array is not fresh.get(name)}
    pooled = {name for name in kept if name.partition(".")[0] in regrouped}
    tally.add("reused", sorted(kept - pooled))
    tally.add("regrouped", sorted(pooled))
    tally.add("new", sorted(after_arrays.keys() - kept))
    tally.add("dropped", sorted(arrays.keys() - after_arrays.keys()))
    return new, begins if after_arrays.keys() - kept else None


def _sizes(module: nn.Module) -> Any:
    """What has to be equal where one module takes another's place: inputs, outputs and bias of a linear layer."""
    inner = module.get("linear", module)
    if isinstance(inner, nn.QuantizedLinear):
        rows, packed = inner.weight.shape
        return (rows, packed * 32 // inner.bits), "bias" in inner
    if isinstance(inner, nn.Linear):
        return inner.weight.shape, "bias" in inner
    return sorted((name, array.shape) for name, array in dict(tree_flatten(module.parameters())).items())


def _regrouped(projection: nn.Module, before: int, after: int) -> nn.Module:
    """A key or value projection with another number of heads: means of neighbours, or each head repeated."""
    if not isinstance(projection, nn.Linear | nn.QuantizedLinear):
        raise UserError("attention: key/value heads can be regrouped only without adapters on them; fuse those first")
    if before % after and after % before:
        raise UserError(
            f"attention: num_kv_heads must divide, or be a multiple of, the {before} that the checkpoint has;"
            f" got {after}"
        )
    quantized = isinstance(projection, nn.QuantizedLinear)
    scheme = {key: getattr(projection, key) for key in ("group_size", "bits", "mode")} if quantized else {}
    weight: mx.array = projection["weight"]
    if quantized:
        weight = mx.dequantize(weight, projection["scales"], projection.get("biases"), **scheme)

    def pooled(array: mx.array) -> mx.array:
        heads = array.reshape(before, -1, *array.shape[1:])
        if before > after:
            heads = heads.reshape(after, before // after, *heads.shape[1:]).astype(mx.float32).mean(axis=1)
        else:
            heads = mx.repeat(heads, after // before, axis=0)
        return heads.reshape(-1, *array.shape[1:]).astype(array.dtype)

    made = nn.Linear(weight.shape[1], weight.shape[0] // before * after, bias="bias" in projection)
    made.weight = pooled(weight)
    if "bias" in projection:
        made.bias = pooled(projection["bias"])
    return made.to_quantized(**scheme) if quantized else made


def _cache_cost(before: Model, after: Model) -> CacheCost | None:
    if not before.config.causal:
        return None
    length = before.config.max_seq_len
    costs = [model.cache_bytes(batch_size=1, length=length, dtype=mx.float32) / length for model in (before, after)]
    return CacheCost(length=length, before=costs[0], after=costs[1])
