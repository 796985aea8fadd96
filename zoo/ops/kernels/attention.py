"""Softmax attention under a pattern on GPUs, forward and backward, in the kernels of this folder.

What it computes is what `zoo.ops.tiled` says: an online softmax over the tiles in which the pattern allows anything,
with a backward pass that computes the weights again from the log-sum-exp, one kernel for the queries' gradient and one
for those of keys and values, so that nothing is added up by several threadgroups and every run gives the same.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import mlx.core as mx
import numpy as np

from zoo.ops.patterns import Pattern, batched, everything
from zoo.ops.softmax import ScoreSpec
from zoo.ops.tile_maps import tile_map

Dialect = Literal["metal", "cuda"]
# As in attention.h.
TILE, THREADS = 32, 128
# Inputs of every kernel, and of each before them; then its outputs.
SHARED_INPUTS = (
    *("sizes", "scale", "masks", "lengths", "segments"),
    *("slopes", "query_positions", "key_positions", "dense"),
)
_OF_GRADIENTS = ("q", "k", "v", "dy", "log_sums", "deltas")
INPUTS: Mapping[str, tuple[str, ...]] = {
    "attention_forward": ("q", "k", "v", "sinks", "row_starts", "columns", "row_kinds", *SHARED_INPUTS),
    "attention_queries": (*_OF_GRADIENTS, "row_starts", "columns", "row_kinds", *SHARED_INPUTS),
    "attention_keys": (*_OF_GRADIENTS, "column_starts", "rows", "column_kinds", *SHARED_INPUTS),
}
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "attention_forward": ("y", "log_sums"),
    "attention_queries": ("dq",),
    "attention_keys": ("dk", "dv"),
}
# What a body calls a thread's place.
PLACES: Mapping[Dialect, str] = {
    "metal": """
const int thread_index = int(thread_position_in_threadgroup.x);
const int lane = int(thread_index_in_simdgroup);
const int simd_group = int(simdgroup_index_in_threadgroup);
const int group_x = int(threadgroup_position_in_grid.x);
const int group_y = int(threadgroup_position_in_grid.y);
const int group_z = int(threadgroup_position_in_grid.z);
""",
    "cuda": """
