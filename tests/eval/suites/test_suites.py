import functools
import json

import mlx.core as mx
import pytest

from eval.bench import Group
from eval.rows import Cell, Row
from eval.suites import SUITES, Suite, SuiteRequest
from eval.suites.series import series
from eval.workloads.registry import build, inability
from tests.eval.rows_factory import group_rows, untimed_row
from zoo.config import UserError

DEFAULTS = {name: tuple(suite.groups(SuiteRequest())) for name, suite in SUITES.items()}
# Their cells are implementations, layouts, directions or hand-written code, and not series.
NAMED_OTHERWISE = {"wrapper", "layouts", "calibrate", "adaptive", "targets"}
# What of a cell its building does not depend on.
UNIMPORTANT = {"suite": "", "group": "", "variant": "", "role": "candidate"}

suites = pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))


def shrunk(cell: Cell) -> Cell:
    """The same cell, small: lengths odd and heads as many as some variant shares keys and values among."""
    changes = {"length": 19, "batch_size": 1 if cell.level == "model" else min(cell.batch_size, 2)}
    if cell.level in {"op", "layer"} and cell.model is None:
        changes |= {"num_heads": 8, "head_dim": 4, "hidden_size": 24 if cell.builder == "layer" else 32}
    return cell.model_copy(update=changes)


def rows_of(groups: tuple[Group, ...]) -> list[Row]:
    """Every cell ok, unless its group leaves it out; times grow with the length, each variant at its own pace."""
    rows = []
    for group in groups:
        for row in group_rows(group, lambda cell: 1e-6 * cell.length * (1 + len(cell.variant)), rounds=5):
            reason = group.skipped.get(row.identity)
            rows.append(row if reason is None or row.cell is None else untimed_row(row.cell, reason=reason))
    return rows


@functools.cache
def builds(cell: Cell) -> bool:
    """Whether a cell became a subject, or else was refused with a reason."""
    if inability(cell) is not None:
        return False
    if cell.builder == "metal_kernel_poc" and not mx.metal.is_available():
        with pytest.raises(UserError, match="Metal"):
            build(cell)
        return False
    assert build(cell).work.graph_nodes
    return True


@suites
def test_cells_are_named_apart(suite: Suite) -> None:
    groups = DEFAULTS[suite.name]
    identities = [cell.identity for group in groups for cell in group.cells]
    assert len(identities) == len(set(identities)) > 0
    assert len({group.name for group in groups}) == len(groups)


@suites
def test_every_group_has_one_baseline_and_one_name(suite: Suite) -> None:
    for group in DEFAULTS[suite.name]:
        assert [cell.role for cell in group.cells].count("baseline") == 1
        assert {(cell.suite, cell.group) for cell in group.cells} == {(suite.name, group.cells[0].group)}
        assert set(group.skipped) <= {cell.identity for cell in group.cells}


@suites
def test_no_cell_leaves_open_what_computes_it(suite: Suite) -> None:
    cells = [cell for group in DEFAULTS[suite.name] for cell in group.cells]
    assert not any('"auto"' in cell.attention for cell in cells if cell.attention is not None)


@suites
def test_a_series_is_named_by_its_variant(suite: Suite) -> None:
    for cell in (cell for group in DEFAULTS[suite.name] for cell in group.cells):
        if cell.attention is not None and suite.name not in NAMED_OTHERWISE:
            assert cell.variant.partition("(")[0] == cell.attention_mapping["name"]
            for change in cell.variant.partition("(")[2].removesuffix(")").split(", "):
                key, _, value = change.partition("=")
                assert not key or str(cell.attention_mapping[key]) == value


@suites
def test_every_cell_builds_or_says_why_not(suite: Suite) -> None:
    cells = [shrunk(cell).model_copy(update=UNIMPORTANT) for group in DEFAULTS[suite.name] for cell in group.cells]
    assert sum(builds(cell) for cell in {cell.identity: cell for cell in cells}.values()) > 0


@suites
def test_a_summary_is_ready_for_json(suite: Suite) -> None:
    rows = rows_of(DEFAULTS[suite.name])
    figures = suite.summary(rows)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert suite.name in NAMED_OTHERWISE or all("figure" in figure for figure in figures)


@suites
def test_a_summary_of_rows_that_failed_is_a_summary(suite: Suite) -> None:
    rows = [untimed_row(cell) for group in DEFAULTS[suite.name] for cell in group.cells]
    json.dumps(suite.summary(rows), allow_nan=False)
    json.dumps(suite.summary([]), allow_nan=False)


@pytest.mark.parametrize("name", ["attnbench", "grid48", "wrapper", "layouts", "transfer", "decode", "long"])
def test_what_a_suite_fixes_cannot_be_asked_of_it(name: str) -> None:
    with pytest.raises(UserError, match=f"dtypes must not be given to suite={name}"):
        SUITES[name].groups(SuiteRequest(dtypes=("bfloat16",)))


@pytest.mark.parametrize("name", ["grid", "transfer", "decode", "long"])
def test_the_first_variant_asked_for_is_the_baseline(name: str) -> None:
    asked = {each: series(each).mapping for each in ("swa", "mha")}
    for group in SUITES[name].groups(SuiteRequest(variants=asked)):
        assert [(cell.variant, cell.role) for cell in group.cells] == [("swa", "baseline"), ("mha", "candidate")]


@pytest.mark.parametrize("name", ["grid", "transfer", "decode", "long"])
def test_no_variant_at_all_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="variants must name at least one"):
        SUITES[name].groups(SuiteRequest(variants={}))
