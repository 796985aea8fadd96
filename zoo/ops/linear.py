"""Linear attention: a kernel of feature maps instead of a softmax, so that keys and values fold into one small state.

    y_i = phi(q_i) S_i / (phi(q_i)·z_i + eps)      S_i = sum_j phi(k_j) v_jᵀ      z_i = sum_j phi(k_j)

over all keys j (bidirectional) or the keys j <= i (causal; `zoo.ops.causal_sums`). Katharopoulos et al.,
"Transformers are RNNs", https://arxiv.org/abs/2006.16236. The paper's D_k and D_v are both our H.

Deviations: eps guards rows whose features are all zero (possible with `relu`); and z is kept as one more column of S,
as if each value ended with a 1, so that one product yields numerator and denominator.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, G = N / K queries per key/value
head, H head_dim, A = H + 1 (a value and its 1).
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, cast, get_args

import mlx.core as mx
import numpy as np

from zoo.ops import causal_sums
from zoo.ops.exponential import exp
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import dense_mask, everything
from zoo.runtime.native import native_kernels

FeatureMap = Literal["elu_plus_one", "relu", "squared_relu"]
FEATURE_MAPS: tuple[FeatureMap, ...] = get_args(FeatureMap)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearSpec:
    """Everything besides q, k and v that decides linear attention.

    Attributes:
        mask: Causality, padding and documents.
        feature_map: Name of phi.
        eps: Added to the denominator, which is a sum of products of features.
        chunk_size: T of the chunked form; it changes the speed and never the result.
    """

    mask: MaskSpec
    feature_map: FeatureMap = "elu_plus_one"
    eps: float = 1e-6
    chunk_size: int = 32


# (q_BNLH, k_BKLH, v_BKLH, spec, state_BKHA or None) -> (y_BNLH, state_BKHA): one way to form the causal sums.
Scan = Callable[[mx.array, mx.array, mx.array, LinearSpec, mx.array | None], tuple[mx.array, mx.array]]


def features(x: mx.array, feature_map: FeatureMap) -> mx.array:
    """phi(x), elementwise, in float32 and never negative; elu(x) + 1 is positive wherever exp(x) is.

    Args:
        x: Queries or keys, any shape and dtype.
        feature_map: Name of phi.

    Returns:
        float32, the shape of x.
    """
    x = x.astype(mx.float32)
    if feature_map == "elu_plus_one":
        return cast(mx.array, _elu_plus_one(x))
    positive = mx.maximum(x, 0)
    return positive if feature_map == "relu" else positive * positive


@mx.custom_function
def _elu_plus_one(x: mx.array) -> mx.array:
    # Never as elu(x) + 1 = (exp(x) - 1) + 1, which cancels to 0: exp(min(x, 0)) + max(x, 0) stays positive. The
    # minimum by |x| costs a third of `mx.where` on a CPU, where it is not vectorised.
    negative = (x - mx.abs(x)) * 0.5
    return exp(negative) + (x - negative)


@_elu_plus_one.vjp
def _elu_plus_one_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    # phi' is exp(x) = phi below 0 and 1 above. Found by MLX it would be 0 at exactly 0, where all starts from zeros.
    return cotangent * mx.minimum(output, 1)


def reference(q_BNLH: np.ndarray, k_BKSH: np.ndarray, v_BKSH: np.ndarray, spec: LinearSpec) -> np.ndarray:
    """Linear attention in float64 NumPy with all its L×S weights: the meaning that every form is held to.

    Args:
        q_BNLH: Queries.
        k_BKSH: Keys; K divides N, and query head n reads key/value head n // (N / K).
        v_BKSH: Values.
        spec: Mask, feature map and eps.

    Returns:
        float64 [B, N, L, H].
    """
    q, k, v = (np.asarray(array, dtype=np.float64) for array in (q_BNLH, k_BKSH, v_BKSH))
    phi: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "elu_plus_one": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), x + 1),
        "relu": lambda x: np.maximum(x, 0),
        "squared_relu": lambda x: np.square(np.maximum(x, 0)),
    }
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    positions = spec.mask.positions(q.shape[2]), mx.arange(k.shape[2])
    phi_q, phi_k = (phi[spec.feature_map](x) for x in (q, k))
    weights = phi_q @ phi_k.swapaxes(-1, -2) * np.array(dense_mask(everything, spec.mask, *positions))
    y: np.ndarray = weights @ v / (weights.sum(axis=-1, keepdims=True) + spec.eps)
    return y


def op_of(scan: Scan) -> Callable[[mx.array, mx.array, mx.array, LinearSpec], mx.array]:
    """The op `(q_BNLH, k_BKSH, v_BKSH, spec) -> y_BNLH` that forms causal sums by `scan`, and plain ones at once."""

    def op(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: LinearSpec) -> mx.array:
        if spec.mask.causal:
            return scan(q_BNLH, k_BKSH, v_BKSH, spec, None)[0]
        if spec.mask.segments_BL is None:
            return bidirectional(q_BNLH, k_BKSH, v_BKSH, spec)
        return bidirectional_documents(q_BNLH, k_BKSH, v_BKSH, spec)

    return op


def bidirectional(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: LinearSpec) -> mx.array:
    """One state over all keys; padded keys are left out of it."""
    q_BKGLH, k_BKSH, v_BKSA = _prepare(q_BNLH, k_BKSH, v_BKSH, spec)
    B, K, G, L, H = q_BKGLH.shape
    state_BKHA = _without_padding(k_BKSH, spec).swapaxes(-1, -2) @ v_BKSA
    sums_BKRA = q_BKGLH.reshape(B, K, G * L, H) @ state_BKHA
    return _divide(sums_BKRA.reshape(B, K, G, L, H + 1), spec, q_BNLH.dtype)


def bidirectional_documents(q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LinearSpec) -> mx.array:
    """Packed documents, both ways: the causal sums plus the strictly later ones, each by the chunked form."""
    q_BKGLH, k_BKLH, v_BKLA = _prepare(q_BNLH, k_BKLH, v_BKLH, spec)
    k_BKLH = _without_padding(k_BKLH, spec)
    segments_BL = spec.mask.segments_BL
    assert segments_BL is not None
    past, _ = causal_sums.chunked(q_BKGLH, k_BKLH, v_BKLA, segments_BL, chunk_size=spec.chunk_size)
    backwards = (q_BKGLH[..., ::-1, :], k_BKLH[..., ::-1, :], v_BKLA[..., ::-1, :], segments_BL[:, ::-1])
    future, _ = causal_sums.chunked(*backwards, chunk_size=spec.chunk_size, strict=True)
    return _divide(past + future[..., ::-1, :], spec, q_BNLH.dtype)


def chunked(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LinearSpec, state_BKHA: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """Causal linear attention by chunks; a single token is one step of the recurrence.

    Args:
        q_BNLH: Queries.
        k_BKLH: Keys.
        v_BKLH: Values.
        spec: Mask, feature map, eps and chunk size.
        state_BKHA: float32 sums over the tokens before this call; None if there are none.

    Returns:
        y [B, N, L, H] in the dtype of q, and the float32 state after the last token.
    """
    if q_BNLH.shape[2] == 1:
        return recurrent(q_BNLH, k_BKLH, v_BKLH, spec, state_BKHA)
    features_of_all = _prepare(q_BNLH, k_BKLH, v_BKLH, spec)
    sums, state_BKHA = causal_sums.chunked(
        *features_of_all, spec.mask.segments_BL, state_BKHA, chunk_size=spec.chunk_size
    )
    return _divide(sums, spec, q_BNLH.dtype), state_BKHA


def native(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LinearSpec, state_BKHA: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """Causal linear attention by chunks in compiled kernels for processors; arguments as for `chunked`.

    Raises:
        UserError: If the package of kernels is not there, or arrays are on a GPU.
    """
    if q_BNLH.shape[2] == 1:
        return recurrent(q_BNLH, k_BKLH, v_BKLH, spec, state_BKHA)
    y_BNLH, state_BKHA = native_kernels().linear_attention(
        *(array.astype(mx.float32) for array in (q_BNLH, k_BKLH, v_BKLH)),
        feature_map=spec.feature_map,
        eps=spec.eps,
        chunk_size=spec.chunk_size,
        segments=spec.mask.segments_BL,
        state=state_BKHA,
    )
    assert state_BKHA is not None
    return y_BNLH.astype(q_BNLH.dtype), state_BKHA


def cumsum(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LinearSpec, state_BKHA: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """Causal linear attention that materialises the state after every token; arguments as for `chunked`."""
    features_of_all = _prepare(q_BNLH, k_BKLH, v_BKLH, spec)
    sums, state_BKHA = causal_sums.cumulative(*features_of_all, spec.mask.segments_BL, state_BKHA)
    return _divide(sums, spec, q_BNLH.dtype), state_BKHA


def recurrent(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LinearSpec, state_BKHA: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """Causal linear attention token by token, as a decoder goes; arguments as for `chunked`."""
    features_of_all = _prepare(q_BNLH, k_BKLH, v_BKLH, spec)
    sums, state_BKHA = causal_sums.recurrent(*features_of_all, spec.mask.segments_BL, state_BKHA)
    return _divide(sums, spec, q_BNLH.dtype), state_BKHA


def _prepare(
    q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: LinearSpec
) -> tuple[mx.array, mx.array, mx.array]:
    """phi(q) [B, K, G, L, H], phi(k) [B, K, S, H], and v with a column of ones [B, K, S, A], all float32."""
    B, N, L, H = q_BNLH.shape
    K, S = k_BKSH.shape[1], k_BKSH.shape[2]
    ones_BKS1 = mx.ones((B, K, S, 1), dtype=mx.float32)
    v_BKSA = mx.concatenate([v_BKSH.astype(mx.float32), ones_BKS1], axis=-1)
    q_BKGLH = features(q_BNLH, spec.feature_map).reshape(B, K, N // K, L, H)
    return q_BKGLH, features(k_BKSH, spec.feature_map), v_BKSA


def _without_padding(k_BKSH: mx.array, spec: LinearSpec) -> mx.array:
    """Features of padded keys set to 0. Causal sums need no such thing: padding comes after all valid queries."""
    if spec.mask.lengths_B is None:
        return k_BKSH
    valid_BS = mx.arange(k_BKSH.shape[2]) < spec.mask.lengths_B[:, None]
    return k_BKSH * valid_BS[:, None, :, None]


def _divide(sums_BKGLA: mx.array, spec: LinearSpec, dtype: mx.Dtype) -> mx.array:
    B, K, G, L, A = sums_BKGLA.shape
    y_BKGLH = sums_BKGLA[..., :-1] / (sums_BKGLA[..., -1:] + spec.eps)
    return y_BKGLH.reshape(B, K * G, L, A - 1).astype(dtype)
