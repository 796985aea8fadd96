"""The gated delta rule: a state that forgets by a gate, and corrects what it recalls for a key before storing a value.

    S_t = gamma_t S_{t-1} + beta_t (v_t - gamma_t S_{t-1} k_t) k_tᵀ      y_t = scale S_t q_t

Yang, Kautz, Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", https://arxiv.org/abs/2412.06464;
its alpha_t is our gamma_t, its S is ours, and d_k = d_v = H. gamma in [0, 1] forgets, beta in [0, 1] is the strength of
the correction; the layer sees to |k_t| = 1, without which the state may grow. A gate of 0 empties the state: packed
documents are reset by it.

Letters: B batch, L length, N heads, H head_dim (of the state, the first axis belongs to v and the second to k).
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import mlx.core as mx
import numpy as np

from zoo.ops import delta_chunks
from zoo.ops.causal_sums import document_starts
from zoo.ops.masks import MaskSpec
from zoo.runtime.native import kernels_for


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GatedDeltaSpec:
    """Everything besides the five arrays that decides the recurrence.

    Attributes:
        scale: Factor on the output, usually head_dim ** -0.5.
        mask: Documents; must be causal. Right padding needs no care, since it comes after all valid tokens.
    """

    scale: float
    mask: MaskSpec


# (q_BNLH, k_BNLH, v_BNLH, gamma_BNL, beta_BNL, state_BNHH) -> (y_BNLH, state_BNHH), without scale and documents.
Recurrence = Callable[..., tuple[mx.array, mx.array]]


def reference(
    q_BNLH: np.ndarray,
    k_BNLH: np.ndarray,
    v_BNLH: np.ndarray,
    gamma_BLN: np.ndarray,
    beta_BLN: np.ndarray,
    spec: GatedDeltaSpec,
) -> np.ndarray:
    """The recurrence in float64 NumPy, token by token, each document from an empty state.

    Args:
        q_BNLH: Queries.
        k_BNLH: Keys.
        v_BNLH: Values.
        gamma_BLN: Share of the state that is kept.
        beta_BLN: Strength of the correction.
        spec: Scale and documents.

    Returns:
        float64 [B, N, L, H].
    """
    q, k, v = (np.asarray(array, dtype=np.float64) for array in (q_BNLH, k_BNLH, v_BNLH))
    gamma, beta = (np.asarray(array, dtype=np.float64).swapaxes(1, 2) for array in (gamma_BLN, beta_BLN))
    B, N, L, H = q.shape
    segments = np.zeros((B, L)) if spec.mask.segments_BL is None else np.array(spec.mask.segments_BL)
    state, y = np.zeros((B, N, H, H)), np.zeros((B, N, L, H))
    for t in range(L):
        if t > 0:
            state[segments[:, t] != segments[:, t - 1]] = 0.0
        state = gamma[:, :, t, None, None] * state
        error = v[:, :, t] - np.einsum("bnvk,bnk->bnv", state, k[:, :, t])
        state = state + np.einsum("bnv,bnk->bnvk", beta[:, :, t, None] * error, k[:, :, t])
        y[:, :, t] = spec.scale * np.einsum("bnvk,bnk->bnv", state, q[:, :, t])
    return y


def update(
    recurrence: Recurrence,
    q_BNLH: mx.array,
    k_BNLH: mx.array,
    v_BNLH: mx.array,
    gates_BLN: tuple[mx.array, mx.array],
    spec: GatedDeltaSpec,
    *,
    state_BNHH: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Runs one form of the recurrence.

    Args:
        recurrence: `native(...)`, `mlx_own(...)`, `chunked(...)` or `recurrent`.
        q_BNLH: Queries.
        k_BNLH: Keys, of norm 1.
        v_BNLH: Values.
        gates_BLN: gamma and beta.
        spec: Scale and documents.
        state_BNHH: float32 state before the first token; None for an empty one.

    Returns:
        y [B, N, L, H] in the dtype of q, and the float32 state after the last token.
    """
    assert spec.mask.causal
    assert q_BNLH.shape == k_BNLH.shape == v_BNLH.shape
    B, N, _, H = q_BNLH.shape
    gamma_BLN, beta_BLN = (gate.astype(mx.float32) for gate in gates_BLN)
    if spec.mask.segments_BL is not None:
        gamma_BLN = mx.where(document_starts(spec.mask.segments_BL)[..., None], 0.0, gamma_BLN)
    if state_BNHH is None:
        state_BNHH = mx.zeros((B, N, H, H), dtype=mx.float32)
    gamma_BNL, beta_BNL = gamma_BLN.swapaxes(1, 2), beta_BLN.swapaxes(1, 2)
    y_BNLH, state_BNHH = recurrence(q_BNLH * spec.scale, k_BNLH, v_BNLH, gamma_BNL, beta_BNL, state_BNHH)
    return y_BNLH.astype(q_BNLH.dtype), state_BNHH


