import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import recipes.app
from recipes.app import END_WITH_PARENT, choice_name, execute
from zoo.config import UserError


def run(arguments, main, capsys, config_name="train"):
    """Exit code, JSON of the last line of stdout (or None), and stderr."""
    code = execute(config_name, main, arguments)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    return code, json.loads(lines[-1]) if lines else None, captured.err


def test_the_result_is_the_last_line_of_stdout(capsys):
    def main(_):
        print("text before")
        return {"value": 0.1 + 0.2, "nothing": None}

    assert run([], main, capsys) == (0, {"value": 0.1 + 0.2, "nothing": None}, "")


def test_overrides_reach_the_recipe_known_to_the_yaml_or_not(capsys):
    def main(config):
        return {"steps": config.training.steps, "new": config.attention.window_size, "model": choice_name("model")}

    arguments = ["training.steps=7", "attention=mha", "attention.window_size=5", "model=llama_tiny"]
    code, result, _ = run(arguments, main, capsys)
    assert code == 0
    assert result == {"steps": 7, "new": 5, "model": "llama_tiny"}


def test_the_attention_gets_its_name_and_a_hybrid_its_variants(capsys):
    def main(config):
        layers = config.attention.get("layer_pattern", [])
        return {"name": config.attention.name, "layers": [layer.mechanism for layer in layers]}

    assert run(["attention=mha_manual"], main, capsys)[1] == {"name": "mha_manual", "layers": []}
    arguments = ["attention=hybrid_swa", "attention.layer_pattern=[mha,swa_masked]"]
    assert run(arguments, main, capsys)[1] == {"name": "hybrid_swa", "layers": ["softmax", "sliding_window"]}


@pytest.mark.parametrize("wanted", [False, True])
def test_a_mistake_is_one_line_and_exit_code_2_with_a_traceback_on_demand(wanted, capsys, monkeypatch):
    def main(_):
        raise UserError("section: field must be this; got that")

    if wanted:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, result, errors = run([], main, capsys)
    assert (code, result) == (2, None)
    assert errors.splitlines()[-1] == "error: section: field must be this; got that"
    assert ("Traceback" in errors, errors.count("\n") > 1) == (wanted, wanted)


def test_our_own_faults_are_not_dressed_up_as_the_users(capsys):
    def main(_):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours") as fault:
        run(["seed=3"], main, capsys)
    assert fault.value.__notes__ == ["in the job seed=3"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [[], ["hydra.verbose=false"], ["--multirun", "seed=1,2"]])
def test_the_process_stays_as_it_is_while_a_recipe_runs(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.argv), dict(os.environ), Path.cwd()

    def main(_):
        assert (sys.argv, dict(os.environ), Path.cwd()) == before
        return {}

    assert run(arguments, main, capsys)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_is_no_number_is_our_fault(capsys):
    with pytest.raises(ValueError, match="JSON"):
        run([], lambda _: {"value": float("nan")}, capsys)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("attention=blockspare", ["attention must be one of its choices", "'blockspare'", "mha_manual"]),
        ("model=gpt_tinny", ["model must be one of its choices", "did you mean 'gpt_tiny'?", "bert_tiny"]),
        ("training.steps=[", ["training.steps=[ must follow Hydra's grammar"]),
        ("attention=null", ["attention must be one of its choices", "got None", "mha_manual"]),
        ("model=null", ["model must be one of its choices", "got None", "bert_tiny"]),
        ("model=3", ["model must be one of its choices", "got 3", "bert_tiny"]),
        ("optimizer=", ["optimizer must be one of its choices", "got ''", "lion"]),
        ("attention=[mha]", ["attention must be one of its choices", "['mha']", "mha_manual"]),
        ("attention=mha,3", ["attention must be one of its choices", "got 3", "mha_manual"]),
        ("hydra=1", ["hydra must be set by its keys", "'1'"]),
        ("hydra/launcher=3", ["hydra/launcher must be a name; got 3"]),
        ("attention@here=3", ["attention@here must be one of its choices", "got 3"]),
        ("+model=3", ["model must be one of its choices", "got 3"]),
        ("~model=3", ["model must be one of its choices", "got 3"]),
        ("hydra.nonsense=1", ["hydra.nonsense"]),
        ("--foo", ["--foo must be a flag that exists", "--multirun"]),
        ("--multi", ["--multi must be a flag that exists", "did you mean '--multirun'?"]),
        ("--cfg=jobs", ["--cfg must be followed by its value, one of job, hydra, all; got 'jobs'"]),
        ("--multirun seed=3 --cfg job", ["--multirun and --cfg exclude each other; give one"]),
        ("--resolve", ["--resolve must stand beside --cfg"]),
        ("--package", ["--package must be followed by its value"]),
        ("training.steps=???", ["training.steps must be given"]),
    ],
)
def test_mistakes_in_composition_are_one_line_with_the_choices(typed, words, capsys):
    code, result, errors = run(typed.split(), lambda _: {}, capsys)
    assert (code, result) == (2, None)
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "++" not in errors
    assert "usage" not in errors
    for word in words:
        assert word in errors


def test_external_mechanisms_are_offered_as_attention(capsys, monkeypatch):
    monkeypatch.setattr("recipes.app.external_mechanism_names", lambda: ("softmax",))

    def main(config):
        return dict(config.attention)

    assert run(["attention=softmax"], main, capsys)[1] == {"name": "softmax", "mechanism": "softmax"}


