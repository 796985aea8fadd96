"""Runs what the page on pretrained models shows, on a tiny GGUF file in the place of the real model."""

import io
import json
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.zoo.runtime.hub_server import NAME, HubServer, use

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")
TINY = ROOT / "tests" / "references" / "gguf" / "llama_q4_1.gguf"
FOLDER = ROOT / "tests" / "references" / "pretrained" / "llama" / "model"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if "python scripts/" in line
]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The names of the page: a tiny file as SmolLM2, a tiny folder as a model of the Hub."""
    monkeypatch.setattr("zoo.checkpoints.smollm.find", lambda: TINY)
    with HubServer.of_folder(FOLDER) as server:
        use(server, tmp_path / "home", monkeypatch)
        yield server


def test_the_page_shows_every_way_to_a_model():
    assert {"generate.py", "chat.py", "convert.py", "finetune.py"} == set(
        re.findall(r"scripts/(\w+\.py)", "".join(COMMANDS))
    )
    assert {"smollm", "HuggingFaceTB/SmolLM2-135M"} <= set(re.findall(r"checkpoint=([\w/.-]+)", "".join(COMMANDS)))


# What is made of a real model takes longer to measure than a tiny one is worth.
SMALL = {
    "convert.py": ["surgery.batches=0"],
    "finetune.py": [
        "data=text",
        f"data.path={ROOT / 'README.md'}",
        "data.cache_dir=cache",
        "distillation.attention_steps=2",
        "surgery.batches=1",
        "training.steps=4",
        "training.batch_size=2",
        "training.sequence_length=24",
        "training.eval_batches=1",
        "training.compile=false",
    ],
}
# What the JSON of a command has at least.
KEYS = {"convert.py": "out", "finetune.py": "attention_loss"}
MADE = r"(?:models|runs)/\w+"


@pytest.fixture
def place(tmp_path_factory, monkeypatch):
    """A folder that all commands are run in, as a reader's are."""
    folder = tmp_path_factory.getbasetemp() / "place"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_works_as_shown(command, models, place, tmp_path, monkeypatch, capsys):
    made = re.search(rf"checkpoint=({MADE})", command)
    if made and not Path(made[1]).exists():
        maker = next(each for each in COMMANDS if re.search(rf"(out|run_dir)={made[1]}\b", each))
        test_the_command_works_as_shown(maker, models, place, tmp_path, monkeypatch, capsys)
    said, _, command = command.rpartition(" | ")
    variable, _, command = command.partition("python ")
    script, *arguments = shlex.split(command)
    arguments = [each.replace("HuggingFaceTB/SmolLM2-135M", NAME) for each in arguments]
    if said:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(shlex.split(said)[1].encode())))

    def run():
        small = SMALL.get(Path(script).name, ["max_tokens=3"])
        monkeypatch.setattr(sys, "argv", [script, *arguments, *small])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert end.value.code == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    if variable:
        # What was downloaded before.
        run()
        use("http://127.0.0.1:9", tmp_path / "home", monkeypatch, offline=True)
    shown = re.search(rf"(?:out|run_dir)=({MADE})", command)
    if shown and Path(shown[1]).exists():
        return
    result = run()
    assert KEYS.get(Path(script).name, "text") in result
    if said:
        assert (result["turns"], result["has_template"]) == (1, True)


def test_the_python_works_as_shown(models, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "shown.py").write_text(block, encoding="utf-8")
    found = runpy.run_path(str(tmp_path / "shown.py"))
    assert found["windowed"].config.attention.name == "swa"
    assert os.environ.get("HF_HUB_OFFLINE") is None
