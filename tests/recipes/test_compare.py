"""`compare.py`: trains on equal terms, goes on where it was killed, and repeats nothing."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import recipes.scripts
import recipes.train
from eval.rows import read_rows
from recipes.app import execute
from recipes.compare import main
from recipes.comparison_run import ComparisonRun, attention_overrides, begun_steps
from recipes.scripts import Script, ScriptRunner, listed
from tests.recipes.tiny_train import TINY
from zoo.config import UserError
from zoo.models import build_model

DATA = {"train": "0" * 64, "validation": "1" * 64}
ROOT = Path(__file__).resolve().parents[2]
TRAINING = [argument for argument in TINY if not argument.startswith("attention=")]


def command(text_corpus, cache, folder, *more):
    data = ["data=text", f"data.path={text_corpus}", f"data.cache_dir={cache}"]
    own = ["variants=[mha,swa]", "seeds=[3]", "tasks=[]", "benchmark=false", f"run_dir={folder}"]
    return [*TRAINING, *data, *own, *more]


@pytest.fixture
def cache(tmp_path_factory):
    return tmp_path_factory.getbasetemp() / "token-cache"


def written(folder):
    """When each finished run was finished, by its name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/finished.json")}


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_repeats_nothing(text_corpus, cache, tmp_path, capsys):
    arguments = command(text_corpus, cache, tmp_path, "training.steps=10", "training.checkpoint_every=1")
    script = [sys.executable, str(ROOT / "scripts" / "compare.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    second = tmp_path / "runs" / "equal_tokens-swa-seed3"
    # The first run is finished and the second one under way.
    while first.poll() is None and not (second / "metrics.jsonl").is_file():
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = written(tmp_path)
    assert list(before) == ["equal_tokens-mha-seed3"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = written(tmp_path)
    # The first variant's seconds are its own: it is trained once for both budgets.
    assert set(after) == {"equal_tokens-mha-seed3", "equal_tokens-swa-seed3", "equal_seconds-swa-seed3"}
    header, *table = done.stderr.strip().splitlines()[-5:]
    assert header.split()[:2] == ["budget", "variant"]
    assert [line.split()[:2] for line in table] == [
        [budget, name] for budget in ("equal_tokens", "equal_seconds") for name in ("mha", "swa")
    ]
    assert before.items() <= after.items()

    result = json.loads(done.stdout.splitlines()[-1])
    assert Path(result["report_path"]).is_file()
    rows = read_rows(Path(result["rows_path"]))
    found = {(row.quality.variant, row.quality.budget, row.quality.seed) for row in rows if row.quality}
    assert found == {(name, budget, 3) for budget in ("equal_tokens", "equal_seconds") for name in ("mha", "swa")}

    by_name = {(line["variant"], line["budget"]): line for line in result["summary"]}
    assert by_name["mha", "equal_tokens"]["steps"] == by_name["swa", "equal_tokens"]["steps"] == 10
    assert by_name["mha", "equal_seconds"]["steps"] == 10
    # As many steps as its own speed makes of the first variant's seconds.
    speeds = [by_name[name, "equal_tokens"]["median_tokens_per_second"] for name in ("swa", "mha")]
    assert by_name["swa", "equal_seconds"]["steps"] == max(1, round(10 * speeds[0] / speeds[1]))

    assert execute("compare", main, [*arguments, "training.steps=41"]) == 2
    assert "was made with other overrides: training.steps=41" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("variants=[mha,swaa]", "error: attention must be a variant; got 'swaa' (choices: "),
        ("variants=[mha,mha]", "variants must be a list of different values, at least one; got ['mha', 'mha']"),
        ("variants=[]", "variants must be a list of different values, at least one; got []"),
        ("budgets=[equal_seconds]", "budgets must begin with equal_tokens, which sets the clock for the other"),
        ("jobs=0", "jobs must be at least 1 and at most "),
        ("jobs=999", ", the cores; got 999"),
        ("training.max_seconds=9", "training.max_seconds must be null in a comparison, where every run has its whole"),
        ("benchmark=true", "benchmark must be false beside model.num_layers: it times models as their YAMLs"),
        ('variants=["swa(window=3)"]', "unknown key 'window'"),
        ("attention=swa", "attention must not be given: a comparison sets it for each run; use variants and seeds"),
        ("seed=4", "seed must not be given: a comparison sets it for each run; use variants and seeds"),
        ("training.stepz=4", "unknown key 'stepz'"),
        ("budget_minutes=0", "budget_minutes must be above 0; got 0"),
        ("max_batches=0", "max_batches must be at least 1 and at most "),
        (f"max_batches={2**63}", "max_batches must be at least 1 and at most "),
        ("tasks=[langage]", "tasks must be known ones; got 'langage'"),
        ("run_dir=", "run_dir must name a folder; got ''"),
        ("optimizer.learning_rate=-1", "optimizer: learning_rate must be at least 1e-30"),
        ("model.num_heads=5", "num_heads must divide hidden_size 24"),
        ("data.path=missing", "data.path must be an existing file, folder or glob; got 'missing'"),
        ("variants=[mha,blocksparse_legacy]", "a language model must not see the future"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(
    argument, message, text_corpus, cache, tmp_path, capsys, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code = execute("compare", main, command(text_corpus, cache, tmp_path / "run", argument))
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert (code, captured.out) == (2, "")
    assert message in line
    # What was mistyped once must not stand in the way of the next try.
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_comparison_of_another_text_is_refused(text_corpus, cache, tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for name in "abc":
        (tmp_path / "text" / f"{name}.txt").write_text(f"{name} is a letter\n" * 90)
    own = [f"data.path={tmp_path / 'text'}", "variants=[mha]", "budgets=[equal_tokens]", "training.steps=1"]
    arguments = command(text_corpus, cache, tmp_path / "run", *own)
    assert execute("compare", main, arguments) == 0
    (tmp_path / "text" / "a.txt").write_text("another letter\n" * 90)
    capsys.readouterr()
    assert execute("compare", main, [*arguments, "variants=[mha,swa]"]) == 2
    assert "learnt from another text" in capsys.readouterr().err
    assert not list(tmp_path.glob("run/runs/*swa*"))


def test_speed_is_measured_at_the_length_that_quality_was_trained_at(monkeypatch, text_corpus, cache, tmp_path):
    seen = Recorder()
    monkeypatch.setattr(recipes.compare, "ScriptRunner", lambda **_: seen)
    monkeypatch.setattr(recipes.compare, "stopping_at_the_end", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(recipes.compare, "_cells", lambda *_: [])
    monkeypatch.setattr(recipes.compare, "_collected", lambda *_: [])
    own = [argument for argument in TRAINING if not argument.startswith("model.")]
    more = [f"data.path={text_corpus}", f"data.cache_dir={cache}", "data=text", "variants=[mha]", "seeds=[3]"]
    execute("compare", main, [*own, *more, f"run_dir={tmp_path / 'run'}"])
    (benchmark,) = seen.seen
    assert "lengths=[37]" in benchmark.arguments
    assert benchmark.shown


def test_what_a_shown_script_says_reaches_people_and_its_log(tmp_path, monkeypatch, capfd):
    (tmp_path / "says.py").write_text("import sys\nprint('half way', file=sys.stderr)\nprint('{}')\n")
    monkeypatch.setattr(recipes.scripts, "SCRIPTS", tmp_path)
    for shown in (True, False):
        log = tmp_path / f"{shown}.log"
        script = Script(name="x", script="says.py", arguments=(), log=log, shown=shown)
        assert ScriptRunner(threads_each=None).run(script) == {}
        assert log.read_text() == "half way\n"
        assert capfd.readouterr().err == ("half way\n" if shown else "")


def test_the_name_of_a_series_reaches_a_script_as_a_text():
    names = ["mha", "swa(window_size=32)", "blocksparse(block_size=16, num_global_tokens=1)"]
    (override,) = OverridesParser.create().parse_overrides([f"variants={listed(names)}"])
    assert override.value() == names


@pytest.mark.parametrize(
    ("name", "num_kv_heads"), [("gqa(num_kv_heads=4)", 4), ("mqa(queries_per_kv_head=2)", 2), ("mqa", 1)]
)
def test_a_parameter_takes_the_place_of_its_rival_in_the_training_too(name, num_kv_heads, tmp_path, monkeypatch):
    built = []

    def recorded(plan, *_):
        built.append(build_model(plan.model_config(1)))
        return {}

    monkeypatch.setattr(recipes.train, "_train", recorded)
    monkeypatch.chdir(tmp_path)
    assert execute("train", recipes.train.main, [*attention_overrides(name), "model=gpt_tiny"]) == 0
    assert built[0].layers[0].self_attn.shape.num_kv_heads == num_kv_heads


def test_further_seeds_take_the_steps_that_equal_seconds_were_begun_with(tmp_path):
    run = ComparisonRun(
        variant="swa(window_size=8)",
        seed=0,
        budget="equal_seconds",
        folder=tmp_path / "equal_seconds-swa(window_size=8)-seed0",
        overrides=("attention=swa", "training.steps=37"),
        evaluation=None,
        logs=tmp_path,
        data=DATA,
    )
    run.carry_out(Recorder())
    variants = ("mha", "swa(window_size=8)", "swa")
    assert begun_steps(tmp_path, variants) == {"swa(window_size=8)": ("training.steps=37",)}


def test_another_first_variant_is_another_clock_and_refused(text_corpus, cache, tmp_path, capsys, monkeypatch):
    speeds = {"mha": 100.0, "swa": 200.0, "linear": 50.0}

    def begin(run, _):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "begun.json").write_text(json.dumps({"overrides": run.overrides, "clock": run.clock}))

    def result(run):
        return {"tokens_per_second": speeds[run.variant], "steps": 10}

    monkeypatch.setattr(ComparisonRun, "carry_out", begin)
    monkeypatch.setattr(ComparisonRun, "result", result)
    # What follows the runs is not at issue.
    monkeypatch.setattr(recipes.compare, "_collected", lambda *_: [])
    data = [f"data.path={text_corpus}", f"data.cache_dir={cache}", "data=text", "tokenizer=bytes"]
    own = [*data, "seeds=[0]", "tasks=[]", "benchmark=false", f"run_dir={tmp_path}"]
    ends = []
    for variants in ("[mha,swa]", "[mha,swa,linear]", "[swa,mha]"):
        execute("compare", main, [f"variants={variants}", *own])
        ends.append(capsys.readouterr().err.splitlines()[-1])
        # Measured again, the same run is never equally fast.
        speeds["swa"] = 220.0
    assert ends[:2] == ["error: rows must hold one row at least; got none"] * 2
    assert "variants must begin with the one whose seconds were held equal" in ends[2]
    begun = {
        path.parent.name: json.loads(path.read_text())["overrides"][-1] for path in tmp_path.glob("runs/*/begun.json")
    }
    steps = {"swa": 20, "linear": 5}
    assert {f"equal_seconds-{name}-seed0": f"training.steps={n}" for name, n in steps.items()}.items() <= begun.items()


FIGURES = {
    "steps": 3,
    "val_loss": 2.5,
    "val_bits_per_byte": None,
    "tokens_per_second": 9.5,
    "peak_memory_bytes": 4321,
    "attention": "mha",
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", "3", "steps must be a whole number"),
        ("steps", 0, "steps must be at least 1"),
        ("val_loss", None, "val_loss must be a number"),
        ("val_bits_per_byte", [2.5], "val_bits_per_byte must be"),
        ("tokens_per_second", 0.0, "tokens_per_second must be above 0"),
        ("peak_memory_bytes", ..., "missing key 'peak_memory_bytes'"),
    ],
)
def test_a_spoilt_figure_of_a_finished_run_is_named(name, value, words, tmp_path):
    train = {key: figure for key, figure in {**FIGURES, name: value}.items() if figure is not ...}
    (tmp_path / "finished.json").write_text(json.dumps({"overrides": [], "train": train}))
    run = ComparisonRun(
        variant="mha",
        seed=1,
        budget="equal_tokens",
        folder=tmp_path,
        overrides=(),
        evaluation=None,
        logs=tmp_path,
        data=DATA,
    )
    with pytest.raises(UserError, match=f"finished.json: train.*{words}"):
        run.result()


def begun_run(folder, **fields):
    kept = {
        "variant": "mha",
        "seed": 1,
        "budget": "equal_tokens",
        "folder": folder,
        "logs": folder / "logs",
        "data": DATA,
    }
    return ComparisonRun(**kept, **fields)


def test_another_evaluation_is_made_again_without_training_again(tmp_path):
    run = begun_run(tmp_path, overrides=("attention=mha",), evaluation=("tasks=[mqar]",))
    finished = {"overrides": run.overrides, "evaluation": run.evaluation, "train": FIGURES}
    (tmp_path / "finished.json").write_text(json.dumps(finished))
    assert run.is_finished
    other = dataclasses.replace(run, evaluation=("tasks=[needle]",))
    assert not other.is_finished
    scripts = Recorder()
    other.carry_out(scripts)
    assert [script.script for script in scripts.seen] == ["evaluate.py"]
    assert other.is_finished
    assert other.result() == FIGURES


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(tmp_path):
    run = begun_run(tmp_path, overrides=("training.steps=3",), evaluation=None)
    (tmp_path / "begun.json").write_text(json.dumps({"overrides": ["training.steps=4"]}))
    # A run that never came to train was not begun.
    run.require_same()
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"other overrides: training.steps=3, training.steps=4"):
        run.require_same()


class Recorder:
    """Stands in for the runner of scripts."""

    def __init__(self):
        self.seen = []

    def run(self, script):
        self.seen.append(script)
        return {"interrupted": False}
