"""The flash comparison's 48 cells, one function computed in four ways: batch 1 to 8, length 64 to 512, head 32 to 128.

Its "baseline" is done right (`mha_manual`); its "practical" and "demo" were one class around MLX's own attention
(`mha`); what it hoped for is an online softmax (`mha_tiled`); its proof of concept was a Metal kernel that failed on
every call and silently did something else. Here one thread of the kernel computes one output row with an online softmax
(Milakov and Gimelshein, https://arxiv.org/abs/1805.02867), so that the scores are never in memory; without tiles in
threadgroup memory. There is no fallback: without Metal the cell is unavailable, and a kernel that errs leaves a row
that says so.

Letters: B batch, L length, N query heads, H head_dim.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from eval.bench import Group, Workload
from eval.checks.attention import check_op
from eval.rows import Cell
from eval.suites import Suite, over_groups
from eval.suites.series import cells_of, published_series
from eval.workloads import computed_function, workload_of
from eval.workloads.attention import attention_setting
from zoo.config import UserError, require

NAME = "grid48"
BATCH_SIZES, LENGTHS, HEAD_DIMS = (1, 2, 4, 8), (64, 128, 256, 512), (32, 64, 128)
# Scores of one head, over the batch: from 4 rows of 512 tokens on a quarter of a second a call. The other 42 groups
# have controls enough.
_MANY_SCORES, _MAX_ROUNDS = 2**20, 10
BASELINE, CANDIDATES, KERNEL = "mha_manual", ("mha", "mha_tiled"), "metal_kernel_poc"


def plan(*, lengths: Sequence[int] = LENGTHS, batch_sizes: Sequence[int] = BATCH_SIZES) -> list[Group]:
    """The 48 groups."""
    chosen = [published_series(name) for name in (BASELINE, *CANDIDATES)]
    found = []
    for batch_size, length, head_dim in itertools.product(batch_sizes, lengths, HEAD_DIMS):
        name = f"B={batch_size} L={length} H={head_dim}"
        sizes = {"batch_size": batch_size, "length": length, "head_dim": head_dim}
        setting: dict[str, Any] = {"suite": NAME, "group": name, "level": "op", "mode": "forward", **sizes}
        kernel = Cell(**setting, builder=KERNEL, variant=KERNEL, causal=False)
        large = batch_size * length**2 >= _MANY_SCORES
        cells = (*cells_of(chosen, **setting, causal=False), kernel)
        found.append(Group(cells=cells, control=not large, max_rounds=_MAX_ROUNDS if large else None))
    return found


# The body of the kernel; `T` and `H` are template arguments, and MLX declares the arrays and their shapes.
SOURCE = """
    const uint L = q_shape[2];
    const uint query = thread_position_in_grid.x;
    const uint head = thread_position_in_grid.y;
    const uint first = head * L * H;
    float sum[H];
    for (uint h = 0; h < H; ++h) sum[h] = 0;
    float top = -INFINITY;
    float total = 0;
    for (uint key = 0; key < L; ++key) {
        float score = 0;
        for (uint h = 0; h < H; ++h) score += float(q[first + query * H + h]) * float(k[first + key * H + h]);
        score *= scale[0];
        const float higher = max(top, score);
        const float shrink = exp(top - higher);
        const float weight = exp(score - higher);
        total = total * shrink + weight;
        for (uint h = 0; h < H; ++h) sum[h] = sum[h] * shrink + weight * float(v[first + key * H + h]);
        top = higher;
    }
    for (uint h = 0; h < H; ++h) y[first + query * H + h] = T(sum[h] / total);
"""
# Threads of a group: one SIMD group of Apple's GPUs.
_GROUP_THREADS = 32


def build(cell: Cell) -> Workload:
    """Builds the kernel for a cell of full attention, forward, without a mask.

    Raises:
        UserError: If the device has no Metal, or the cell asks for anything else.
    """
    if not mx.metal.is_available():
        raise UserError("a Metal kernel needs a device with Metal, and this one has none")
    require(cell.mode == "forward" and not cell.causal, "modes", "be forward, without a mask", cell.mode)
    softmax = json.dumps({"name": cell.variant, "mechanism": "softmax"})
    setting = attention_setting(cell.model_copy(update={"attention": softmax}))
    return workload_of(
        cell,
        attention_kernel(cell.head_dim),
        setting.inputs(),
        lambda timed: check_op(setting, timed),
        computes=computed_function(cell, setting.variant.capabilities.exact_class),
        useful_flops=4 * cell.batch_size * cell.num_heads * cell.head_dim * cell.length**2,
    )


def attention_kernel(head_dim: int) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """`(q_BNLH, k_BNLH, v_BNLH) -> y_BNLH` on Metal.

    Raises:
        RuntimeError: If this MLX has no Metal.
    """
    kernel: Any = mx.fast.metal_kernel(
        name="online_softmax_attention", input_names=["q", "k", "v", "scale"], output_names=["y"], source=SOURCE
    )
    scale = mx.array([head_dim**-0.5], dtype=mx.float32)

    def attend(q_BNLH: mx.array, k_BNLH: mx.array, v_BNLH: mx.array) -> mx.array:
        B, N, L, H = q_BNLH.shape
        (y_BNLH,) = kernel(
            inputs=[q_BNLH, k_BNLH, v_BNLH, scale],
            template=[("T", q_BNLH.dtype), ("H", H)],
            grid=(L, B * N, 1),
            threadgroup=(min(L, _GROUP_THREADS), 1, 1),
            output_shapes=[q_BNLH.shape],
            output_dtypes=[q_BNLH.dtype],
        )
        return y_BNLH

    return attend


SUITE = Suite(name=NAME, plan=plan, summary=over_groups)
BUILDERS = {KERNEL: build}
