"""Gated DeltaNet: a recurrent state that forgets by a gate and corrects itself by the delta rule.

    S_t = gamma_t S_{t-1} + beta_t (v_t - gamma_t S_{t-1} k_t) k_tᵀ
    y_t = W_o (RMSNorm(S_t q_t / sqrt(H)) ∘ SiLU(W_g x_t))
    q, k, v = SiLU(conv(W_q x)), SiLU(conv(W_k x)), SiLU(conv(W_v x)), then q and k scaled to norm 1
    gamma_t = exp(-exp(A_log) softplus(W_a x_t + dt_bias))      beta_t = sigmoid(W_b x_t)

Yang, Kautz, Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", https://arxiv.org/abs/2412.06464;
its alpha is our gamma. Deviations: values are as wide as keys (the paper's code doubles them), so that heads have the
model's head_dim. The recurrence itself knows the order of tokens: rotary positions are not applied, as in the paper,
and `qk_norm` is not either, since q and k are normalised anyway. Every head has its own q, k and v, as there.

Letters: B batch, L length, D hidden, N heads, H head_dim, W taps.
"""

import dataclasses
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from zoo.attention.interface import Attention, Cache, Capabilities, LayerShape
from zoo.attention.mechanism import HeadGrouping, Mechanism, Op
from zoo.attention.projected import require_mask
from zoo.config import MOST, require_within
from zoo.layers.caches import RecurrentCache
from zoo.layers.norms import RMSNorm
from zoo.ops import gated_delta
from zoo.ops.activations import silu
from zoo.ops.convolution import short_convolution
from zoo.ops.exponential import exp, sigmoid
from zoo.ops.gated_delta import GatedDeltaSpec, Recurrence
from zoo.ops.masks import MaskSpec
from zoo.ops.norms import rms_norm

CAPABILITIES = Capabilities(
    causal=True,
    bidirectional=False,
    decode=True,
    exact_class="gated_delta",
    trimmable=False,
    bounded_cache=True,
    grouped_heads=False,
    alibi=False,
)
# Each tap is an operation of the graph; the paper has four.
MOST_TAPS = 256
# Of the sum of squares of q and k, as in the paper's code.
NORM_EPS = 1e-6
# Initial range of exp(A_log), and of softplus(dt_bias) (log-uniform): Mamba-2's. The paper's code lets the first begin
# at 0, whose logarithm has no bound.
DECAY_RANGE, STEP_RANGE = (1.0, 16.0), (1e-3, 1e-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedDeltaConfig(HeadGrouping):
    """Parameters of the gated delta rule. It shares no heads: in a model that does, set `queries_per_kv_head: 1`.

    Attributes:
        conv_size: Taps of the convolutions, the token itself included; 1 leaves only a weight per channel.
        chunk_size: Tokens in a chunk of the `chunked` form; it changes the speed and never the result.
    """

    conv_size: int = 4
    # At length 512 with 8 heads of 64, the fastest of 16, 32 and 64 on a CPU.
    chunk_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST_TAPS, "conv_size")
        require_within(self, 1, MOST, "chunk_size")


class ShortConvolution(nn.Module):
    """Causal depthwise convolution followed by SiLU."""

    def __init__(self, channels: int, taps: int) -> None:
        """Makes `taps` weights for each of `channels` channels, in the layout of `nn.Conv1d` with as many groups."""
        super().__init__()
        bound = taps**-0.5
        # Three axes also tell optimizers that this is no linear map of channels, as Muon's matrices are.
        self.weight = mx.random.uniform(-bound, bound, (channels, taps, 1))

    def __call__(
        self, x_BLC: mx.array, *, tail_BPC: mx.array | None, segments_BL: mx.array | None
    ) -> tuple[mx.array, mx.array]:
        y_BLC, tail_BPC = short_convolution(
            x_BLC, self.weight.squeeze(-1).T, tail_BPC=tail_BPC, segments_BL=segments_BL
        )
        return silu(y_BLC), tail_BPC


