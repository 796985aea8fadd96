"""`scripts/runs.py`: trainings side by side, whatever became of them."""

import json
import shutil
from typing import Any

import pytest

from recipes.app import execute
from recipes.runs import main
from tests.recipes.tiny_train import write_run


@pytest.fixture
def runs(capsys):
    """Runs the recipe; gives (code, lines of the table, JSON or None, text on stderr)."""

    def call(*arguments: str) -> tuple[int, list[str], Any, str]:
        code = execute("runs", main, arguments)
        captured = capsys.readouterr()
        *lines, last = captured.out.splitlines() or [""]
        return code, lines, json.loads(last) if code == 0 else None, captured.err

    return call


def config(seed=0, attention="mha", **training: Any) -> dict[str, Any]:
    return {
        "attention": {"name": attention, "mechanism": "softmax", "window": 3 if attention == "swa" else None},
        "training": {"steps": 6, **training},
        "run_dir": f"somewhere/{seed}",
        "seed": seed,
    }


def test_runs_are_shown_by_what_differs_and_what_came_of_them(runs, tmp_path):
    write_run(tmp_path / "a", config(), attention="mha", result={"steps": 6, "val_loss": 2.5, "interrupted": False})
    write_run(
        tmp_path / "deep" / "b",
        config(seed=1, attention="swa"),
        "seed=1",
        attention="swa",
        result={"steps": 4, "val_loss": 2.25, "interrupted": True},
    )
    write_run(tmp_path / "c", config(), attention="mha", metrics=[{"step": 2, "train_loss": 3.0}, {"step": 4}])
    code, lines, result, error = runs(f"folders=[{tmp_path}]")
    assert (code, error) == (0, "")
    found = {row["run_dir"].removeprefix(f"{tmp_path}/"): row for row in result["runs"]}
    assert list(found) == ["a", "c", "deep/b"]
    assert [row["status"] for row in found.values()] == ["finished", "unfinished", "interrupted"]
    # The mechanism's own fields follow from the choice of the attention.
    assert [row["settings"] for row in found.values()] == [
        {"attention": "mha", "seed": 0},
        {"attention": "mha", "seed": 0},
        {"attention": "swa", "seed": 1},
    ]
    assert [row["val_loss"] for row in found.values()] == [2.5, None, 2.25]
    assert (found["c"]["steps"], found["c"]["train_loss"]) == (4, 3.0)
    assert found["deep/b"]["overrides"] == ["seed=1"]
    assert lines[0].split() == ["run_dir", "attention", "seed", "steps", "train_loss", "val_loss", "status"]
    assert lines[3].split()[1:] == ["swa", "1", "4", "-", "2.25", "interrupted"]


def test_runs_are_sorted_by_a_figure_those_without_it_last(runs, tmp_path):
    for name, loss in (("a", 2.5), ("b", None), ("c", 1.5)):
        write_run(tmp_path / name, config(), attention="mha", result={"steps": 6, "val_loss": loss})
    _, _, result, _ = runs(f"folders=[{tmp_path}]", "sort=val_loss")
    assert [row["val_loss"] for row in result["runs"]] == [1.5, 2.5, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"["),
        ("config.yaml", b"\xff"),
        ("command.json", b"{}"),
        ("result.json", b'{"steps": NaN}'),
        ("result.json", b"[" * 5000),
    ],
)
def test_a_damaged_run_is_a_row_with_the_reason(name, content, runs, tmp_path):
    for run in ("a", "b"):
        write_run(tmp_path / run, config(), attention="mha", result={"steps": 6})
    (tmp_path / "a" / name).write_bytes(content)
    code, lines, result, _ = runs(f"folders=[{tmp_path}]")
    assert code == 0
    assert [row["status"] for row in result["runs"]] == ["damaged", "finished"]
    assert name in result["runs"][0]["reason"]
    assert name in lines[1]


def test_hostile_values_neither_steer_the_terminal_nor_break_the_json(runs, tmp_path):
    write_run(
        tmp_path / "a", config(), attention="mha", result={"steps": "many", "val_loss": 10**4000, "seconds": True}
    )
    hostile = {**config(), "model": {1: "\x1b[2J", "date": "2020-01-01", "inf": float("inf"), "long": "x" * 900}}
    hostile["model"]["list"] = [1]
    write_run(tmp_path / "b", hostile, attention="mha")
    text = (tmp_path / "b" / "config.yaml").read_text().replace("'2020-01-01'", "2020-01-01")
    text = text.replace("- 1\n", "- 2020-01-01: 1\n")
    (tmp_path / "b" / "config.yaml").write_text(text)
    code, lines, _, error = runs(f"folders=[{tmp_path}]")
    assert code == 0, error
    assert not any("\x1b" in line or len(line) > 1000 for line in lines)


def test_runs_from_before_commands_were_kept_are_shown(runs, tmp_path):
    write_run(tmp_path / "a", config(attention="swa"), attention="swa", result={"steps": 6})
    write_run(tmp_path / "b", config(), attention="mha", result={"steps": 6})
    (tmp_path / "b" / "command.json").unlink()
    _, _, result, _ = runs(f"folders=[{tmp_path}]")
    assert [row["settings"]["attention"] for row in result["runs"]] == ["swa", "mha"]


def test_real_runs_are_shown(runs, train, tmp_path):
    train.sweep(f"run_dir={tmp_path / 'sweep'}", "seed=0,1", "training.steps=1", "training.sample_tokens=0")
    shutil.copytree(tmp_path / "sweep" / "seed=0", tmp_path / "copy", symlinks=True)
    _, lines, result, _ = runs(f"folders=[{tmp_path},{tmp_path / 'sweep'}]")
    assert [row["settings"] for row in result["runs"]] == [{"seed": 0}, {"seed": 0}, {"seed": 1}]
    assert all(row["status"] == "finished" and row["val_loss"] > 0 for row in result["runs"])
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("folders=[/no/such]", "folders must exist; got '/no/such'"),
        ("folders=[~no_such_user/runs]", "home folder"),
        ("folders=[]", "folders must hold at least one folder"),
        ("sort=los", "sort must be a column of figures; got 'los'"),
    ],
)
def test_mistakes_are_one_line(argument, words, runs):
    code, _, _, error = runs(argument)
    assert code == 2
    assert words in error
    assert error.count("\n") == 1
