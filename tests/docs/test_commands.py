"""Runs what README and guide show of training, generating and evaluating, as written but for its size: a few steps."""

import io
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import recipes.training_run
import zoo
from zoo.data.synthetic import SYNTHETIC_TASKS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/guide.md")
SCRIPTS = ("train", "finetune", "generate", "chat", "evaluate", "variants", "runs")
# What a reader's run has large; set after, and in place of, what the command says of the same key.
SMALL_TRAIN = {
    "training.steps": "2",
    "training.batch_size": "2",
    "training.sequence_length": "65",
    "training.eval_batches": "1",
    "training.sample_tokens": "4",
    "training.compile": "false",
    "model.num_layers": "1",
    "tokenizer": "bytes",
}
# A synthetic task has rows of its own length and no tokenizer.
SMALL_SYNTHETIC = {
    key: value
    for key, value in SMALL_TRAIN.items()
    if key in ("training.steps", "training.batch_size", "training.eval_batches", "training.compile")
}
SMALL_GENERATE = {"max_tokens": "5"}
SMALL_EVALUATE = {"max_batches": "1", "compile": "false"}


def _commands() -> list[str]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            lines = [line.split("  #")[0].strip() for line in block.splitlines()]
            found += [
                line
                for line in lines
                if re.match(r"python scripts/(train|finetune|generate|chat|evaluate|variants|runs)\.py", line)
            ]
    return found


def _run(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    # It takes longer to draw than a tiny model to train, and its own tests draw it.
    monkeypatch.setattr(recipes.training_run, "draw_loss_curve", lambda rows, path, *, title: path.write_text(title))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 0


def _with(arguments: list[str], small: dict[str, str]) -> list[str]:
    kept = [argument for argument in arguments if argument.partition("=")[0] not in small]
    return [*kept, *(f"{key}={value}" for key, value in small.items())]


def _is_synthetic(arguments: list[str]) -> bool:
    return any(argument == f"data={task}" for task in SYNTHETIC_TASKS for argument in arguments)


@pytest.fixture(scope="module")
def trained(text_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder such as `make train` leaves, by the default model and attention."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    small = {**SMALL_TRAIN, "data": "text", "data.path": str(text_corpus), "run_dir": str(folder)}
    with pytest.MonkeyPatch.context() as monkeypatch:
        _run("scripts/train.py", _with([], small), monkeypatch)
    return folder


def test_the_pages_show_commands_of_every_kind() -> None:
    scripts = {shlex.split(command)[1] for command in _commands()}
    assert scripts == {
        f"scripts/{name}.py" for name in ("train", "finetune", "generate", "chat", "evaluate", "variants", "runs")
    }


@pytest.mark.parametrize("command", _commands())
def test_the_command_works_as_shown(
    command: str,
    text_corpus: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, *arguments = shlex.split(command.partition(" < ")[0])[1:]
    if script == "scripts/train.py":
        small = {**SMALL_TRAIN, "data": "text", "data.path": str(text_corpus), "run_dir": str(tmp_path / "run")}
        if _is_synthetic(arguments):
            small = {**SMALL_SYNTHETIC, "run_dir": small["run_dir"]}
        arguments = _with(arguments, small)
    elif script == "scripts/finetune.py":
        kept = {key: value for key, value in SMALL_TRAIN.items() if key.startswith("training.")}
        (tmp_path / "examples.jsonl").write_text(
            '{"prompt": "1", "completion": "2"}\n{"prompt": "3", "completion": "4"}\n'
        )
        data = text_corpus if "data=text" in arguments else tmp_path
        places = {"data.path": str(data), "checkpoint": str(trained), "run_dir": str(tmp_path / "run")}
        arguments = _with(arguments, {**kept, **places})
    elif script in ("scripts/generate.py", "scripts/chat.py"):
        arguments = _with(arguments, {**SMALL_GENERATE, "checkpoint": str(trained)})
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"import os\n")))
    elif script == "scripts/evaluate.py":
        other_text = {"data.path": str(text_corpus)} if "data=text" in arguments else {}
        own = {"checkpoint": str(trained), "run_dir": str(tmp_path / "rows")}
        arguments = _with(arguments, {**SMALL_EVALUATE, **other_text, **own})
    elif script == "scripts/runs.py":
        arguments = _with(arguments, {"folders": f"[{trained.parent}]"})
    capsys.readouterr()
    _run(script, arguments, monkeypatch)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = {
        "scripts/train.py": "run_dir",
        "scripts/finetune.py": "trainable_parameters",
        "scripts/generate.py": "generated_tokens",
        "scripts/chat.py": "turns",
        "scripts/evaluate.py": "tasks",
        "scripts/variants.py": "variants",
        "scripts/runs.py": "runs",
    }
    assert expected[script] in result


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_the_pages_runs_as_shown(page: str, trained: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    encoder = ROOT / "tests" / "references" / "pretrained" / "bert" / "model"
    for block in blocks:
        shown = re.sub(r"runs/(…|NAME)", str(trained), block).replace("models/all-MiniLM-L6-v2", str(encoder))
        (tmp_path / "shown.py").write_text(shown, encoding="utf-8")
        found = runpy.run_path(str(tmp_path / "shown.py"))
        result = next(array for name, array in found.items() if name.startswith(("logits_", "vectors_")))
        assert result.shape[0] == found["tokens_BL"].shape[0]


def test_the_names_of_the_library_show() -> None:
    assert "load_model" in dir(zoo)
    assert set(zoo.__all__) <= set(dir(zoo))
