"""What a mechanism declares of itself, so that models, tests, tables and benchmarks need no word about it.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.attention.interface import Attention, Capabilities, LayerShape
from zoo.config import MOST, require, require_within
from zoo.ops.masks import MaskSpec

# op(*arrays, spec) -> y_BNLH. Most take q_BNLH, k_BKSH, v_BKSH; what else a mechanism needs follows them.
Op = Callable[..., mx.array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadGrouping:
    """Parameters that every mechanism with shared key/value heads has; by default the model's own grouping.

    Attributes:
        num_kv_heads: Number of key/value heads, or None.
        queries_per_kv_head: Query heads that share one key/value head, or None. At most one of the two is set.
    """

    num_kv_heads: int | None = None
    queries_per_kv_head: int | None = None

    def __post_init__(self) -> None:
        both = self.num_kv_heads is not None and self.queries_per_kv_head is not None
        require(not both, "num_kv_heads", "not be given together with queries_per_kv_head", self.num_kv_heads)
        require_within(self, 1, MOST, "num_kv_heads", "queries_per_kv_head")

    def resolve(self, shape: LayerShape) -> int:
        """Number of key/value heads in a model of this shape.

        Raises:
            FieldError: If they do not divide the query heads.
        """
        if self.queries_per_kv_head is not None:
            divides = shape.num_heads % self.queries_per_kv_head == 0
            condition = f"divide the model's {shape.num_heads} heads"
            require(divides, "attention.queries_per_kv_head", condition, self.queries_per_kv_head)
            return shape.num_heads // self.queries_per_kv_head
        count = shape.num_kv_heads if self.num_kv_heads is None else self.num_kv_heads
        require(
            shape.num_heads % count == 0, "attention.num_kv_heads", f"divide the model's {shape.num_heads} heads", count
        )
        return count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The mathematics of an attention, with every way to compute it.

    Attributes:
        name: Registry name; equals the file name.
        config: Frozen dataclass of its parameters.
        implementations: Name -> function of a config that returns an op; the first is the default.
        capabilities: What a configured mechanism can do, given the config and the implementation's name.
        build: Makes a layer from config, implementation name and layer shape.
        make_spec: Makes the op's last argument from config, mask, head_dim and ALiBi slopes (or None).
        reference: The explicit float64 NumPy meaning, with the op's signature.
        sample_inputs: Random float64 inputs of the op from (generator, B, L, N, K, H), `learned` left out.
        pattern: `allowed(query_index, key_index, config)`, for softmax mechanisms.
        separate_heads: Whether a query head's output depends on nothing of other heads, their number included; not
            where a function of all heads' scores is the mechanism's own.
        learned: Initial values by name of arrays that the layer owns and the op takes last, from (config, N).
    """

    name: str
    config: type[Any]
    implementations: Mapping[str, Callable[[Any], Op]]
    capabilities: Callable[[Any, str], Capabilities]
    build: Callable[[Any, str, LayerShape], Attention]
    make_spec: Callable[[Any, MaskSpec, int, mx.array | None], Any]
    reference: Callable[..., np.ndarray]
    sample_inputs: Callable[..., tuple[np.ndarray, ...]]
    pattern: Callable[[Any, Any, Any], Any] | None = None
    separate_heads: bool = True
    learned: Callable[[Any, int], Mapping[str, mx.array]] | None = None

    def inputs(self, parameters: Any, generator: np.random.Generator, *sizes: int) -> tuple[np.ndarray, ...]:
        """Random float64 inputs of the op of this configuration from (B, L, N, K, H), what it learns included."""
        arrays = self.sample_inputs(generator, *sizes)
        if self.learned is None:
            return arrays
        initial = [np.array(array.astype(mx.float32)) for array in self.learned(parameters, sizes[2]).values()]
        # Near where they begin, so that what has to be positive stays so.
        return (*arrays, *(array + generator.uniform(-0.5, 0.5, array.shape) for array in initial))


def sample_qkv(
    generator: np.random.Generator, B: int, L: int, N: int, K: int, H: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard-normal queries [B, N, L, H], keys and values [B, K, L, H], float64."""
    return (
        generator.standard_normal((B, N, L, H)),
        generator.standard_normal((B, K, L, H)),
        generator.standard_normal((B, K, L, H)),
    )
