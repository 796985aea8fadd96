"""What a run is called, where it lies, and how it goes on by its own settings."""

import concurrent.futures
import functools
import json
import re
from pathlib import Path

import pytest
import yaml

from recipes import compare
from recipes.app import execute
from recipes.job import file_name
from zoo.checkpoints import load_checkpoint
from zoo.config import UserError
from zoo.training import RunFolder


def test_default_folders_of_one_second_are_all_different(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        claim = functools.partial(RunFolder.claimed, tmp_path / "deep" / "runs")
        folders = list(pool.map(claim, ["20251127-144425-mha-gpt_tiny"] * 60))
    assert len({folder.path for folder in folders}) == 60
    assert all(folder.path.is_dir() for folder in folders)


def test_a_claimed_folder_goes_away_with_a_run_that_could_not_begin(tmp_path):
    with pytest.raises(UserError, match="no data"), RunFolder.claimed(tmp_path / "runs", "name"):
        raise UserError("no data")
    assert list(tmp_path.iterdir()) == []


def test_the_jobs_of_a_sweep_are_named_by_what_differs(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, results = train.sweep("training.steps=1,2", "seed=3", "model.dropout=0.0", "training.sample_tokens=0")
    assert code == 0
    names = [Path(result["run_dir"]).name for result in results]
    assert [name.split("-", 2)[2] for name in names] == [
        "mha-gpt_tiny-training.steps=1",
        "mha-gpt_tiny-training.steps=2",
    ]
    for result, steps in zip(results, (1, 2), strict=True):
        assert {"seed=3", f"training.steps={steps}", "model.dropout=0.0"} <= set(result["overrides"])
        assert json.loads((Path(result["run_dir"]) / "result.json").read_text()) == result


def test_a_folder_for_a_whole_sweep_has_one_inside_for_each_job(train, tmp_path):
    jobs = ("run_dir=" + str(tmp_path / "a=b, (ö)"), "seed=0,1", "training.steps=1")
    # Texts with commas are quoted in a sweep.
    quoted = (f'run_dir="{tmp_path}/sweep"', *jobs[1:])
    code, results = train.sweep(*quoted)
    assert code == 0
    assert [result["run_dir"] for result in results] == [str(tmp_path / "sweep" / f"seed={seed}") for seed in (0, 1)]
    # Each goes on where it was.
    code, again = train.sweep(*quoted, "resume=auto")
    assert (code, again) == (0, results)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=1", "attention=swa"], "seed=1,attention=swa"),
        (["data.path=a b/ü"], r"data\.path=a_b__-[0-9a-f]{8}"),
        (["x=" + "1" * 300], r"x=1{98}-[0-9a-f]{8}"),
        (["x=../.."], r"x=\.\._\.\.-[0-9a-f]{8}"),
    ],
)
def test_overrides_make_safe_short_and_different_names(overrides, name):
    assert re.fullmatch(name, file_name(overrides))
    assert file_name(overrides) != file_name([*overrides, "seed=2"])
    assert file_name(["a=b/c"]) != file_name(["a=b_c"])


def test_a_run_goes_on_by_its_own_settings(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    first = train(run_dir, "attention=swa", "attention.window_size=9", "model=llama_tiny", "seed=4", "training.steps=3")
    # What the run has chosen may be chosen again; its window stays.
    result = train.bare(run_dir, "resume=auto", "training.steps=5", "attention=swa")
    assert (result["attention"], result["model"], result["steps"]) == ("swa", "llama_tiny", 5)
    assert (result["resumed_from_step"], result["num_parameters"]) == (3, first["num_parameters"])
    assert {"seed=4", "attention=swa", "training.steps=5"} <= set(result["overrides"])
    assert "training.steps=3" not in result["overrides"]
    assert load_checkpoint(tmp_path / "run").config["model"]["attention"]["window_size"] == 9
    assert result["tokens"] == 5 * 3 * 37
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["steps"] == 5
    # The settings stay for the next time.
    assert train.bare(run_dir, "resume=auto") == result


def test_what_is_typed_to_a_run_that_goes_on_is_held_to_its_settings(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=2", "seed=4")
    for typed, words in {
        "seed=9": "resume: seed must stay 4",
        "attention=mha_manual": "resume: attention.name must stay 'mha'",
        "model.num_heads=4": "resume: model.num_heads must stay 2",
        "training.batch_size=5": "resume: training.batch_size must stay 3",
        "trainning.steps=9": "unknown key 'trainning'",
        "training.stepps=9": "unknown key 'stepps'",
    }.items():
        code, result, errors = train.attempt_bare(run_dir, "resume=auto", typed)
        assert (code, result) == (2, None)
        assert words in errors
        assert errors.count("\n") == 1


def test_damaged_settings_of_a_run_are_one_line(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=1")
    damages = {
        "config.yaml": (
            *("[", "", "- 1", "seed: 4", "\0", "a: &a [*a]"),
            "{attention: 1, model: 2, data: 3, optimizer: 4, training: 5}",
            "{attention: {}, model: {}, data: {}, optimizer: {}, training: {}}",
        ),
        "command.json": ("{", "{}", '{"overrides": 3, "choices": {}}'),
    }
    for name, contents in damages.items():
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        for content in contents:
            path.write_text(content)
            code, result, errors = train.attempt_bare(run_dir, "resume=auto", "training.steps=2")
            assert (code, result) == (2, None), content
            assert errors.startswith("error: ")
            assert errors.count("\n") == 1
            assert str(tmp_path / "run") in errors
        path.unlink()
        # What stands there is not taken for settings that were never kept.
        path.mkdir()
        code, _, errors = train.attempt_bare(run_dir, "resume=auto", "training.steps=2")
        assert (code, errors.count("\n")) == (2, 1), errors
        assert f"{path} must be a regular file" in errors
        path.rmdir()
        path.write_bytes(whole)


def test_a_run_from_before_its_command_was_kept_goes_on(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=1")
    (tmp_path / "run" / "command.json").unlink()
    result = train.bare(run_dir, "resume=auto", "training.steps=2")
    assert (result["attention"], result["model"], result["steps"]) == ("mha", "gpt", 2)


def test_a_comparison_in_a_sweep_trains_by_the_overrides_of_its_job(capsys):
    def main(config):
        recipe = compare.CompareRecipe(
            variants=("mha",), seeds=(0,), budgets=("equal_tokens",), run_dir="x", benchmark=False
        )
        return {"typed": compare._training_overrides(recipe)}

    arguments = ["--multirun", "variants=[mha]", "benchmark=false", "training.steps=10,20"]
    assert execute("compare", main, arguments) == 0
    typed = [json.loads(line)["typed"] for line in capsys.readouterr().out.splitlines()]
    assert typed == [["training.steps=10"], ["training.steps=20"]]
