"""What every suite of the registry keeps, and how a stranger adds one."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

import eval.suites
from eval.bench import Group
from eval.rows import Cell, RowStore
from eval.suites import Suite, SuiteRequest, suites
from eval.suites.series import series_named
from eval.workloads.registry import build, inability
from recipes import benchmark
from recipes.app import execute
from tests.eval.rows_factory import group_rows, planned, untimed_row
from tests.eval.workloads.settings import shrink_models
from zoo.config import UserError

SUITES = suites()
# Their cells are implementations, layouts, directions or hand-written code, and not series.
NAMED_OTHERWISE = {"scaling", "wrapper", "layouts", "calibrate", "adaptive", "targets"}
# What of a cell its building does not depend on.
UNIMPORTANT = {"suite": "", "group": "", "variant": "", "role": "candidate"}

every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))


def shrunk(cell: Cell) -> Cell:
    """The same cell, small: lengths odd and heads as many as some variant shares keys and values among."""
    changes = {"length": 19, "batch_size": 1 if cell.level == "model" else min(cell.batch_size, 2)}
    if cell.level == "processes":
        changes["batch_size"] = 4
    if cell.level in {"op", "layer"} and cell.model is None:
        changes |= {"num_heads": 8, "head_dim": 4, "hidden_size": 24 if cell.builder == "layer" else 32}
    return cell.model_copy(update=changes)


@functools.cache
def builds(cell: Cell) -> bool:
    """Whether a cell became a subject, or else was refused with a reason that was known before."""
    try:
        # Several processes have their graphs to themselves.
        assert build(cell).work.graph_nodes or cell.level == "processes"
    except UserError as refusal:
        lacks_metal = cell.builder == "metal_kernel_poc" and not mx.metal.is_available() and "Metal" in f"{refusal}"
        assert lacks_metal or inability(cell) is not None
        return False
    return True


@pytest.fixture(scope="module")
def _small_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_models(monkeypatch, vocab_size=53)
        yield


@every_suite
def test_groups_and_cells_are_named_apart_have_one_baseline_and_say_what_computes_them(suite: Suite) -> None:
    groups = planned(suite.name)
    cells = [cell for group in groups for cell in group.cells]
    assert len({cell.identity for cell in cells}) == len(cells) > 0
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        assert [cell.role for cell in group.cells].count("baseline") == 1
        assert {(cell.suite, cell.group) for cell in group.cells} == {(suite.name, group.cells[0].group)}
        assert set(group.skipped) <= {cell.identity for cell in group.cells}
    for cell in (cell for cell in cells if cell.attention is not None):
        assert '"auto"' not in cell.attention
        if suite.name not in NAMED_OTHERWISE:
            named, mapping = series_named(cell.variant), cell.attention_mapping
            changes = {key: value for key, value in named.changes.items() if value is not None}
            assert mapping == {**mapping, **changes, "name": named.shipped}


@every_suite
@pytest.mark.usefixtures("_small_models")
def test_every_cell_builds_or_says_why_not(suite: Suite) -> None:
    cells = {shrunk(cell).model_copy(update=UNIMPORTANT) for group in planned(suite.name) for cell in group.cells}
    assert sum(map(builds, cells)) > 0


@every_suite
def test_a_summary_is_ready_for_json_even_of_rows_that_failed(suite: Suite) -> None:
    def seconds(cell: Cell) -> float:
        return 1e-6 * cell.length * (1 + len(cell.variant))

    timed = [row for group in planned(suite.name) for row in group_rows(group, seconds, rounds=5)]
    failed = [untimed_row(cell) for group in planned(suite.name) for cell in group.cells]
    figures = suite.summary(timed)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert suite.name in ("calibrate", "adaptive") or all("figure" in figure for figure in figures)
    for rows in (failed, [*timed[::2], *failed[1::2]], []):
        json.dumps(suite.summary(rows), allow_nan=False)


@pytest.mark.parametrize("name", ["grid", "transfer", "decode", "long"])
def test_the_first_variant_asked_for_is_the_baseline(name: str) -> None:
    for group in SUITES[name].groups(SuiteRequest(variants=("swa", "mha"))):
        assert [(cell.variant, cell.role) for cell in group.cells] == [("swa", "baseline"), ("mha", "candidate")]


def test_a_suite_is_added_by_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one of CONTRIBUTING.md: the command finds it, and refuses what it does not leave open."""
    guide = Path(__file__).resolve().parents[3].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    text = guide.partition("## Add a suite")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "heads.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(eval.suites, "__path__", [*eval.suites.__path__, str(tmp_path)])

    def measure(groups: tuple[Group, ...], *, store: RowStore, **_: object) -> None:
        store.append([row for group in groups for row in group_rows(group, lambda cell: 1e-6 * cell.length)])

    monkeypatch.setattr(benchmark, "measure", measure)
    command = ["suite=heads", "lengths=[17]", f"run_dir={tmp_path / 'run'}"]
    assert execute("benchmark", benchmark.main, command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    # With the A/A control.
    assert (result["suite"], result["statuses"]) == ("heads", {"ok": 4})
    assert [figure["group"] for figure in result["summary"][1:]] == ["L=17", "L=17"]
    assert execute("benchmark", benchmark.main, [*command, "models=[gpt_tiny]"]) == 2
    told = "models must not be given to suite=heads, which sets it itself; it leaves lengths open"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {told}"


def test_a_suite_plans_by_axes_that_the_command_has() -> None:
    def plan(*, length: int = 3) -> list[Group]:
        return []

    with pytest.raises(UserError, match=r"suite mine must plan by axes with a default; got 'length' .*lengths"):
        Suite(name="mine", plan=plan, summary=lambda rows: [])
