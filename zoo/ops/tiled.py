"""Softmax attention in tiles: the score matrix never exists as a whole, so memory is linear in the length.

Forward, over the key tiles j of each query tile (m running maximum, l running sum, a running numerator):

    m' = max(m, max_j s_j),   l' = l e^(m-m') + sum_j e^(s_j-m'),   a' = a e^(m-m') + e^(s_j-m') v_j,   y = a / l

Backward, from q, k, v, y and the log-sum-exp z = m + log l alone, recomputing each tile:

    p = e^(s-z),   dv += p^T dy,   ds = p * (dy v^T - sum(dy * y)),   dq += ds k,   dk += ds^T q

A virtual key with a logit and no value (`zoo.ops.scores`) is where m and l begin. A mechanism's change of the scores is
applied to each tile, and MLX differentiates it there: ds, through the change, is what goes on to q and k.

Milakov & Gimelshein, "Online normalizer calculation for softmax", https://arxiv.org/abs/1805.02867; Rabe & Staats,
"Self-attention Does Not Need O(n^2) Memory", https://arxiv.org/abs/2112.05682; the backward pass is that of Dao et
al., "FlashAttention", https://arxiv.org/abs/2205.14135 (their L is our z, their D our sum(dy * y)). We deviate in
that tiles are plain MLX arrays, that tiles in which the pattern allows nothing are skipped both ways, and that ALiBi's
slopes are constants: they get no gradient.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, G = N / K queries per key/value
head, H head_dim, T queries of a tile, U keys of a tile, R = G * T rows of scores that share a key tile.
"""

from typing import cast

import mlx.core as mx
import numpy as np

from zoo.ops.exponential import exp
from zoo.ops.patterns import block_map
from zoo.ops.softmax import ScoreSpec
from zoo.ops.tiles import LEARNED, Plan, changed_scores, finished_scores, learned_of

# Small enough that the scores of a tile stay in a core's cache, large enough that operations are worth dispatching.
SMALLEST_TILE = 128
# Key tiles grow with the length, which bounds the number of tiles of a query by this and keeps memory linear.
MOST_KEY_TILES = 16
# Query tiles grow as key tiles do, up to this, which keeps memory linear too. A tile is some fifty operations, and of
# 4,096 tokens in tiles of 128 queries the operations themselves took more memory than what they computed.
LARGEST_QUERY_TILE = 512

# Where the running maximum starts: below every true score, above the masked ones, so that masked scores weigh
# exactly nothing, also in rows that may attend to nothing.
LOWEST_MAXIMUM = -1e30