@pytest.mark.parametrize(
    ("flag", "position"), [("--multirun", 0), ("-m", 1), ("--multirun", 2), ("hydra.mode=MULTIRUN", 0)]
)
def test_a_sweep_prints_one_result_a_job_and_leaves_nothing(flag, position, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["seed=3,5", "run_dir='a,b'"]
    arguments.insert(position, flag)
    code = execute("train", lambda config: {"run_dir": config.run_dir}, arguments)
    assert code == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"overrides": [f"seed={seed}", "run_dir=a,b"], "run_dir": "a,b"} for seed in (3, 5)
    ]
    assert list(tmp_path.iterdir()) == []


MISTAKE, SIGNAL, CTRL_C = 100, 200, 300


@pytest.mark.parametrize(
    ("seeds", "code", "done", "errors"),
    [
        ([3, SIGNAL, 7], 0, [3, SIGNAL], []),
        ([CTRL_C, 5], 130, [], ["error: interrupted"]),
        ([MISTAKE, 5], 2, [5], ["error: seed must be another; got 100"]),
        ([MISTAKE, SIGNAL, 7], 2, [SIGNAL], ["error: seed must be another; got 100"]),
        ([MISTAKE, CTRL_C, 7], 130, [], ["error: seed must be another; got 100", "error: interrupted"]),
    ],
)
def test_a_sweep_goes_on_after_a_mistake_and_ends_with_an_interruption(seeds, code, done, errors, capsys):
    def main(config):
        if config.seed == MISTAKE:
            raise UserError(f"seed must be another; got {config.seed}")
        if config.seed == CTRL_C:
            raise KeyboardInterrupt
        return {"seed": config.seed, "interrupted": config.seed == SIGNAL}

    assert execute("train", main, ["--multirun", f"seed={','.join(map(str, seeds))}"]) == code
    shown = capsys.readouterr()
    assert [json.loads(line)["seed"] for line in shown.out.splitlines()] == done
    assert shown.err.splitlines() == errors


def test_a_fault_of_ours_does_not_keep_a_sweep_from_the_other_jobs(capsys):
    def main(config):
        return {"seed": 1 // (config.seed - 3)}

    with pytest.raises(ZeroDivisionError) as fault:
        execute("train", main, ["--multirun", "seed=3,4"])
    assert fault.value.__notes__ == ["in the job seed=3"]
    assert [json.loads(line)["seed"] for line in capsys.readouterr().out.splitlines()] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=3", "-c", "job", "dtype=float32"], ["seed: 3", "dtype: float32", "steps:"]),
        (["--cfg", "job", "--package", "training"], ["# @package training", "steps:"]),
        (["--cfg=job", "--resolve", "run_dir=${seed}"], ["run_dir: ${seed}"]),
        (["--cfg=hydra", "-p", "hydra.run"], ["dir: ."]),
        (["--info", "seed=4"], ["Config search path", "seed: 4"]),
        (["-i", "searchpath"], ["Config search path"]),
        (["--version"], ["Hydra 1."]),
        (["--hydra-help"], ["--multirun", "hydra/launcher: basic"]),
    ],
    ids=" ".join,
)
def test_flags_show_instead_of_running(arguments, words, capsys, monkeypatch):
    def main(_):
        raise AssertionError("nothing runs")

    # Hydra shows information through a logger of this process.
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    assert execute("train", main, arguments) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for word in words:
        assert word in shown.out


def test_folders_of_the_users_own_are_searched(capsys, tmp_path):
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "mine.yaml").write_text("mechanism: softmax")
    (tmp_path / "other.yaml").write_text("seed: 9")

    def main(config):
        return {"attention": config.attention.name} if "attention" in config else {"seed": config.seed}

    assert run(["--config-dir", str(tmp_path), "attention=mine"], main, capsys)[1] == {"attention": "mine"}
    sweep = ["-m", "-cd", str(tmp_path), "attention=mha,mine"]
    assert run(sweep, main, capsys)[1] == {"overrides": ["attention=mine"], "attention": "mine"}
    assert run([f"--config-path={tmp_path}", "-cn", "other"], main, capsys)[1] == {"seed": 9}


def test_the_exit_code_of_a_job_in_another_process_counts():
    root = Path(__file__).resolve().parents[2]
    arguments = ["--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "training.steps=0", "seed=1,2"]
    done = subprocess.run(
        [sys.executable, str(root / "scripts" / "train.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("error: training: steps must be at least 1; got 0") == 2


def test_a_script_whose_parent_was_killed_while_it_started_ends_at_once(monkeypatch):
    ended, killed = threading.Event(), []

    def kill(process, number):
        killed.append((process, number))
        ended.set()

    monkeypatch.setattr(recipes.app.os, "kill", kill)
    monkeypatch.setattr(recipes.app, "open_streams", lambda: None)
    monkeypatch.setattr(recipes.app, "execute", lambda *_: 0)
    # Whoever is our parent now, it is not the one that started us.
    monkeypatch.setenv(END_WITH_PARENT, str(os.getpid()))
    with pytest.raises(SystemExit):
        recipes.app.run("train", lambda _: {})
    assert ended.wait(30)
    assert killed == [(os.getpid(), signal.SIGTERM)]
