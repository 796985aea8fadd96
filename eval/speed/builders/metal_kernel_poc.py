"""Attention as a Metal kernel of our own: what the flash comparison's proof of concept was meant to be.

One thread computes one output row with an online softmax (Milakov and Gimelshein, https://arxiv.org/abs/1805.02867),
so that the scores are never in memory. It is a proof of concept, without tiles in threadgroup memory. There is no
fallback: without Metal the cell is unavailable, and a kernel that fails or errs leaves a row that says so.

Letters: B batch, L length, N query heads, H head_dim.
"""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from eval.bench import Workload
from eval.checks import Finding, as_numpy, relative_error, tolerance, verdict
from eval.rows import Cell
from eval.workloads import computed_function, work_of
from eval.workloads.op import OpSetting, layer_shape
from zoo.attention import variant_from_mapping
from zoo.attention.variant import VariantConfig
from zoo.config import UserError, require

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
    variant = variant_from_mapping({"name": cell.variant, "mechanism": "softmax"})
    assert isinstance(variant, VariantConfig)
    setting = OpSetting(variant=variant, shape=layer_shape(cell), cell=cell)
    attend = attention_kernel(cell.head_dim)
    arrays = setting.inputs()
    call = functools.partial(mx.compile(attend) if cell.compiled else attend, *arrays)
    bound = tolerance(setting.dtype).value

    def error() -> float:
        expected = setting.declared.reference(*(as_numpy(array, np.float64) for array in arrays), setting.spec)
        return relative_error(as_numpy(call()), expected)

    return Workload(
        call=call,
        check=lambda: verdict([Finding(check="values against the float64 reference", error=error(), tolerance=bound)]),
        work=work_of(
            [attend(*arrays)],
            useful_flops=4 * cell.batch_size * cell.num_heads * cell.head_dim * cell.length**2,
            tokens=cell.batch_size * cell.length,
        ),
        function=computed_function(cell, variant.capabilities.exact_class),
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
