"""Causal sums of outer products, the core of linear attention, in three forms that agree.

    sums_i = q_iᵀ S_i      S_i = sum_{j <= i} k_j v_jᵀ      over the tokens j of i's own document

`chunked` masks products inside a chunk and keeps one state per chunk (Hua et al., "Transformer Quality in Linear
Time", https://arxiv.org/abs/2202.10447); `cumulative` keeps one state per token; `recurrent` keeps one state.

Letters: B batch, L length, K key/value heads, G queries per key/value head, H key width, A value width, T tokens in a
chunk, C chunks. All arrays are float32; segments_BL numbers the documents of packed rows as in `MaskSpec`.
"""

from collections.abc import Callable, Iterator
from typing import cast

import mlx.core as mx
import numpy as np


def chunked(
    q_BKGLH: mx.array,
    k_BKLH: mx.array,
    v_BKLA: mx.array,
    segments_BL: mx.array | None = None,
    state_BKHA: mx.array | None = None,
    *,
    chunk_size: int,
    strict: bool = False,
) -> tuple[mx.array, mx.array]:
    """Causal sums by chunks; work linear in the length, and memory of L / chunk_size states.

    Args:
        q_BKGLH: Queries, or features of them.
        k_BKLH: Keys, or features of them.
        v_BKLA: Values.
        segments_BL: Document of each token, int32; None if a row is one document.
        state_BKHA: S before the first token; None for zeros. Not together with segments.
        chunk_size: T, at least 1.
        strict: Sum over j < i instead of j <= i.

    Returns:
        Sums [B, K, G, L, A], and S after the last token [B, K, H, A] (of the last document, if packed).
    """
    B, K, G, L, H = q_BKGLH.shape
    A, T = v_BKLA.shape[-1], min(chunk_size, L)
    C = -(-L // T)
    q_BKCGTH = _in_chunks(q_BKGLH, C, T).swapaxes(2, 3)
    k_BKCTH, v_BKCTA = _in_chunks(k_BKLH, C, T), _in_chunks(v_BKLA, C, T)
    inside = mx.array(np.tril(np.ones((T, T), dtype=np.float32), k=-1 if strict else 0))
    from_past, into_future, ends_BC = q_BKCGTH, k_BKCTH, None
    if segments_BL is not None:
        segments_BCT = _in_chunks(_lengthened(segments_BL, C * T)[..., None], C, T).squeeze(-1)
        # What a chunk hands on belongs to the document of its last token; only that document's queries take it.
        ends_BC = segments_BCT[:, :, -1]
        takes_BCT = segments_BCT == mx.concatenate([segments_BL[:, :1], ends_BC[:, :-1]], axis=1)[:, :, None]
        from_past = q_BKCGTH * takes_BCT[:, None, :, None, :, None]
        into_future = k_BKCTH * (segments_BCT == ends_BC[:, :, None])[:, None, :, :, None]
        same_BCTT = segments_BCT[..., :, None] == segments_BCT[..., None, :]
        inside = (inside * same_BCTT)[:, None, :, None]

    scores_BKCRT = q_BKCGTH.reshape(B, K, C, G * T, H) @ k_BKCTH.swapaxes(-1, -2)
    scores_BKCGTT = scores_BKCRT.reshape(B, K, C, G, T, T) * inside
    sums_BKCRA = scores_BKCGTT.reshape(B, K, C, G * T, T) @ v_BKCTA
    past_BKCHA, last_BKHA = _carry(into_future.swapaxes(-1, -2) @ v_BKCTA, ends_BC, state_BKHA)
    sums_BKCRA = mx.addmm(sums_BKCRA, from_past.reshape(B, K, C, G * T, H), past_BKCHA)
    sums_BKGCTA = sums_BKCRA.reshape(B, K, C, G, T, A).transpose(0, 1, 3, 2, 4, 5)
    return sums_BKGCTA.reshape(B, K, G, C * T, A)[..., :L, :], last_BKHA


def cumulative(
    q_BKGLH: mx.array,
    k_BKLH: mx.array,
    v_BKLA: mx.array,
    segments_BL: mx.array | None = None,
    state_BKHA: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Causal sums by one cumulative sum over the states of all tokens, [B, K, L, H, A]; arguments as for `chunked`."""
    states_BKLHA = _prefix_sums(k_BKLH[..., None] * v_BKLA[..., None, :], segments_BL)
    if state_BKHA is not None:
        states_BKLHA = states_BKLHA + state_BKHA[:, :, None]
    sums_BKLGA = q_BKGLH.swapaxes(2, 3) @ states_BKLHA
    # A copy, so that a cache does not keep the states of all tokens alive.
    return sums_BKLGA.swapaxes(2, 3), mx.contiguous(states_BKLHA[:, :, -1])


def recurrent(
    q_BKGLH: mx.array,
    k_BKLH: mx.array,
    v_BKLA: mx.array,
    segments_BL: mx.array | None = None,
    state_BKHA: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Causal sums token by token; arguments as for `chunked`. The gradient recomputes the L states, keeping none."""
    B, K, _, _, H = q_BKGLH.shape
    if state_BKHA is None:
        state_BKHA = mx.zeros((B, K, H, v_BKLA.shape[-1]), dtype=mx.float32)
    return cast(tuple[mx.array, mx.array], _recurrence(segments_BL)(q_BKGLH, k_BKLH, v_BKLA, state_BKHA))


def document_starts(segments_BL: mx.array) -> mx.array:
    """bool [B, L]: whether a token is the first of its document; False for the first token of a row."""
    return mx.pad(segments_BL[:, 1:] != segments_BL[:, :-1], [(0, 0), (1, 0)])


def _recurrence(segments_BL: mx.array | None) -> Callable[..., object]:
    """`(q, k, v, state) -> (sums, state)` with its own gradient."""
    keep_BL = None if segments_BL is None else ~document_starts(segments_BL)

    def fold(state_BKHA: mx.array, left: mx.array, right: mx.array, index: int) -> mx.array:
        kept = state_BKHA if keep_BL is None else state_BKHA * keep_BL[:, None, index, None, None]
        return mx.addmm(kept, left.swapaxes(-1, -2), right)

    @mx.custom_function
    def sums(q_BKGLH: mx.array, k_BKLH: mx.array, v_BKLA: mx.array, state_BKHA: mx.array) -> tuple[mx.array, mx.array]:
        outputs = []
        for index, (q, k, v) in enumerate(_tokens(q_BKGLH, k_BKLH, v_BKLA)):
            state_BKHA = fold(state_BKHA, k, v, index)
            outputs.append(q @ state_BKHA)
        return mx.stack(outputs, axis=3), state_BKHA

    @sums.vjp
    def gradients(
        primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> tuple[mx.array, ...]:
        q_BKGLH, k_BKLH, v_BKLA, state_BKHA = primals
        tokens = list(enumerate(_tokens(q_BKGLH, k_BKLH, v_BKLA, cotangents[0])))
        of_q, of_k, of_v = [], [], []
        for index, (_, k, v, cotangent) in tokens:
            state_BKHA = fold(state_BKHA, k, v, index)
            of_q.append(cotangent @ state_BKHA.swapaxes(-1, -2))
        of_state = cotangents[1]
        for index, (q, k, v, cotangent) in reversed(tokens):
            of_state = mx.addmm(of_state, q.swapaxes(-1, -2), cotangent)
            of_k.append(v @ of_state.swapaxes(-1, -2))
            of_v.append(k @ of_state)
            if keep_BL is not None:
                of_state = of_state * keep_BL[:, None, index, None, None]
        of_k_BKLH, of_v_BKLA = (mx.concatenate(parts[::-1], axis=2) for parts in (of_k, of_v))
        return mx.stack(of_q, axis=3), of_k_BKLH, of_v_BKLA, of_state

    return sums


def _tokens(*arrays: mx.array) -> Iterator[tuple[mx.array, ...]]:
    """Token by token: [B, K, G, H] of arrays with groups, [B, K, 1, H] of those without."""
    for index in range(arrays[0].shape[-2]):
        yield tuple(x[..., index, :] if x.ndim == 5 else x[..., index : index + 1, :] for x in arrays)


def _prefix_sums(x_BKLHA: mx.array, segments_BL: mx.array | None) -> mx.array:
    """Inclusive cumulative sums over L that start afresh with each document."""
    if segments_BL is None:
        return mx.cumsum(x_BKLHA, axis=2)
    # Doubling (Hillis and Steele, 1986) instead of a difference of two cumulative sums, which would cancel: after the
    # pass with `reach`, a token holds the sum over the last 2 * reach tokens of its document.
    reach, length = 1, x_BKLHA.shape[2]
    while reach < length:
        same_BR = segments_BL[:, reach:] == segments_BL[:, :-reach]
        earlier = x_BKLHA[:, :, :-reach] * same_BR[:, None, :, None, None]
        x_BKLHA = mx.concatenate([x_BKLHA[:, :, :reach], x_BKLHA[:, :, reach:] + earlier], axis=2)
        reach *= 2
    return x_BKLHA


def _carry(states_BKCHA: mx.array, ends_BC: mx.array | None, state_BKHA: mx.array | None) -> tuple[mx.array, mx.array]:
    """The sums before each chunk [B, K, C, H, A] and after the last [B, K, H, A], from the chunks' own sums."""
    if ends_BC is not None:
        sums_BKCHA = _prefix_sums(states_BKCHA, ends_BC)
        return mx.pad(sums_BKCHA[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0)]), sums_BKCHA[:, :, -1]
    past_BKCHA = mx.cumsum(states_BKCHA, axis=2, inclusive=False)
    if state_BKHA is not None:
        past_BKCHA = past_BKCHA + state_BKHA[:, :, None]
    return past_BKCHA, past_BKCHA[:, :, -1] + states_BKCHA[:, :, -1]


def _lengthened(segments_BL: mx.array, length: int) -> mx.array:
    """The last document goes on through the zeros that fill the last chunk."""
    B, L = segments_BL.shape
    return mx.concatenate([segments_BL, mx.broadcast_to(segments_BL[:, -1:], (B, length - L))], axis=1)


def _in_chunks(x: mx.array, C: int, T: int) -> mx.array:
    """Splits the last but one axis into C chunks of T, filling the last chunk with zeros."""
    missing = C * T - x.shape[-2]
    if missing:
        x = mx.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, missing), (0, 0)])
    return x.reshape(*x.shape[:-2], C, T, x.shape[-1])
