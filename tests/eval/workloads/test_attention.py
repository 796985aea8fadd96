"""Ops and layers of every variant: built, right, and with the work that they are worth."""

from typing import Any

import mlx.core as mx
import pytest

from eval.bench.worker import peak_bytes_of_calls
from eval.workloads import arrays_of, computed_function, operations, work_of
from eval.workloads.attention import attention_setting
from eval.workloads.registry import BUILDERS
from tests.eval.workloads.settings import BATCH_SIZE, DIRECTED, HEAD_DIM, LENGTH, NUM_HEADS, called, cell
from zoo.config import UserError
from zoo.ops.patterns import count_scores, everything
from zoo.runtime.backend import backend

BOTH = ("forward", "forward_backward")


@pytest.mark.parametrize(("name", "causal"), DIRECTED)
@pytest.mark.parametrize(("level", "mode"), [("op", "forward"), ("op", "forward_backward"), ("layer", BOTH[1])])
def test_every_variant_passes_the_gate(name: str, causal: bool, level: str, mode: str) -> None:
    workload = BUILDERS[level](cell(level, name, mode=mode, causal=causal))
    y = called(workload) if mode == "forward" else called(workload)[0]
    assert y.shape == ((BATCH_SIZE, NUM_HEADS, LENGTH, HEAD_DIM) if level == "op" else (BATCH_SIZE, LENGTH, 34))
    verdict = workload.check()
    assert verdict.passed, verdict.checks
    assert workload.work.tokens == BATCH_SIZE * LENGTH
    assert workload.work.graph_nodes > 0
    assert level == "op" or workload.work.useful_flops > 0


def test_half_precision_passes_under_its_own_tolerance() -> None:
    exact, *halves = (
        BUILDERS["op"](cell("op", "mha_manual", mode="forward_backward", dtype=dtype)).check()
        for dtype in ("float32", "bfloat16", "float16")
    )
    for half in halves:
        assert half.passed, half.checks
        assert half.max_error > 10 * exact.max_error
        assert half.tolerance > 10 * exact.tolerance


def test_variants_of_one_mechanism_read_the_same_arrays_and_another_seed_gives_others() -> None:
    first, second = (attention_setting(cell("op", name)).inputs() for name in ("swa", "mha"))
    other = attention_setting(cell("op", "swa", seed=1)).inputs()
    assert all(mx.array_equal(left, right).item() for left, right in zip(first, second, strict=True))
    assert not mx.array_equal(first[0], other[0]).item()


def test_useful_flops_are_those_of_the_allowed_scores_and_three_times_as_many_with_the_backward_pass() -> None:
    scores = count_scores(everything, causal=True, query_length=LENGTH, key_length=LENGTH)
    expected = 4 * BATCH_SIZE * NUM_HEADS * HEAD_DIM * scores
    forward, both = (BUILDERS["op"](cell("op", "mha_tiled", mode=mode)).work for mode in BOTH)
    assert (forward.useful_flops, both.useful_flops) == (expected, 3 * expected)
    masked, chunked = (BUILDERS["op"](cell("op", name)).work.useful_flops for name in ("swa_masked", "swa"))
    assert masked == chunked < expected


