import itertools

import pytest

from eval.suites.grid import MODES, SUITE
from eval.suites.series import series
from eval.suites.suite import SuiteRequest
from eval.workloads.registry import refusal
from tests.eval.rows_factory import group_rows
from zoo.attention.catalog import attention_names
from zoo.config import UserError

VARIANTS = {name: series(name).mapping for name in ("mha", "hybrid_swa", "blocksparse_legacy")}


def test_every_point_asked_for_has_a_cell_of_every_variant() -> None:
    request = SuiteRequest(
        variants=VARIANTS,
        lengths=(33, 65),
        batch_sizes=(1, 3),
        dtypes=("float32", "bfloat16"),
        compiled=(True, False),
        executions=("latency", "throughput"),
        models=("gpt_tiny", "llama_tiny"),
        modes=("forward", "step", "decode"),
    )
    cells = [cell for group in SUITE.groups(request) for cell in group.cells]
    points = {
        (c.variant, c.level, c.mode, c.model, c.length, c.batch_size, c.dtype, c.compiled, c.execution) for c in cells
    }
    subjects = [("op", "forward", None), ("layer", "forward", None)]
    subjects += [("model", mode, name) for mode in request.modes or () for name in request.models or ()]
    axes = ((33, 65), (1, 3), ("float32", "bfloat16"), (True, False), ("latency", "throughput"))
    wanted = {(name, *subject, *axis) for name in VARIANTS for subject in subjects for axis in itertools.product(*axes)}
    assert points == wanted
    assert len(cells) == len(points)


def test_what_a_variant_cannot_do_is_a_cell_with_a_reason() -> None:
    cells = [cell for group in SUITE.groups(SuiteRequest(variants=VARIANTS)) for cell in group.cells]
    refused = {(cell.variant, cell.level) for cell in cells if refusal(cell, 2**40)}
    impossible = {("hybrid_swa", "op"), ("hybrid_swa", "layer")}
    assert refused == impossible | {("blocksparse_legacy", level) for level in MODES}


def test_by_default_all_variants_are_compared_at_all_levels() -> None:
    groups = SUITE.groups(SuiteRequest())
    assert {(group.cells[0].level, group.cells[0].mode) for group in groups} == {
        ("op", "forward"),
        ("op", "forward_backward"),
        ("layer", "forward"),
        ("layer", "forward_backward"),
        ("model", "step"),
        ("model", "prefill"),
        ("model", "decode"),
    }
    assert {cell.variant for cell in groups[0].cells} == set(attention_names())


def test_a_mode_that_suits_no_level_is_refused() -> None:
    with pytest.raises(UserError, match="modes must suit a level"):
        SUITE.groups(SuiteRequest(levels=("op",), modes=("decode",)))


def test_unknown_models_are_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match="llama_tiny"):
        SUITE.groups(SuiteRequest(levels=("model",), models=("lama",)))


def test_a_whole_model_s_cells_know_its_heads() -> None:
    (group, *_) = SUITE.groups(SuiteRequest(levels=("model",), models=("llama_tiny",)))
    cell = group.cells[0]
    assert (cell.num_heads, cell.num_kv_heads, cell.head_dim, cell.hidden_size) == (4, 2, 32, 128)


def test_the_summary_compares_with_the_first_variant() -> None:
    (group,) = SUITE.groups(
        SuiteRequest(
            variants={"mha": VARIANTS["mha"], "swa": series("swa").mapping},
            levels=("op",),
            lengths=(9,),
            modes=("forward",),
        )
    )
    rows = group_rows(group, lambda cell: 2.0 if cell.variant == "swa" else 1.0)
    figure = SUITE.summary(rows)[-1]
    assert figure["figure"] == "swa over mha"
    assert figure["ratio"] == pytest.approx(2, rel=0.02)
    assert figure["low"] <= figure["ratio"] <= figure["high"]
