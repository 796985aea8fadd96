"""What a mechanism declares of itself, so that models, tests, tables and benchmarks need no word about it.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from zoo.attention.interface import Attention, Capabilities, LayerShape, Mixer
from zoo.attention.projected import ProjectedAttention, require_capable
from zoo.config import MOST, UserError, require, require_within
from zoo.ops.masks import MaskSpec
from zoo.ops.native import why_no_native

# op(*arrays, spec) -> y_BNLH. Most take q_BNLH, k_BKSH, v_BKSH; what else a mechanism needs follows them.
Op = Callable[..., mx.array]
Own = TypeVar("Own", int, None)
# How implementations are named that compiled kernels compute.
NATIVE = "native"
# The one that stands for whichever of the others is fastest for a call.
AUTO = "auto"


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
        num_heads = shape.num_heads
        count = resolved_kv_heads(vars(self), num_heads=num_heads, num_kv_heads=shape.num_kv_heads)
        by = "num_kv_heads" if self.queries_per_kv_head is None else "queries_per_kv_head"
        divisor = self.queries_per_kv_head or count
        require(num_heads % divisor == 0, f"attention.{by}", f"divide the model's {num_heads} heads", divisor)
        return count


# The parameters that group heads.
GROUPING = tuple(field.name for field in dataclasses.fields(HeadGrouping))


def resolved_kv_heads(parameters: Mapping[str, Any], *, num_heads: int, num_kv_heads: Own) -> int | Own:
    """Key/value heads that a variant's parameters give a model whose own heads these are, None included."""
    queries, own = parameters.get("queries_per_kv_head"), parameters.get("num_kv_heads")
    if queries is not None:
        return int(num_heads // queries)
    return num_kv_heads if own is None else int(own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The mathematics of an attention, with every way to compute it.

    Attributes:
        name: Registry name; equals the file name.
        config: Frozen dataclass of its parameters.
        implementations: Name -> function of a config that returns an op; the first is the default.
        capabilities: What a configured mechanism can do, given the config and the implementation's name.
        mixer: Makes the mixer from config, implementation name and layer shape; None if `build` makes the layer.
        build: Makes a layer with projections of its own from the same; None if a mixer is all there is to it.
        make_spec: Makes the op's last argument from config, mask, head_dim and ALiBi slopes (or None).
        reference: The explicit float64 NumPy meaning, with the op's signature.
        sample_inputs: Random float64 inputs of the op from (generator, B, L, N, K, H), `learned` left out.
        pattern: `allowed(query_index, key_index, config)`, for softmax mechanisms.
        separate_heads: Whether a query head's output depends on nothing of other heads, their number included; not
            where a function of all heads' scores is the mechanism's own.
        learned: Initial values by name of arrays that the layer owns and the op takes last, from (config, N).
        settle: `settle(layer)` changes how what a layer learns begins, so that it disturbs a trained model least, and
            says how, in words; None where it begins as in a new model.
        packaged: Implementations that need our own kernels.
        why_no_kernels: Why this device has none for them, in words; None if it has. Those of softmax attention are on a
            processor the optional package's, on a GPU those that agreed with the plain implementation there.
        tuning: Parameters that change how fast it is and never the result.
        stands_for: Mechanism and parameters whose function a config computes, where they are another's.
    """

    name: str
    config: type[Any]
    implementations: Mapping[str, Callable[[Any], Op]]
    capabilities: Callable[[Any, str], Capabilities]
    make_spec: Callable[[Any, MaskSpec, int, mx.array | None], Any]
    reference: Callable[..., np.ndarray]
    sample_inputs: Callable[..., tuple[np.ndarray, ...]]
    mixer: Callable[[Any, str, LayerShape], Mixer] | None = None
    build: Callable[[Any, str, LayerShape], Attention] | None = None
    pattern: Callable[[Any, Any, Any], Any] | None = None
    separate_heads: bool = True
    learned: Callable[[Any, int], Mapping[str, mx.array]] | None = None
    settle: Callable[[Any], str] | None = None
    packaged: tuple[str, ...] = ()
    why_no_kernels: Callable[[], str | None] = why_no_native
    tuning: tuple[str, ...] = ()
    stands_for: Callable[[Any], tuple["Mechanism", Any]] | None = None

    def __post_init__(self) -> None:
        if (self.mixer is None) == (self.build is None):
            raise UserError(f"mechanism {self.name!r} must have either `mixer` or `build`")

    def implementations_here(self) -> tuple[str, ...]:
        """Those that this machine can compute, on the device in use; without `auto`, which is one of them."""
        lacking = self.packaged if self.why_no_kernels() is not None else ()
        return tuple(name for name in self.implementations if name not in (AUTO, *lacking))

    def shape_in(self, parameters: Any, implementation: str, shape: LayerShape) -> LayerShape:
        """The shape of this mechanism's layers in a model: with the variant's own key/value heads.

        Raises:
            UserError: If the mechanism cannot do what the model needs, the heads do not divide, or this machine lacks
                the kernels.
        """
        lacking = self.why_no_kernels() if implementation in self.packaged else None
        must = f"be another one here, since {lacking}"
        require(lacking is None, "attention.implementation", must, implementation, allowed=self.implementations_here())
        # What has no grouping takes no part in the model's.
        count = parameters.resolve(shape) if isinstance(parameters, HeadGrouping) else shape.num_heads
        grouped = dataclasses.replace(shape, num_kv_heads=count)
        require_capable(self.capabilities(parameters, implementation), grouped)
        return grouped

    def make_mixer(self, parameters: Any, implementation: str, shape: LayerShape) -> Mixer:
        """The mixer of a layer in a model of this shape; of a mechanism that has one.

        Raises:
            UserError: As `shape_in`.
        """
        assert self.mixer is not None, "its layers project for themselves"
        return self.mixer(parameters, implementation, self.shape_in(parameters, implementation, shape))

    def make_layer(self, parameters: Any, implementation: str, shape: LayerShape) -> Attention:
        """A layer in a model of this shape.

        Raises:
            UserError: As `shape_in`.
        """
        if self.build is None:
            return ProjectedAttention(self.make_mixer(parameters, implementation, shape))
        return self.build(parameters, implementation, self.shape_in(parameters, implementation, shape))

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
