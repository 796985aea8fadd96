"""Softmax attention in compiled tiles, driven by a pattern's tile map.

On processors they are those of the folder `native/`, on GPUs those of `zoo/ops/kernels`. What is computed, and how, is
what `zoo.ops.tiled` says.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import functools
import logging
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.ops.kernels.attention import gpu_attention
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import Pattern, batched, everything
from zoo.ops.softmax import ScoreSpec, fused
from zoo.ops.tile_maps import tile_map
from zoo.runtime.native import native_kernels
from zoo.runtime.native import why_no_native as why_not_on_cpu

logger = logging.getLogger(__name__)

# Vectors of the widest instruction set.
_LANES = 16
_QUERY_TILE = 64
# Of full attention, where larger tiles cost least; other patterns leave out more in smaller ones.
_LONG_KEY_TILE, _KEY_TILE, _LONG = 64, 32, 1024
# Between two ways to add up 70 float32 numbers of about 1, gradients included; a GPU may multiply in TF32.
_GPU_ERROR = 2e-2


def native(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Softmax attention in compiled tiles: float32 inside, memory linear in L and S, forward and backward.

    Args:
        q_BNLH: Queries.
        k_BKSH: Keys; K divides N.
        v_BKSH: Values.
        spec: Scale, mask, pattern, bias and virtual key; nothing else that changes the scores.

    Returns:
        [B, N, L, H] in the dtype of q; zeros where a query may attend to nothing.

    Raises:
        UserError: If arrays are on a processor, and the package of kernels is not there.
    """
    L, S = q_BNLH.shape[2], k_BKSH.shape[2]
    if L == 0 or S == 0:
        return mx.zeros_like(q_BNLH)
    if mx.default_device().type != mx.cpu:
        # Of a tile of queries a single one would leave the rest idle.
        return fused(q_BNLH, k_BKSH, v_BKSH, spec) if L == 1 else gpu_attention(q_BNLH, k_BKSH, v_BKSH, spec)
    kernels = native_kernels()
    more: dict[str, Any] = {"sinks": spec.sink_logits(q_BNLH.shape[1])}
    if isinstance(spec.mask.offset, int) and spec.key_positions is None:
        tiles = _tiles(spec.pattern, spec.mask.causal, L, S, spec.mask.offset)
        more |= {"lengths": spec.mask.lengths_B, "segments": spec.mask.segments_BL}
    else:
        # Where the positions are data, so is the mask.
        tiles = _tiles(everything, False, L, S, 0)
        more["dense"] = spec.visible(L, S)[:, 0].swapaxes(-1, -2)
    if spec.slopes_N is not None:
        more["slopes"] = spec.slopes_N
        more["query_positions"] = batched(spec.mask.positions(L))
        more["key_positions"] = batched(spec.resolved_key_positions(S))
    arrays = (array.astype(mx.float32) for array in (q_BNLH, k_BKSH, v_BKSH))
    y_BNLH: mx.array = kernels.attention(*arrays, scale=spec.scale, **tiles, **more)
    return y_BNLH.astype(q_BNLH.dtype)


@functools.lru_cache(maxsize=64)
def _tiles(pattern: Pattern, causal: bool, L: int, S: int, offset: int) -> dict[str, Any]:
    """What the kernels for processors take of a pattern; queries have the positions from `offset` on."""
    found = tile_map(
        pattern,
        causal=causal,
        query_length=L,
        key_length=S,
        query_start=offset,
        query_tile=min(_QUERY_TILE, -(-L // _LANES) * _LANES),
        key_tile=_LONG_KEY_TILE if pattern is everything and S >= _LONG else _KEY_TILE,
    )
    return {
        "query_tile": found.query_tile,
        "key_tile": found.key_tile,
        "row_starts": mx.array(found.row_starts),
        "columns": mx.array(found.columns),
        "kinds": mx.array(found.kinds),
        "masks": mx.array(found.masks),
    }


def why_no_native() -> str | None:
    """Why the kernels cannot be used, in words; None if they can."""
    return why_not_on_cpu() if mx.default_device().type == mx.cpu else _why_not_on_gpu()


@functools.cache
def _why_not_on_gpu() -> str | None:
    """Runs the kernels beside the plain implementation, once on a device: nobody has seen them on every one."""
    generator = np.random.default_rng(0)
    q, dy = (mx.array(generator.standard_normal((2, 4, 70, 40)).astype(np.float32)) for _ in range(2))
    k, v = (mx.array(generator.standard_normal((2, 2, 70, 40)).astype(np.float32)) for _ in range(2))
    lengths_B = mx.array([70, 41], dtype=mx.int32)
    spec = ScoreSpec(scale=40**-0.5, mask=MaskSpec(causal=True, lengths_B=lengths_B), pattern=_near)
    try:
        found, expected = (
            [*outputs, *gradients]
            for outputs, gradients in (
                mx.vjp(lambda *arrays, op=op: op(*arrays, spec), [q, k, v], [dy]) for op in (gpu_attention, fused)
            )
        )
        error = max(float(mx.abs(ours - theirs).max()) for ours, theirs in zip(found, expected, strict=True))
    # MLX's compiler, or a model that left without the kernels' texts.
    except (RuntimeError, ValueError, OSError) as problem:
        reason = f"its kernels do not run on this device: {' '.join(str(problem).split())}"
    else:
        if error <= _GPU_ERROR:
            return None
        reason = f"its kernels disagree with the plain implementation on this device, by {error:.1e}"
    logger.warning("native attention is left out: %s", reason)
    return reason


def _near(query_index: Any, key_index: Any) -> Any:
    """A window with gaps; every query sees something, since of those that do not implementations may differ."""
    return (query_index - key_index < 45) & ((query_index + key_index) % 7 != 3)