def chunked(chunk_size: int) -> Recurrence:
    """The recurrence by chunks of `chunk_size` tokens, as matrix products; a single token is one step."""

    def recurrence(*arrays: mx.array) -> tuple[mx.array, mx.array]:
        if arrays[0].shape[2] == 1:
            return recurrent(*arrays)
        return delta_chunks.chunked(*(array.astype(mx.float32) for array in arrays), chunk_size=chunk_size)

    return recurrence


def native(chunk_size: int) -> Recurrence:
    """The device's own kernels: on a processor those of `native/`, elsewhere or without them MLX's own.

    Args:
        chunk_size: As `mlx_own` takes it.
    """
    otherwise = mlx_own(chunk_size)

    def recurrence(*arrays: mx.array) -> tuple[mx.array, mx.array]:
        kernels = kernels_for(*arrays)
        if kernels is None or arrays[0].shape[2] == 0:
            return otherwise(*arrays)
        y_BNLH, state_BNHH = kernels.gated_delta(*arrays)
        return y_BNLH, state_BNHH

    return recurrence


def mlx_own(chunk_size: int) -> Recurrence:
    """MLX's own `gated_delta_update`, with the gradient of the chunked form.

    Its own gradient keeps two states per token on a CPU, and more than twenty inside a compiled step: 1.5 GB for one
    layer of 512 tokens and 8 heads of 64.
    """

    @mx.custom_function
    def recurrence(*arrays: mx.array) -> tuple[mx.array, mx.array]:
        q, k, v, gamma, beta = (array.swapaxes(1, 2) for array in arrays[:5])
        y_BLNH, state_BNHH = mx.fast.gated_delta_update(q, k, v, gamma, beta, arrays[5])
        return y_BLNH.swapaxes(1, 2), state_BNHH

    @recurrence.vjp
    def gradients(
        arrays: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> tuple[mx.array, ...]:
        in_float32 = [cotangent.astype(mx.float32) for cotangent in cotangents]
        _, found = mx.vjp(chunked(chunk_size), list(arrays), in_float32)
        return tuple(found)

    return cast(Recurrence, recurrence)


@mx.custom_function
def _recurrent(*arrays: mx.array) -> tuple[mx.array, mx.array]:
    q, k, v, gamma, beta, state = arrays
    outputs = []
    for t in range(q.shape[2]):
        state, _, _ = _step(k, v, gamma, beta, state, t)
        outputs.append(state @ q[:, :, t, :, None])
    return mx.concatenate(outputs, axis=-1).swapaxes(-1, -2), state


@_recurrent.vjp
def _recurrent_vjp(
    arrays: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
) -> tuple[mx.array, ...]:
    """The recurrence run backwards over the states of a second forward run, one per token."""
    q, k, v, gamma, beta, state = arrays
    of_y, of_state = cotangents
    steps, before = [], state
    for t in range(q.shape[2]):
        after, decayed, error = _step(k, v, gamma, beta, before, t)
        steps.append((before, decayed, error, after))
        before = after
    found: list[list[mx.array]] = [[], [], [], [], []]
    for t in reversed(range(q.shape[2])):
        before, decayed, error, after = steps[t]
        q_1H, k_1H, of_y_1H, beta_11 = (
            q[:, :, t, None],
            k[:, :, t, None],
            of_y[:, :, t, None],
            beta[:, :, t, None, None],
        )
        of_state = mx.addmm(of_state, of_y_1H.swapaxes(-1, -2), q_1H)
        of_stored_1H = k_1H @ of_state.swapaxes(-1, -2)
        of_error_1H = beta_11 * of_stored_1H
        of_k_1H = beta_11 * (error @ of_state) - of_error_1H @ decayed
        of_decayed = mx.addmm(of_state, of_error_1H.swapaxes(-1, -2), k_1H, alpha=-1.0)
        of_gamma_1 = (of_decayed * before).sum(axis=(-1, -2))[..., None]
        of_beta_1 = (of_stored_1H * error).sum(axis=-1)
        of_state = of_decayed * gamma[:, :, t, None, None]
        for parts, part in zip(found, (of_y_1H @ after, of_k_1H, of_error_1H, of_gamma_1, of_beta_1), strict=True):
            parts.append(part)
    return *(mx.concatenate(parts[::-1], axis=2) for parts in found), of_state


def _step(
    k: mx.array, v: mx.array, gamma: mx.array, beta: mx.array, state: mx.array, t: int
) -> tuple[mx.array, mx.array, mx.array]:
    """The state after token t, the decayed one before, and what it got wrong about the value [B, N, 1, H]."""
    k_1H = k[:, :, t, None]
    decayed = state * gamma[:, :, t, None, None]
    error_1H = v[:, :, t, None] - k_1H @ decayed.swapaxes(-1, -2)
    stored_H1 = (error_1H * beta[:, :, t, None, None]).swapaxes(-1, -2)
    return mx.addmm(decayed, stored_H1, k_1H), decayed, error_1H


def recurrent(*arrays: mx.array) -> tuple[mx.array, mx.array]:
    """The recurrence as the formula says it, token by token, in plain MLX."""
    return cast(tuple[mx.array, mx.array], _recurrent(*(array.astype(mx.float32) for array in arrays)))