const int thread_index = int(threadIdx.x);
const int lane = thread_index % 32;
const int simd_group = thread_index / 32;
const int group_x = int(blockIdx.x);
const int group_y = int(blockIdx.y);
const int group_z = int(blockIdx.z);
""",
}


def gpu_attention(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """What `zoo.ops.native.native` computes, for at least one query and one key, on a GPU."""
    N, L, S = q_BNLH.shape[1], q_BNLH.shape[2], k_BKSH.shape[2]
    call = _Call(spec, num_heads=N, num_kv_heads=k_BKSH.shape[1], query_length=L, key_length=S)
    sinks = spec.sink_logits(N)

    @mx.custom_function
    def attend(q: mx.array, k: mx.array, v: mx.array, sinks: mx.array) -> tuple[mx.array, mx.array]:
        y, log_sums = call.run("attention_forward", {"q": q, "k": k, "v": v, "sinks": sinks})
        return y, log_sums

    @attend.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        (q, k, v, sinks), (dy, _), (y, log_sums) = primals, cotangents, outputs
        deltas = (dy * y).sum(axis=-1)
        given = {"q": q, "k": k, "v": v, "dy": dy, "log_sums": log_sums, "deltas": deltas}
        (dq,) = call.run("attention_queries", given)
        dk, dv = call.run("attention_keys", given)
        # The virtual key has a weight and no value.
        d_sinks = -(mx.exp(sinks[:, None] - log_sums) * deltas).sum(axis=(0, 2))
        return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), d_sinks.astype(sinks.dtype)

    no_sinks = mx.full((N,), -np.inf, dtype=mx.float32)
    outputs: Any = attend(q_BNLH, k_BKSH, v_BKSH, no_sinks if sinks is None else sinks)
    y_BNLH: mx.array = outputs[0]
    return y_BNLH.astype(q_BNLH.dtype)


class _Call:
    """What the kernels of one call have in common."""

    def __init__(
        self, spec: ScoreSpec, *, num_heads: int, num_kv_heads: int, query_length: int, key_length: int
    ) -> None:
        L, S = query_length, key_length
        described = isinstance(spec.mask.offset, int) and spec.key_positions is None
        empty, mask = mx.zeros((1,), dtype=mx.int32), spec.mask
        # Where the positions are data, so is the mask.
        pattern, causal, offset = (spec.pattern, mask.causal, mask.offset) if described else (everything, False, 0)
        dense = None if described else spec.visible(L, S)[:, 0].swapaxes(-1, -2).astype(mx.uint8)
        slopes = spec.slopes_N is not None
        positions = (
            [batched(mask.positions(L)), batched(spec.resolved_key_positions(S))] if slopes else [empty[None]] * 2
        )
        lengths, segments = (mask.lengths_B, mask.segments_BL) if described else (None, None)
        flags = [lengths is not None, segments is not None, slopes, spec.sink_logits(num_heads) is not None]
        rows = [0 if dense is None else dense.shape[0], *(each.shape[0] for each in positions)]
        self._sizes = (num_heads, num_kv_heads, L, S)
        self._arrays: dict[str, mx.array] = {
            "sizes": mx.array([L, S, num_heads, num_kv_heads, *map(int, flags), *rows], dtype=mx.int32),
            "scale": mx.array([spec.scale], dtype=mx.float32),
            **_tiles(pattern, causal, L, S, cast(int, offset)),
            "lengths": empty if lengths is None else lengths,
            "segments": empty if segments is None else segments,
            "slopes": mx.zeros((1,)) if spec.slopes_N is None else spec.slopes_N,
            "query_positions": positions[0],
            "key_positions": positions[1],
            "dense": mx.zeros((1,), dtype=mx.uint8) if dense is None else dense,
        }

    def run(self, name: str, given: Mapping[str, mx.array]) -> Sequence[mx.array]:
        """The outputs of a kernel, float32."""
        N, K, L, S = self._sizes
        B, _, _, H = given["q"].shape
        arrays = {**self._arrays, **given}
        shapes = {"log_sums": (B, N, L), "dk": (B, K, S, H), "dv": (B, K, S, H)}
        tiles, heads = (-(-S // TILE), K) if name == "attention_keys" else (-(-L // TILE), N)
        outputs: Sequence[mx.array] = _kernel(name, "metal" if mx.metal.is_available() else "cuda")(
            inputs=[arrays[each] for each in INPUTS[name]],
            template=[("HEAD_DIM", H)],
            grid=(tiles * THREADS, heads, B),
            threadgroup=(THREADS, 1, 1),
            output_shapes=[shapes.get(each, (B, N, L, H)) for each in OUTPUTS[name]],
            output_dtypes=[mx.float32] * len(OUTPUTS[name]),
        )
        return outputs


@functools.lru_cache(maxsize=64)
def _tiles(pattern: Pattern, causal: bool, L: int, S: int, offset: int) -> Mapping[str, mx.array]:
    """What the kernels take of a pattern, by rows and by columns; queries have the positions from `offset` on."""
    found = tile_map(
        pattern, causal=causal, query_length=L, key_length=S, query_start=offset, query_tile=TILE, key_tile=TILE
    )
    starts, rows, kinds = found.by_column(-(-S // TILE))
    return {
        "masks": mx.array(found.masks),
        "row_starts": mx.array(found.row_starts),
        "columns": mx.array(found.columns),
        "row_kinds": mx.array(found.kinds),
        "column_starts": mx.array(starts),
        "rows": mx.array(rows),
        "column_kinds": mx.array(kinds),
    }


def kernel_text(name: str, dialect: Dialect) -> tuple[str, str]:
    """Header and body of a kernel, as MLX takes them."""
    folder = Path(__file__).parent
    header = "".join((folder / each).read_text(encoding="utf-8") for each in (f"{dialect}.h", "attention.h"))
    return header, PLACES[dialect] + (folder / f"{name}.body").read_text(encoding="utf-8")


@functools.cache
def _kernel(name: str, dialect: Dialect) -> Any:
    header, source = kernel_text(name, dialect)
    make: Any = mx.fast.metal_kernel if dialect == "metal" else mx.fast.cuda_kernel
    return make(
        name=f"zoo_{name}",
        input_names=list(INPUTS[name]),
        output_names=list(OUTPUTS[name]),
        source=source,
        header=header,
    )