def tiled(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Softmax attention with memory linear in L and S, forward and backward.

    Args:
        q_BNLH: Queries.
        k_BKSH: Keys; K divides N.
        v_BKSH: Values.
        spec: Scale, mask, pattern and bias.

    Returns:
        [B, N, L, H] in the dtype of q; zeros where a query may attend to nothing.
    """
    if q_BNLH.shape[2] == 0 or k_BKSH.shape[2] == 0:
        return mx.zeros_like(q_BNLH)
    extras = _extras(spec, q_BNLH.shape[1])
    plan = _plan(spec, q_BNLH.shape[2], k_BKSH.shape[2], tuple(extras))

    @mx.custom_function
    def attend(q: mx.array, k: mx.array, v: mx.array, *rest: mx.array) -> tuple[mx.array, mx.array]:
        return _forward(plan, q, k, v, dict(zip(plan.extras, rest, strict=True)))

    @attend.vjp
    def attend_vjp(
        primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> tuple[mx.array, ...]:
        q, k, v, *rest = primals
        named = dict(zip(plan.extras, rest, strict=True))
        gradients, learned = _backward(plan, (q, k, v), outputs, cotangents[0], named)
        return (*gradients, *(learned.get(name, mx.zeros_like(array)) for name, array in named.items()))

    outputs = cast(tuple[mx.array, mx.array], attend(q_BNLH, k_BKSH, v_BKSH, *extras.values()))
    return outputs[0]


def _extras(spec: ScoreSpec, N: int) -> dict[str, mx.array]:
    """Arrays of the spec. They must be inputs of the custom function: what it captures is a constant to MLX."""
    candidates = {
        "lengths_B": spec.mask.lengths_B,
        "segments_BL": spec.mask.segments_BL,
        "slopes_N": spec.slopes_N,
        "offset_B": None if isinstance(spec.mask.offset, int) else spec.mask.offset,
        "key_positions": spec.key_positions,
        "sink_N": spec.sink_logits(N),
        **{LEARNED + name: array for name, array in spec.learned.items()},
    }
    return {name: array for name, array in candidates.items() if array is not None}


def _plan(spec: ScoreSpec, L: int, S: int, extras: tuple[str, ...]) -> Plan:
    key_tile = SMALLEST_TILE * max(1, -(-S // (SMALLEST_TILE * MOST_KEY_TILES)))
    query_tile = min(key_tile, LARGEST_QUERY_TILE)
    if isinstance(spec.mask.offset, int) and spec.key_positions is None:
        tiles = block_map(
            spec.pattern,
            causal=spec.mask.causal,
            query_length=L,
            key_length=S,
            query_tile=query_tile,
            key_tile=key_tile,
            query_start=spec.mask.offset,
        )
    else:
        # Where the positions are data, any tile may hold an allowed pair.
        tiles = np.ones((-(-L // query_tile), -(-S // key_tile)), dtype=np.int8)
    return Plan(
        spec=spec,
        tiles=tiles,
        query_tile=query_tile,
        key_tile=key_tile,
        query_length=L,
        key_length=S,
        extras=extras,
    )


def _forward(
    plan: Plan, q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, named: dict[str, mx.array]
) -> tuple[mx.array, mx.array]:
    """Returns y [B, N, L, H] in the dtype of q, and the log-sum-exp of each row's scores, float32 [B, N, L, 1]."""
    B, N, _, H = q_BNLH.shape
    k, v = k_BKSH.astype(mx.float32), v_BKSH.astype(mx.float32)
    outputs, log_sums = [], []
    done: list[mx.array] = []
    for row, queries in plan.rows():
        q_BKRH = _query_rows(q_BNLH[:, :, queries], k.shape[1]) * plan.spec.scale
        numerator = mx.zeros(q_BKRH.shape, dtype=mx.float32)
        peak, total = _start((*q_BKRH.shape[:3], 1), named)
        for column, keys in plan.columns(row):
            k_BKUH, v_BKUH = _after(done, k[:, :, keys], v[:, :, keys])
            scores = finished_scores(plan, (row, column), q_BKRH @ k_BKUH.swapaxes(-1, -2), named)
            higher = mx.maximum(peak, scores.max(axis=-1, keepdims=True))
            shrink = exp(peak - higher)
            weights = exp(scores - higher)
            total = total * shrink + weights.sum(axis=-1, keepdims=True)
            numerator = numerator * shrink + weights @ v_BKUH
            peak = higher
            done = [numerator, total]
        # A row without keys has total 0 and still its first peak, below which the backward pass finds no weight either.
        y = numerator / mx.where(total > 0, total, 1.0)
        log_sum = peak + mx.log(mx.where(total > 0, total, 1.0))
        length = queries.stop - queries.start
        outputs.append(y.reshape(B, N, length, H).astype(q_BNLH.dtype))
        log_sums.append(log_sum.reshape(B, N, length, 1))
        done = [outputs[-1], log_sums[-1]]
    return mx.concatenate(outputs, axis=2), mx.concatenate(log_sums, axis=2)


def _backward(
    plan: Plan,
    primals: tuple[mx.array, mx.array, mx.array],
    outputs: tuple[mx.array, ...],
    dy_BNLH: mx.array,
    named: dict[str, mx.array],
) -> tuple[tuple[mx.array, mx.array, mx.array], dict[str, mx.array]]:
    """Gradients of q, k and v, each in its own dtype, and of what a mechanism learns by its name in `named`."""
    q_BNLH, k_BKSH, v_BKSH = primals
    y_BNLH, log_sum_BNL1 = outputs
    K = k_BKSH.shape[1]
    k, v = k_BKSH.astype(mx.float32), v_BKSH.astype(mx.float32)
    shared_BNL1 = (dy_BNLH.astype(mx.float32) * y_BNLH.astype(mx.float32)).sum(axis=-1, keepdims=True)
    dk: dict[int, mx.array] = {}
    dv: dict[int, mx.array] = {}
    dlearned: dict[str, mx.array] = {}
    dq_parts = []
    done: list[mx.array] = []
    for row, queries in plan.rows():
        q_BKRH = _query_rows(q_BNLH[:, :, queries], K) * plan.spec.scale
        dy_BKRH = _query_rows(dy_BNLH[:, :, queries], K)
        log_sum = _query_rows(log_sum_BNL1[:, :, queries], K)
        shared = _query_rows(shared_BNL1[:, :, queries], K)
        dq = mx.zeros(q_BKRH.shape, dtype=mx.float32)
        for column, keys in plan.columns(row):
            k_BKUH, v_BKUH = _after(done, k[:, :, keys], v[:, :, keys])
            products = q_BKRH @ k_BKUH.swapaxes(-1, -2)
            weights = exp(finished_scores(plan, (row, column), products, named) - log_sum)
            dscores = weights * (dy_BKRH @ v_BKUH.swapaxes(-1, -2) - shared)
            if plan.changes_scores:
                dscores = _through_change(plan, (row, column), products, dscores, named, dlearned)
            dq = dq + dscores @ k_BKUH
            _add(dk, column, dscores.swapaxes(-1, -2) @ q_BKRH)
            _add(dv, column, weights.swapaxes(-1, -2) @ dy_BKRH)
            done = [dq, dk[column], dv[column], *dlearned.values()]
        dq = dq * plan.spec.scale
        dq_parts.append(dq.reshape(q_BNLH[:, :, queries].shape).astype(q_BNLH.dtype))
        done = [*done, dq_parts[-1]]
    if "sink_N" in named:
        # The virtual key's weight, and dy v^T = 0 since it has no value.
        weight_BNL1 = exp(mx.maximum(named["sink_N"], LOWEST_MAXIMUM)[:, None, None] - log_sum_BNL1)
        dlearned["sink_N"] = -(weight_BNL1 * shared_BNL1).sum(axis=(0, 2, 3))
    gradients = mx.concatenate(dq_parts, axis=2), _joined(plan, dk, k_BKSH), _joined(plan, dv, v_BKSH)
    return gradients, dlearned


def _start(shape: tuple[int, ...], named: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """Running maximum and sum before the first key, float32 [B, K, R, 1]: nothing, or the virtual key."""
    if "sink_N" not in named:
        return mx.full(shape, LOWEST_MAXIMUM, dtype=mx.float32), mx.zeros(shape, dtype=mx.float32)
    B, K, R, _ = shape
    sink_N = named["sink_N"]
    sink_KR = mx.repeat(sink_N.reshape(K, -1), R * K // sink_N.size, axis=1)
    sink = mx.broadcast_to(sink_KR[None, :, :, None], (B, K, R, 1))
    peak = mx.maximum(sink, LOWEST_MAXIMUM)
    return peak, exp(sink - peak)


def _through_change(
    plan: Plan,
    tile: tuple[int, int],
    products: mx.array,
    dscores: mx.array,
    named: dict[str, mx.array],
    dlearned: dict[str, mx.array],
) -> mx.array:
    """The gradient of a tile's products from that of its changed scores; adds that of what is learned to `dlearned`."""
    learned = learned_of(named)

    def change(products: mx.array, *arrays: mx.array) -> mx.array:
        return changed_scores(plan, tile, products, dict(zip(learned, arrays, strict=True)), named)

    _, (dproducts, *terms) = mx.vjp(change, [products, *learned.values()], [dscores])
    for name, term in zip(learned, terms, strict=True):
        dlearned[LEARNED + name] = dlearned[LEARNED + name] + term if LEARNED + name in dlearned else term
    return dproducts


def _query_rows(tile_BNTX: mx.array, K: int) -> mx.array:
    """[B, N, T, X] -> float32 [B, K, R, X]: the queries that read one key/value head become rows of one matrix."""
    B, N, T, X = tile_BNTX.shape
    return tile_BNTX.reshape(B, K, (N // K) * T, X).astype(mx.float32)


def _after(done: list[mx.array], *arrays: mx.array) -> list[mx.array]:
    """Makes the next tile wait for the last one; else MLX may hold the scores of many tiles at once."""
    return mx.depends(list(arrays), done) if done else list(arrays)


def _add(sums: dict[int, mx.array], column: int, term: mx.array) -> None:
    sums[column] = sums[column] + term if column in sums else term


def _joined(plan: Plan, parts: dict[int, mx.array], like: mx.array) -> mx.array:
    """Puts the gradients of the key tiles side by side; tiles that nobody reads have none, hence zeros."""
    B, K, _, H = like.shape
    joined = []
    for column in range(plan.tiles.shape[1]):
        keys = plan.keys(column)
        part = parts.get(column)
        joined.append(mx.zeros((B, K, keys.stop - keys.start, H)) if part is None else part)
    return mx.concatenate(joined, axis=2).astype(like.dtype)
