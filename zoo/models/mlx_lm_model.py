"""A language model of ours as mlx-lm takes one: what the `model_file` of an exported folder gives it.

Parameters have the names of mlx-lm's Llama: everything below `model.`, but for an output projection of its own.
"""

import dataclasses
import functools
import itertools
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.base import BaseModelArgs

from zoo.config import UserError
from zoo.layers.caches import KVCache, QuantizedKVCache
from zoo.models.build import build_model
from zoo.models.config import model_config_from_mapping


@dataclasses.dataclass
class ModelArgs(BaseModelArgs):
    """What is read of `config.json`.

    Attributes:
        model_type: The architecture's name.
        attention_zoo: The model's config in our words.
        attention_zoo_tensors: Of a checkpoint with names of another library's, each tensor's, those of our arrays that
            it holds one after the other, and whether it is transposed.
    """

    model_type: str
    attention_zoo: dict[str, Any]
    attention_zoo_tensors: list[tuple[str, list[str], bool]] | None = None


class Model(nn.Module):
    """The model."""

    def __init__(self, args: ModelArgs) -> None:
        """Builds the model that a config describes."""
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model: Any = build_model(model_config_from_mapping(args.attention_zoo, path="attention_zoo"))
        if "lm_head" in self.model:
            self.lm_head = self.model.pop("lm_head")

    def __call__(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        """Token ids [B, L] to logits [B, L, V]."""
        x_BLD = self.model.hidden(inputs, cache=cache)
        return self.lm_head(x_BLD) if "lm_head" in self else self.model.embed_tokens.as_linear(x_BLD)

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks, which tools give adapters."""
        layers: list[nn.Module] = self.model.layers
        return layers

    def make_cache(self) -> list[Any]:
        """One empty cache for each layer, of one text."""
        caches = self.model.make_cache()
        for cache in caches:
            cache.__class__ = _alone(type(cache))  # type: ignore[arg-type]
        return caches

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The weights under our names, without a copy of the embedding that other tools may have saved as head."""
        own = dict(tree_flatten(self.parameters()))
        renamed = {name: array for name, array in weights.items() if "lm_head" in self or name != "lm_head.weight"}
        for theirs, ours, is_transposed in self.args.attention_zoo_tensors or ():
            if theirs in weights:
                array = renamed.pop(theirs).T if is_transposed else renamed.pop(theirs)
                ends = list(itertools.accumulate(own[name].shape[0] for name in ours))
                renamed.update(zip(ours, mx.split(array, ends[:-1]), strict=True))
        return renamed


class _Alone:
    """A cache that tells mlx-lm that it holds one text.

    In a batch mlx-lm puts padding before shorter texts, inside masks of its own making that our layers do not see. What
    has no `merge` it serves one by one, and refuses as a batch by name.
    """

    @property
    def merge(self) -> Any:
        raise AttributeError("merge: texts are read one by one")


class _AloneKVCache(_Alone, KVCache):
    """Keys and values of one text."""

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> Any:
        """The same in few bits."""
        if self.keys is not None and self.keys.shape[-1] % group_size:
            raise UserError(f"kv-group-size must divide the heads' width {self.keys.shape[-1]}; got {group_size}")
        quantized = super().to_quantized(group_size=group_size, bits=bits)
        quantized.__class__ = _alone(QuantizedKVCache)
        return quantized


@functools.cache
def _alone(cls: Any) -> type[Any]:
    # Of the same name, by which mlx-lm saves what it has read.
    return type(cls.__name__, (_AloneKVCache if cls is KVCache else _Alone, cls), {})
