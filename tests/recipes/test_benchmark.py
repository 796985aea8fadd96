"""The benchmark's command line: grids of one's own, mistakes in one line."""

import json
from pathlib import Path

import pytest

from eval.rows import Row, RowStore, only_writer
from recipes.app import execute
from recipes.benchmark import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = execute("benchmark", main, list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_a_grid_leaves_rows_a_table_and_a_json_line_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["variants=[mha_manual,swa]", "levels=[op]", "modes=[forward]", "lengths=[33]", "rounds=5"]
    code, out, err = _run(capsys, *grid, f"run_dir={tmp_path / 'one'}")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["num_rows"], result["statuses"], result["interrupted"]) == (3, {"ok": 3}, False)
    assert result["summary"]
    rows = {row.cell.variant: row for row in RowStore(Path(result["rows_path"])).rows.values()}
    assert rows["swa"].comparison.baseline == "mha_manual"
    assert not rows["swa"].comparison.same_function
    assert rows["mha_manual (A/A)"].comparison.same_function
    assert rows["swa"].memory.peak_bytes > 0
    assert rows["swa"].work.utilisation is not None
    assert "null call" in err
    assert "mha_manual (A/A)" in err
    schema = json.loads((tmp_path / "one" / "rows.schema.json").read_text(encoding="utf-8"))
    assert schema == Row.model_json_schema()

    # The other run was ten times slower, by its rows.
    path = tmp_path / "one" / "rows.jsonl"
    row = rows["swa"]
    slower = row.timing.model_copy(update={"samples_seconds": [10 * each for each in row.timing.samples_seconds]})
    other = RowStore(tmp_path / "other" / "rows.jsonl")
    other.append([row.model_copy(update={"timing": slower})])
    before = path.read_bytes()
    code, out, err = _run(capsys, *grid, f"run_dir={tmp_path / 'one'}", f"compare_to={tmp_path / 'other'}")
    assert code == 0, err
    (change,) = json.loads(out.splitlines()[-1])["changes"]
    assert (change["variant"], change["status"]) == ("swa", ["ok", "ok"])
    assert change["ratio"] == pytest.approx(0.1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("suite=target", "targets"),
        ("rounds=0", "at least 1"),
        ("variants=[mhaa]", "mha_manual"),
        ("variants=[]", "variants must name at least one"),
        ("levels=[layers]", "layer"),
        ("modes=[backward]", "forward_backward"),
        ("modes=forward", "modes must be a list"),
        ("lengths=[256,256]", "lengths must name nothing twice; got [256, 256]"),
        ("lengths=[0]", "lengths must be a list of whole numbers of at least 1"),
        ("lengths=[many]", "lengths[0] must be a whole number"),
        ("batch_sizes=[]", "batch_sizes"),
        ("dtypes=[float8]", "bfloat16"),
        ("compiled=[perhaps]", "true or false"),
        ("executions=[speed]", "throughput"),
        ("models=[llama_huge]", "llama_tiny"),
        ("budget_minutes=0", "above 0"),
        ("compare_to=missing.jsonl", "missing.jsonl"),
        ("device=tpu", "cpu"),
        ("length=[3]", "did you mean 'lengths'?"),
    ],
)
def test_a_mistake_is_one_line_with_the_choices(
    argument: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, argument, f"run_dir={tmp_path}")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err


def test_a_folder_that_another_run_writes_to_or_whose_schema_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path / "rows.jsonl"):
        code, out, err = _run(capsys, "variants=[mha]", f"run_dir={tmp_path}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "no other process writes" in err
    (tmp_path / "rows.schema.json").mkdir()
    code, out, err = _run(capsys, "variants=[mha]", f"run_dir={tmp_path}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "rows.schema.json" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["suite=targets", "lengths=[64]"], "lengths must not be given to suite=targets"),
        (["suite=attnbench", "variants=[mha]"], "variants must not be given to suite=attnbench"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, *arguments, f"run_dir={tmp_path}")
    assert (code, out) == (2, "")
    assert named in err