class GatedDeltaAttention(Attention):
    """The layer of Gated DeltaNet, around one of the forms of its recurrence."""

    def __init__(self, config: GatedDeltaConfig, implementation: str, shape: LayerShape) -> None:
        """Makes the projections, convolutions and gates.

        Args:
            config: Parameters of the mechanism.
            implementation: Name of the recurrence's form.
            shape: The model around the layer.
        """
        super().__init__()
        self.capabilities = CAPABILITIES
        self.shape = shape
        self._conv_size = config.conv_size
        self._implementation = implementation
        self._recurrence = recurrence_of(config, implementation)
        D, N, inner = shape.hidden_size, shape.num_heads, shape.num_heads * shape.head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(D, inner, bias=shape.qkv_bias) for _ in range(3))
        self.q_conv, self.k_conv, self.v_conv = (ShortConvolution(inner, config.conv_size) for _ in range(3))
        self.a_proj, self.b_proj = (nn.Linear(D, N, bias=False) for _ in range(2))
        self.g_proj = nn.Linear(D, inner, bias=False)
        self.o_norm = RMSNorm(shape.head_dim, eps=shape.norm_eps)
        self.o_proj = nn.Linear(inner, D, bias=shape.output_bias)
        self.A_log = mx.log(mx.random.uniform(*DECAY_RANGE, (N,)))
        step = mx.exp(mx.random.uniform(math.log(STEP_RANGE[0]), math.log(STEP_RANGE[1]), (N,)))
        # The inverse of softplus.
        self.dt_bias = step + mx.log(-mx.expm1(-step))

    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        require_mask(self.capabilities, mask, cache)
        state_BNHH, *tails = [None] * 4 if cache is None else cache.cache
        (q_BNLH, k_BNLH, v_BNLH), tails = self._projected(x_BLD, mask, tails)
        spec = GatedDeltaSpec(scale=self.shape.head_dim**-0.5, mask=mask)
        y_BNLH, state_BNHH = gated_delta.update(
            self._recurrence, q_BNLH, k_BNLH, v_BNLH, self._gates(x_BLD), spec, state_BNHH=state_BNHH
        )
        if cache is not None:
            cache.cache = [state_BNHH, *tails]
            cache.advance(x_BLD.shape[1])
        return self.output(x_BLD, y_BNLH)

    def op_inputs(self, x_BLD: mx.array, *, mask: MaskSpec) -> tuple[mx.array, ...]:
        qkv, _ = self._projected(x_BLD, mask, [None] * 3)
        return (*qkv, *self._gates(x_BLD))

    def output(self, x_BLD: mx.array, y_BNLH: mx.array) -> mx.array:
        B, N, L, H = y_BNLH.shape
        gate_BLNH = silu(self.g_proj(x_BLD)).reshape(B, L, N, H)
        y_BLD: mx.array = self.o_proj((self.o_norm(y_BNLH.swapaxes(1, 2)) * gate_BLNH).reshape(B, L, N * H))
        return y_BLD

    def _projected(
        self, x_BLD: mx.array, mask: MaskSpec, tails_BPC: list[Any]
    ) -> tuple[list[mx.array], list[mx.array]]:
        """q, k and v [B, N, L, H], convolved, q and k of norm 1; and what the convolutions have to remember."""
        B, L, _ = x_BLD.shape
        projections, convolutions = (self.q_proj, self.k_proj, self.v_proj), (self.q_conv, self.k_conv, self.v_conv)
        mixed, remembered = [], []
        for project, convolve, tail in zip(projections, convolutions, tails_BPC, strict=True):
            y_BLC, remains = convolve(project(x_BLD), tail_BPC=tail, segments_BL=mask.segments_BL)
            mixed.append(y_BLC.reshape(B, L, self.shape.num_heads, self.shape.head_dim))
            remembered.append(remains)
        return [each.swapaxes(1, 2) for each in (_unit(mixed[0]), _unit(mixed[1]), mixed[2])], remembered

    def _gates(self, x_BLD: mx.array) -> tuple[mx.array, mx.array]:
        """gamma and beta, float32 [B, L, N]."""
        a_BLN, b_BLN = self.a_proj(x_BLD).astype(mx.float32), self.b_proj(x_BLD).astype(mx.float32)
        speed_N = mx.exp(self.A_log.astype(mx.float32))
        step_BLN = nn.softplus(a_BLN + self.dt_bias.astype(mx.float32))
        return exp(-speed_N * step_BLN), sigmoid(b_BLN)

    def make_cache(self) -> Cache:
        return RecurrentCache(4)

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        if not length:
            return 0
        N, H, tail = self.shape.num_heads, self.shape.head_dim, self._conv_size - 1
        return batch_size * N * H * (H * mx.float32.size + 3 * tail * dtype.size)

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        # Measured, with what the convolutions and gates keep: numbers per channel of a head.
        per_channel = 41 if self._implementation == "chunked" else 26
        return batch_size * length * self.shape.num_heads * self.shape.head_dim * per_channel

    def flops(self, *, query_length: int, key_length: int) -> int:
        N, H = self.shape.num_heads, self.shape.head_dim
        projections = 2 * query_length * self.shape.hidden_size * (5 * N * H + 2 * N)
        return projections + self.mixing_flops(query_length=query_length, key_length=key_length)

    def mixing_flops(self, *, query_length: int, key_length: int) -> int:
        N, H, taps = self.shape.num_heads, self.shape.head_dim, self._conv_size
        # Recalling, storing and reading are one product with the state each; what was cached is not touched again.
        return 2 * query_length * (3 * taps * N * H + 3 * N * H * H)


