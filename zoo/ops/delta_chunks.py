"""The gated delta rule by chunks: matrix products instead of one step per token.

Inside a chunk, with D_ij = gamma_{j+1} … gamma_i for i >= j (else 0), G_i = gamma_1 … gamma_i, and S the state before
the chunk as [keys, values] (the transpose of `zoo.ops.gated_delta`'s):

    A_ij = beta_i D_ij k_i·k_j for i > j        W = (I + A)⁻¹ diag(beta) [V, diag(G) K] = [W_v, W_k]
    U = W_v - W_k S                             Y = diag(G) Q S + (Q Kᵀ ∘ D) U
    S' = G_T S + (diag(D_T) K)ᵀ U               = (G_T I - (diag(D_T) K)ᵀ W_k) S + (diag(D_T) K)ᵀ W_v

so that only the last line, one product per chunk, is sequential. The WY form of products of Householder-like
transitions: Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
https://arxiv.org/abs/2406.06484; with gates as in https://arxiv.org/abs/2412.06464, section 3.3.

Letters: B batch, N heads, L length, H head_dim, T tokens in a chunk, C chunks. All arrays are float32.
"""

from typing import cast

import mlx.core as mx
import numpy as np

from zoo.ops.exponential import exp

# A gate below this forgets all that float32 can tell apart; its logarithm is set so low that no sum comes back.
_SMALLEST_GATE, _FORGOTTEN = 1e-37, -1e4


