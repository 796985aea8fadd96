"""The benchmark writes rows that say what was measured, where and how often."""

import json
from pathlib import Path

import pytest

from eval.foundation import Figure
from recipes.app import execute
from recipes.benchmark import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = execute("benchmark", main, list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_rows_hold_the_figure_and_its_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["linear_causal_over_bidirectional_512", "matmul_1024_mlx_over_zoo"]
    code, out, err = _run(capsys, f"figures=[{','.join(names)}]", "rounds=2", f"run_dir={tmp_path}")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    rows = [json.loads(line) for line in Path(result["rows_path"]).read_text(encoding="utf-8").splitlines()]
    assert [row["name"] for row in rows] == [figure["name"] for figure in result["summary"]] == names
    for row in rows:
        assert row["value"] > 0
        assert row["rounds"] == 2
        assert row["machine"]["blas"]["name"]
        assert set(row["machine"]["fused_attention"]) == {"forward", "gradient"}
        assert row["met"] is (row["value"] >= row["target"] if row["at_least"] else row["value"] <= row["target"])


def test_a_figure_on_the_wrong_side_of_its_target_is_missed() -> None:
    assert not Figure(name="ratio", value=3.9, target=4.0, at_least=True).met
    assert not Figure(name="share", value=0.16, target=0.15, at_least=False).met
    assert Figure(name="share", value=0.15, target=0.15, at_least=False).met


@pytest.mark.parametrize(
    ("argument", "named"),
    [("figures=[speed]", "swa_masked_over_swa_1024"), ("rounds=0", "at least 1"), ("suite=fundation", "foundation")],
)
def test_a_mistake_is_one_line_with_the_choices(
    argument: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, argument, f"run_dir={tmp_path}")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err