def _unit(x_BLNH: mx.array) -> mx.array:
    """Scales each head's vector to norm 1; RMS normalisation does, up to a factor, in one kernel."""
    H = x_BLNH.shape[-1]
    return rms_norm(x_BLNH, None, NORM_EPS / H) * H**-0.5


def recurrence_of(config: GatedDeltaConfig, implementation: str) -> Recurrence:
    """The form of the recurrence that an implementation names."""
    if implementation == "recurrent":
        return gated_delta.recurrent
    return {"native": gated_delta.native, "chunked": gated_delta.chunked}[implementation](config.chunk_size)


def op_of(config: GatedDeltaConfig, implementation: str) -> Op:
    """The op `(q_BNLH, k_BNLH, v_BNLH, gamma_BLN, beta_BLN, spec) -> y_BNLH`."""
    recurrence = recurrence_of(config, implementation)

    def op(
        q_BNLH: mx.array,
        k_BNLH: mx.array,
        v_BNLH: mx.array,
        gamma_BLN: mx.array,
        beta_BLN: mx.array,
        spec: GatedDeltaSpec,
    ) -> mx.array:
        return gated_delta.update(recurrence, q_BNLH, k_BNLH, v_BNLH, (gamma_BLN, beta_BLN), spec)[0]

    return op


def sample_inputs(generator: np.random.Generator, B: int, L: int, N: int, K: int, H: int) -> tuple[np.ndarray, ...]:
    """q and k of norm 1, v [B, N, L, H], gamma and beta [B, L, N] between 0 and 1; K is N, as heads are not shared."""
    assert K == N
    q, k, v = (generator.standard_normal((B, N, L, H)) for _ in range(3))
    q, k = (array / np.linalg.norm(array, axis=-1, keepdims=True) for array in (q, k))
    return q, k, v, generator.uniform(0.3, 1.0, (B, L, N)), generator.uniform(0.0, 1.0, (B, L, N))


def spec_of(config: GatedDeltaConfig, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None) -> GatedDeltaSpec:
    """The op's last argument; a recurrence has no scores that ALiBi's slopes could bias."""
    assert slopes_N is None
    return GatedDeltaSpec(scale=head_dim**-0.5, mask=mask)


def settle(layer: GatedDeltaAttention) -> str:
    """Keeps tokens apart that the projections were trained on; no gate is near to a trained softmax."""
    for each in (layer.q_conv, layer.k_conv, layer.v_conv):
        last_W = mx.arange(each.weight.shape[1]) == each.weight.shape[1] - 1
        each.weight = mx.broadcast_to(last_W[None, :, None], each.weight.shape).astype(each.weight.dtype)
    return "with convolutions that pass on the token itself, and gates as in a new model"


MECHANISM = Mechanism(
    name="gated_delta",
    config=GatedDeltaConfig,
    implementations={
        "native": lambda config: op_of(config, "native"),
        "chunked": lambda config: op_of(config, "chunked"),
        "recurrent": lambda config: op_of(config, "recurrent"),
    },
    capabilities=lambda config, implementation: CAPABILITIES,
    build=GatedDeltaAttention,
    settle=settle,
    make_spec=spec_of,
    reference=gated_delta.reference,
    sample_inputs=sample_inputs,
    tuning=("chunk_size",),
)
