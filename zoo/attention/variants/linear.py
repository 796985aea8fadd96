"""Linear attention: feature maps instead of a softmax, and a state of fixed size instead of a cache that grows.

    y_i = phi(q_i) S_i / (phi(q_i)·z_i + eps)      S_i = sum_j phi(k_j) v_jᵀ      z_i = sum_j phi(k_j)

Katharopoulos et al., "Transformers are RNNs", https://arxiv.org/abs/2006.16236. Rotary positions turn q and k before
phi, so that the features stay positive and the weights keep their sum of 1.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim, A = H + 1.
"""

import dataclasses
from collections.abc import Callable

import mlx.core as mx

from zoo.attention.calibration import load_calibration
from zoo.attention.choice import Chooser, Member
from zoo.attention.choosing import ChoosingMixer, choosing_op
from zoo.attention.interface import Cache, Capabilities, LayerShape, Mixer
from zoo.attention.mechanism import AUTO, NATIVE, HeadGrouping, Mechanism, Op, sample_qkv
from zoo.config import MOST, require, require_within
from zoo.layers.caches import RecurrentCache
from zoo.ops import linear
from zoo.ops.linear import FeatureMap, LinearSpec, Scan
from zoo.ops.masks import MaskSpec
from zoo.runtime.native import why_no_native

SCANS: dict[str, Scan] = {
    "chunked": linear.chunked,
    "cumsum": linear.cumsum,
    "recurrent": linear.recurrent,
    NATIVE: linear.native,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearConfig(HeadGrouping):
    """Parameters of linear attention.

    Attributes:
        feature_map: The elementwise phi: `elu_plus_one` (positive), `relu` or `squared_relu` (zero below 0).
        chunk_size: Tokens in a chunk of the `chunked` implementation; it changes the speed and never the result.
        eps: Added to the denominators, so that rows without a feature above 0 stay finite.
    """

    feature_map: FeatureMap = "elu_plus_one"
    # Forward and backward at lengths 256 to 2048 and head_dim 32 and 64, 32 was the fastest of 16, 32, 64 and 128
    # on a CPU, or within 3 % of it.
    chunk_size: int = 32
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.feature_map in linear.FEATURE_MAPS
        require(known, "feature_map", "be known", self.feature_map, allowed=linear.FEATURE_MAPS)
        require_within(self, 1, MOST, "chunk_size")
        # Its square, which gradients are divided by, is a number that float32 tells from 0.
        require_within(self, 1e-18, 1.0, "eps")

    def spec(self, mask: MaskSpec) -> LinearSpec:
        """The op's last argument."""
        return LinearSpec(mask=mask, feature_map=self.feature_map, eps=self.eps, chunk_size=self.chunk_size)


class LinearMixer(Mixer):
    """Linear attention whose causal sums are formed by one of the scans."""

    def __init__(self, config: LinearConfig, implementation: str, shape: LayerShape) -> None:
        """Binds the scan that the implementation names."""
        super().__init__(capabilities_of(config, implementation), shape)
        self._config = config
        self._implementation = implementation
        self._scan = SCANS[implementation]
        self._op = linear.op_of(self._scan)

    def __call__(self, *inputs: mx.array, mask: MaskSpec, cache: Cache | None, training: bool) -> mx.array:
        q_BNLH, k_BKLH, v_BKLH = inputs
        spec = self._config.spec(mask)
        if cache is None:
            return self._op(q_BNLH, k_BKLH, v_BKLH, spec)
        y_BNLH, cache[0] = self._scan(q_BNLH, k_BKLH, v_BKLH, spec, cache[0])
        cache.advance(y_BNLH.shape[2])
        return y_BNLH

    def flops(self, *, query_length: int, key_length: int) -> int:
        # Each new key enters the state once and each query reads it once; what a cache holds is not touched again.
        new_keys = query_length if self.shape.causal else key_length
        return 2 * self.shape.head_dim**2 * (self.shape.num_kv_heads * new_keys + self.shape.num_heads * query_length)

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        N, K, H = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        if not self.shape.causal:
            return 2 * batch_size * length * N * H
        # Measured: features; and the scores of a chunk, the state after each token, or nothing. Of the kernels, sums.
        own = {
            NATIVE: N,
            "chunked": N * (H + min(length, self._config.chunk_size)),
            "cumsum": K * H * (H + 1),
            "recurrent": 0,
        }[self._implementation]
        return batch_size * length * (N * H + own)

    def make_cache(self) -> Cache:
        return RecurrentCache(1)

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        H = self.shape.head_dim
        return batch_size * self.shape.num_kv_heads * H * (H + 1) * mx.float32.size if length else 0


def capabilities_of(config: LinearConfig, implementation: str) -> Capabilities:
    """Both directions; where one token after another counts, causal ones alone."""
    return Capabilities(
        causal=True,
        bidirectional=implementation not in ("cumsum", "recurrent"),
        decode=True,
        exact_class=f"linear_{config.feature_map}",
        trimmable=False,
        bounded_cache=True,
        alibi=False,
    )


def spec_of(config: LinearConfig, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None) -> LinearSpec:
    """The op's last argument; linear attention has no scores that ALiBi's slopes could bias."""
    assert slopes_N is None
    return config.spec(mask)


def op_factory(scan: Scan) -> Callable[[LinearConfig], Op]:
    """What the registry asks of an implementation: a function of the config, here without need of it."""
    return lambda _: linear.op_of(scan)


def chooser_of(config: LinearConfig) -> Chooser:
    """Chooses among the implementations."""
    return Chooser([Member(declared=MECHANISM, parameters=config)], load_calibration(None))


def mixer_of(config: LinearConfig, implementation: str, shape: LayerShape) -> Mixer:
    """The mixer of an implementation, or one that chooses."""
    if implementation == AUTO:
        return ChoosingMixer(capabilities_of(config, AUTO), chooser_of(config), shape)
    return LinearMixer(config, implementation, shape)


MECHANISM = Mechanism(
    name="linear",
    config=LinearConfig,
    implementations={
        **{name: op_factory(scan) for name, scan in SCANS.items()},
        AUTO: lambda config: choosing_op(chooser_of(config)),
    },
    capabilities=capabilities_of,
    mixer=mixer_of,
    packaged=(NATIVE,),
    why_no_kernels=why_no_native,
    make_spec=spec_of,
    reference=linear.reference,
    sample_inputs=sample_qkv,
    tuning=("chunk_size",),
)
