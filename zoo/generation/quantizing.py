"""Keys and values in few bits: which caches can be quantized, and how."""

import dataclasses
from typing import Any

from zoo.config import UserError, require
from zoo.generation.model import LanguageModel
from zoo.layers.caches import KVCache, QuantizedKVCache

# mlx-lm's cache packs whole numbers of values into 32 bits; and what MLX quantizes together.
_BITS, _GROUP_SIZES = (2, 4, 8), (32, 64, 128)
# Without a choice, in this order: larger groups cost fewer bytes, smaller ones fit more heads.
_USUAL_GROUP_SIZES = (64, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheQuantization:
    """How keys and values are kept.

    Attributes:
        bits: Of each number.
        group_size: Numbers of a head that share a scale; None for 64, or 32 where heads are no multiple of that.
    """

    bits: int
    group_size: int | None = None

    def __post_init__(self) -> None:
        require(self.bits in _BITS, "kv_bits", "be a number of bits that caches have", self.bits, allowed=_BITS)
        known = self.group_size is None or self.group_size in _GROUP_SIZES
        require(known, "kv_group_size", "be a size of groups", self.group_size, allowed=_GROUP_SIZES)

    def make_cache(self, model: LanguageModel) -> list[Any]:
        """Empty caches of a model, quantized.

        Raises:
            UserError: If one of them cannot be; names the attention and the cache.
        """
        made = model.make_cache()
        other = next((layer for layer in made if not isinstance(layer, KVCache)), None)
        if other is not None:
            raise UserError(
                f"kv_bits must be null with attention {model.config.attention.name!r}: it keeps a"
                f" {type(other).__name__}, which is not quantized"
            )
        head_dim = model.config.resolved_head_dim
        sizes = _USUAL_GROUP_SIZES if self.group_size is None else (self.group_size,)
        size = next((size for size in sizes if head_dim % size == 0), None)
        if size is None:
            raise UserError(
                f"kv_group_size must divide the model's head_dim = {head_dim}; got {sizes[-1]}"
                f" (choices: {', '.join(map(str, _GROUP_SIZES))}; heads of other sizes are not quantized)"
            )
        return [QuantizedKVCache(group_size=size, bits=self.bits) for _ in made]