def chunked(
    q_BNLH: mx.array,
    k_BNLH: mx.array,
    v_BNLH: mx.array,
    gamma_BNL: mx.array,
    beta_BNL: mx.array,
    state_BNHH: mx.array,
    *,
    chunk_size: int,
) -> tuple[mx.array, mx.array]:
    """Runs the recurrence.

    Args:
        q_BNLH: Queries, scaled.
        k_BNLH: Keys.
        v_BNLH: Values.
        gamma_BNL: Share of the state that is kept, 0 to 1.
        beta_BNL: Strength of the correction.
        state_BNHH: State before the first token, [values, keys].
        chunk_size: T, at least 1.

    Returns:
        y [B, N, L, H], and the state after the last token.
    """
    B, N, L, H = q_BNLH.shape
    T = min(chunk_size, L)
    C = -(-L // T)
    missing = C * T - L
    # A token that only fills the last chunk keeps all (gamma 1) and stores nothing (beta 0).
    q, k, v = (_in_chunks(x, C, T, 0.0) for x in (q_BNLH, k_BNLH, v_BNLH))
    beta = _in_chunks(beta_BNL[..., None], C, T, 0.0)
    log_gamma_BNCT = _log_gate(_in_chunks(gamma_BNL[..., None], C, T, 1.0).squeeze(-1))

    decay_BNCTT = _decays(log_gamma_BNCT)
    from_start = exp(mx.cumsum(log_gamma_BNCT, axis=-1))[..., None]
    to_end = decay_BNCTT[..., -1, :, None]
    overlap = decay_BNCTT * (k @ k.swapaxes(-1, -2))
    solved = inverse_of_one_plus(beta * overlap) @ (beta * mx.concatenate([v, from_start * k], axis=-1))
    w_v, w_k = solved[..., :H], solved[..., H:]
    k_at_end = (to_end * k).swapaxes(-1, -2)
    transition = from_start[..., -1:, :] * mx.eye(H) - k_at_end @ w_k
    states_BNCHH = scan(transition, k_at_end @ w_v, state_BNHH.swapaxes(-1, -2))

    past = states_BNCHH[:, :, :-1]
    u = w_v - w_k @ past
    y = mx.addmm((from_start * q) @ past, (q @ k.swapaxes(-1, -2)) * decay_BNCTT, u)
    return y.reshape(B, N, C * T, H)[:, :, : C * T - missing], states_BNCHH[:, :, -1].swapaxes(-1, -2)


@mx.custom_function
def _inverse(a: mx.array) -> mx.array:
    T = a.shape[-1]
    row, column = np.arange(T)[:, None], np.arange(T)[None, :]
    inverse, size = mx.broadcast_to(mx.eye(T), a.shape), 1
    while size < T:
        # The inverses of two neighbouring diagonal blocks, X and Y, and the block B below X give that of [[x, 0],
        # [B, y]]: -Y B X below X. All blocks of one size at once.
        lower = (row // (2 * size) == column // (2 * size)) & (row // size % 2 == 1) & (column // size % 2 == 0)
        below = a * mx.array(lower.astype(np.float32))
        inverse = inverse - (below if size == 1 else inverse @ below @ inverse)
        size *= 2
    return inverse


@_inverse.vjp
def _inverse_vjp(a: mx.array, cotangent: mx.array, inverse: mx.array) -> mx.array:
    transposed = inverse.swapaxes(-1, -2)
    return -mx.tril(transposed @ cotangent @ transposed, k=-1)


def inverse_of_one_plus(a: mx.array) -> mx.array:
    """(I + A)⁻¹ [..., T, T] for A what is below the diagonal of `a`; by blocks of 1, 2, 4, …, stable as substitution.

    The shorter product (I - A)(I + A²)(I + A⁴) … is not: with equal keys A is all ones, and its powers reach 10¹⁸.
    """
    return cast(mx.array, _inverse(a))


@mx.custom_function
def _scan(transition: mx.array, increment: mx.array, state: mx.array) -> mx.array:
    states = [state]
    for index in range(transition.shape[2]):
        states.append(mx.addmm(increment[:, :, index], transition[:, :, index], states[-1]))
    return mx.stack(states, axis=2)


@_scan.vjp
def _scan_vjp(arrays: tuple[mx.array, ...], cotangent: mx.array, states: mx.array) -> tuple[mx.array, ...]:
    transition = arrays[0]
    chunks = transition.shape[2]
    backwards = [cotangent[:, :, chunks]]
    for index in reversed(range(chunks)):
        transposed = transition[:, :, index].swapaxes(-1, -2)
        backwards.append(mx.addmm(cotangent[:, :, index], transposed, backwards[-1]))
    of_state = backwards.pop()
    of_increment = mx.stack(backwards[::-1], axis=2)
    return of_increment @ states[:, :, :-1].swapaxes(-1, -2), of_increment, of_state


def scan(transition: mx.array, increment: mx.array, state: mx.array) -> mx.array:
    """S_{c+1} = transition_c S_c + increment_c for all chunks c.

    Args:
        transition: [B, N, C, H, H].
        increment: [B, N, C, H, H].
        state: S_0 [B, N, H, H].

    Returns:
        S_0 … S_C, [B, N, C + 1, H, H].
    """
    return cast(mx.array, _scan(transition, increment, state))


def _log_gate(gamma: mx.array) -> mx.array:
    kept = gamma >= _SMALLEST_GATE
    return mx.where(kept, mx.log(mx.where(kept, gamma, 1.0)), _FORGOTTEN)


def _decays(log_gamma_BNCT: mx.array) -> mx.array:
    """D [B, N, C, T, T]. Each entry sums its own logarithms: differences of cumulative sums would cancel."""
    T = log_gamma_BNCT.shape[-1]
    below = mx.array(np.tril(np.ones((T, T), dtype=np.float32), -1))
    sums = mx.cumsum(log_gamma_BNCT[..., :, None] * below, axis=-2)
    return exp(sums) * mx.array(np.tril(np.ones((T, T), dtype=np.float32)))


def _in_chunks(x: mx.array, C: int, T: int, fill: float) -> mx.array:
    """Splits the last but one axis into C chunks of T, filling the last chunk."""
    missing = C * T - x.shape[-2]
    if missing:
        x = mx.pad(x, [(0, 0), (0, 0), (0, missing), (0, 0)], constant_values=fill)
    return x.reshape(*x.shape[:2], C, T, x.shape[-1])