def test_shared_heads_come_from_the_variant_or_else_from_the_model_and_axes_from_the_mechanisms_inputs() -> None:
    for name, given, expected in (("mqa", None, 1), ("mha", 2, 2), ("gqa", 4, NUM_HEADS // 2)):
        assert attention_setting(cell("op", name, num_kv_heads=given)).num_kv_heads == expected
    assert attention_setting(cell("op", "gqa")).axes == ("BNLH", "BKLH", "BKLH")
    gated = attention_setting(cell("op", "gated_delta")).axes
    assert [set(axes) - {"K"} for axes in gated[3:]] == [{"B", "L", "N"}, {"B", "L", "N"}]


@pytest.mark.parametrize("mode", BOTH)
def test_what_must_be_held_is_the_same_for_every_implementation_and_no_call_holds_less(mode: str) -> None:
    arrays = 4 * BATCH_SIZE * NUM_HEADS * LENGTH * HEAD_DIM * 4
    for name in ("mha_tiled", "mha_manual", "swa_gather_slices"):
        workload = BUILDERS["op"](cell("op", name, mode=mode))
        assert workload.analytic_bytes == arrays * (2 if mode == "forward_backward" else 1)
        # Its own inputs are among what lives in this process.
        assert peak_bytes_of_calls(workload.call) >= workload.analytic_bytes


def test_gradients_of_a_layer_reach_x_and_every_parameter_and_positions_come_from_the_detail() -> None:
    plain, rotary = (cell("layer", "gqa", mode=BOTH[1], detail=detail) for detail in ("", "positions=rotary"))
    y_BLD, gradients = called(BUILDERS["layer"](plain))
    layer = attention_setting(plain).layer()
    assert [each.shape for each in gradients] == [y_BLD.shape, *(each.shape for each in arrays_of(layer.parameters()))]
    assert len(gradients) == 5
    assert not mx.allclose(y_BLD, called(BUILDERS["layer"](rotary))[0], atol=1e-3).item()


@pytest.mark.parametrize(
    ("level", "changes", "message"),
    [
        ("op", {"mode": "step"}, "modes must suit an op"),
        ("layer", {"mode": "decode"}, "modes must suit a layer"),
        ("layer", {"detail": "layout=strided"}, "detail must be empty or positions=KIND"),
        ("model", {"model": "gpt_tiny", "mode": "copy"}, "modes must suit a model"),
        ("model", {"model": "bert_tiny", "causal": False, "mode": "prefill"}, "which is an encoder"),
        ("model", {"model": "bert_tiny", "causal": True}, "causal must be False in a bert model"),
        ("device", {"mode": "forward"}, "modes must suit a device"),
    ],
)
def test_what_a_level_does_not_have_is_refused(level: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BUILDERS[level](cell(level, "mha", **changes))


def test_operations_are_counted_by_name_until_they_are_evaluated() -> None:
    a = mx.ones((3, 3))
    mx.eval(a)
    product = (a @ a) @ a + a
    assert operations(product) == {"Matmul": 2, "Add": 1}
    assert work_of([product], useful_flops=1, tokens=1).graph_nodes == 3
    mx.eval(product)
    assert operations(product) == {}


@pytest.mark.parametrize("gradient", [False, True])
def test_the_path_of_attention_is_the_one_that_mlx_takes_on_this_back_end(gradient: bool) -> None:
    q, k, v = (mx.zeros((1, 8, 24, 64)) for _ in range(3))
    mx.eval(q, k, v)

    def attend(*arrays: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(*arrays, scale=0.125, mask="causal").sum()

    outputs: Any = mx.grad(attend, argnums=(0, 1, 2))(q, k, v) if gradient else attend(q, k, v)
    path = work_of(outputs, useful_flops=1, tokens=1).attention_path
    # MLX has fused kernels on GPUs only.
    if backend() == "cpu":
        assert path == "fallback"
    elif not gradient:
        assert path == "fused"
    assert work_of(q + k, useful_flops=1, tokens=1).attention_path is None


def _function(name: str, **changes: Any) -> tuple[object, ...]:
    return computed_function(cell("layer", name, length=100).model_copy(update=changes), "softmax")


def test_attention_and_settings_name_the_function_but_not_how_it_is_computed() -> None:
    assert _function("mha") == _function("mha_tiled") == _function("adaptive") == _function("mha", compiled=True)
    assert len({_function(name) for name in ("mha", "gqa", "mqa", "swa")}) == 4
    for changes in ({"causal": False}, {"length": 99}, {"dtype": "bfloat16"}, {"num_kv_heads": 2}):
        assert _function("mha", **changes) != _function("mha")
