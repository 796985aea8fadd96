"""Ops of every variant: built, right, and with the work that they are worth."""

import mlx.core as mx
import pytest

from eval.bench.worker import peak_bytes_of_calls
from eval.workloads.op import op_setting
from eval.workloads.registry import BUILDERS
from tests.eval.workloads.settings import (
    BATCH_SIZE,
    DIRECTED,
    HEAD_DIM,
    LENGTH,
    NUM_HEADS,
    called,
    cell,
    directed_id,
)
from zoo.config import UserError
from zoo.ops.patterns import count_scores, everything


@pytest.mark.parametrize(("name", "causal"), DIRECTED, ids=directed_id)
@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
def test_every_variant_passes_the_gate(name: str, causal: bool, mode: str) -> None:
    workload = BUILDERS["op"](cell("op", name, mode=mode, causal=causal))
    result = called(workload)
    y_BNLH = result if mode == "forward" else result[0]
    assert y_BNLH.shape == (BATCH_SIZE, NUM_HEADS, LENGTH, HEAD_DIM)
    verdict = workload.check()
    assert verdict.passed, verdict.checks
    assert workload.work.tokens == BATCH_SIZE * LENGTH
    assert workload.work.graph_nodes > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_under_its_own_tolerance(dtype: str) -> None:
    exact = BUILDERS["op"](cell("op", "mha_manual", mode="forward_backward")).check()
    half = BUILDERS["op"](cell("op", "mha_manual", mode="forward_backward", dtype=dtype)).check()
    assert half.passed, half.checks
    assert half.max_error > 10 * exact.max_error
    assert half.tolerance > 10 * exact.tolerance


def test_compiled_calls_return_what_eager_ones_do() -> None:
    eager = BUILDERS["op"](cell("op", "swa", mode="forward_backward"))
    compiled = BUILDERS["op"](cell("op", "swa", mode="forward_backward", compiled=True))
    assert mx.allclose(called(eager)[0], called(compiled)[0], atol=1e-5).item()
    assert compiled.check().passed


def test_variants_of_one_mechanism_read_the_same_arrays_and_another_seed_gives_others() -> None:
    first, second = (op_setting(cell("op", name)).inputs() for name in ("swa", "mha"))
    other = op_setting(cell("op", "swa", seed=1)).inputs()
    assert all(mx.array_equal(left, right).item() for left, right in zip(first, second, strict=True))
    assert not mx.array_equal(first[0], other[0]).item()


def test_useful_flops_are_those_of_the_allowed_scores_and_three_times_as_many_with_the_backward_pass() -> None:
    scores = count_scores(everything, causal=True, query_length=LENGTH, key_length=LENGTH)
    expected = 4 * BATCH_SIZE * NUM_HEADS * HEAD_DIM * scores
    forward, both = (
        BUILDERS["op"](cell("op", "mha_tiled", mode=mode)).work for mode in ("forward", "forward_backward")
    )
    assert (forward.useful_flops, both.useful_flops) == (expected, 3 * expected)
    masked = BUILDERS["op"](cell("op", "swa_masked")).work.useful_flops
    chunked = BUILDERS["op"](cell("op", "swa")).work.useful_flops
    assert masked == chunked < BUILDERS["op"](cell("op", "mha")).work.useful_flops


def test_shared_heads_come_from_the_variant_or_else_from_the_model() -> None:
    assert op_setting(cell("op", "mqa")).num_kv_heads == 1
    assert op_setting(cell("op", "mha", num_kv_heads=2)).num_kv_heads == 2
    assert op_setting(cell("op", "gqa", num_kv_heads=4)).num_kv_heads == NUM_HEADS // 2


def test_axes_are_read_off_the_mechanisms_own_inputs() -> None:
    assert op_setting(cell("op", "gqa")).axes == ("BNLH", "BKLH", "BKLH")
    gated = op_setting(cell("op", "gated_delta")).axes
    assert [set(axes) - {"K"} for axes in gated[3:]] == [{"B", "L", "N"}, {"B", "L", "N"}]


@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
def test_what_must_be_held_is_the_same_for_every_implementation_and_no_call_holds_less(mode: str) -> None:
    arrays = 4 * BATCH_SIZE * NUM_HEADS * LENGTH * HEAD_DIM * 4
    for name in ("mha_tiled", "mha_manual", "swa_gather_slices"):
        workload = BUILDERS["op"](cell("op", name, mode=mode))
        assert workload.analytic_bytes == arrays * (2 if mode == "forward_backward" else 1)
        # Its own inputs are among what lives in this process.
        assert peak_bytes_of_calls(workload.call) >= workload.analytic_bytes


def test_a_step_is_no_ops_mode() -> None:
    with pytest.raises(UserError, match="modes must suit an op"):
        BUILDERS["op"](cell("op", "mha", mode="step"))
