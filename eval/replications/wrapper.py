"""PyTorch issue 181725: what the layer costs beside the same projections written around MLX's attention by hand.

Six shapes at B=1 and B=4, eager and compiled, equal weights; the gate asks for outputs that are equal to the last bit,
so that every difference in time is overhead and none is mathematics.

Letters: B batch, L length, D hidden, N query heads, H head_dim.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from eval.bench import Group, Workload
from eval.checks import Finding
from eval.rows import Cell
from eval.suites import Suite, over_groups
from eval.suites.series import cells_of, published_series
from eval.workloads import computed_function, scalar, workload_of
from eval.workloads.attention import attention_setting
from zoo.attention import Attention
from zoo.attention.projected import ProjectedAttention
from zoo.config import require

NAME = "wrapper"
# (L, D, N), for self-attention: query lengths and widths of the table, some of whose shapes attend across.
SHAPES = ((32, 512, 8), (64, 512, 8), (128, 512, 8), (256, 512, 8), (64, 768, 12), (512, 512, 8))
BATCH_SIZES = (1, 4)
LAYER, INLINED, BUILDER = "mha", "mha_hand_inlined", "hand_inlined"


def plan() -> list[Group]:
    """One group for each shape, batch size and way to run."""
    found = []
    for (L, D, N), batch_size, compiled in itertools.product(SHAPES, BATCH_SIZES, (True, False)):
        shape = {"batch_size": batch_size, "length": L, "num_heads": N, "head_dim": D // N, "hidden_size": D}
        name = f"L={L} D={D} N={N} B={batch_size} {'compiled' if compiled else 'eager'}"
        setting: dict[str, Any] = {"suite": NAME, "group": name, "level": "layer", "mode": "forward", **shape}
        (layer,) = cells_of([published_series(LAYER)], **setting, causal=False, compiled=compiled)
        inlined = layer.model_copy(update={"builder": BUILDER, "variant": INLINED})
        found.append(Group(cells=(inlined, layer.model_copy(update={"role": "candidate"}))))
    return found


def build(cell: Cell) -> Workload:
    """Builds the code of `mha` with the registry layer's own weights; only forward, with no mask and no positions.

    The check asks for no difference at all to the registry's layer, run as the cell says: compiled or not.

    Raises:
        UserError: If the cell asks for anything else.
    """
    require(cell.mode == "forward", "modes", "suit the hand-inlined layer", cell.mode, allowed=["forward"])
    require(not cell.causal and not cell.detail, "causal", "be false, and detail empty", (cell.causal, cell.detail))
    setting = attention_setting(cell)
    variant = setting.variant
    named = f"{variant.mechanism}, {variant.implementation}"
    require(named == "softmax, fused", "variants", "be what was written out by hand", named, allowed=["softmax, fused"])
    layer, x_BLD = setting.layer(), setting.hidden_states()
    given = [x_BLD, *projections(layer)]

    registry = functools.partial(layer, mask=setting.mask)

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        theirs_BLD = (mx.compile(registry) if cell.compiled else registry)(x_BLD)
        difference = mx.abs(timed(*given).astype(mx.float32) - theirs_BLD.astype(mx.float32)).max()
        return [Finding(check="difference to the registry's layer", error=scalar(difference), tolerance=0.0)]

    return workload_of(
        cell,
        inlined_layer(cell.num_heads, cell.head_dim),
        given,
        check,
        computes=computed_function(cell, layer.capabilities.exact_class),
        useful_flops=cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length),
    )


def projections(layer: Attention) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """The weights of q, k, v and o, without biases; [outputs, inputs] each."""
    assert isinstance(layer, ProjectedAttention), "a softmax layer projects"
    return layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight, layer.o_proj.weight


def inlined_layer(num_heads: int, head_dim: int, *, sequence_first: bool = False) -> Callable[..., mx.array]:
    """`(x_BLD, q, k, v, o) -> y_BLD` as a careful user would write it; or from x_LBD to y_LBD."""
    there, back = ((1, 2, 0, 3), (2, 0, 1, 3)) if sequence_first else ((0, 2, 1, 3), (0, 2, 1, 3))

    def attend(x: mx.array, q: mx.array, k: mx.array, v: mx.array, o: mx.array) -> mx.array:
        outer, inner, _ = x.shape
        q_BNLH, k_BNLH, v_BNLH = (
            (x @ weight.T).reshape(outer, inner, num_heads, head_dim).transpose(*there) for weight in (q, k, v)
        )
        y_BNLH = mx.fast.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, scale=head_dim**-0.5)
        return y_BNLH.transpose(*back).reshape(outer, inner, num_heads * head_dim) @ o.T

    return attend


SUITE = Suite(name=NAME, plan=plan, summary=over_groups)
BUILDERS = {BUILDER: build}
