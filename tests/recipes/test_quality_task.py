"""A task is one file: it is found, refused where it does not fit, and evaluated as those that are shipped."""

import json
import re
import sys
from pathlib import Path

import pytest

import eval.quality.tasks
from eval.quality.tasks import all_tasks
from eval.rows import read_rows
from recipes.app import execute
from recipes.compare import CompareRecipe
from recipes.evaluate import main
from tests.eval.quality.models import random_model
from zoo.checkpoints import save_checkpoint
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def new_task(tmp_path, monkeypatch):
    """The file that CONTRIBUTING.md shows, dropped into a folder of tasks."""
    (source,) = re.findall(r"## Add a quality task.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "words.py").write_text(source)
    monkeypatch.setattr(eval.quality.tasks, "__path__", [*eval.quality.tasks.__path__, str(tmp_path / "tasks")])
    yield "spelling"
    for name in ("words", "twice"):
        sys.modules.pop(f"eval.quality.tasks.{name}", None)


def evaluated(model, text_corpus, folder, *more):
    """The exit code of `evaluate.py`, asked about a model."""
    checkpoint = save_checkpoint(folder / "checkpoint", model=model, tokenizer=BytesTokenizer())
    data = ["data=text", f"data.path={text_corpus}", f"data.cache_dir={folder / 'cache'}", "sequence_length=37"]
    return execute("evaluate", main, [f"checkpoint={checkpoint}", f"run_dir={folder}", "compile=false", *data, *more])


def test_a_new_file_is_a_task_of_both_scripts(new_task, text_corpus, tmp_path, capsys):
    assert evaluated(random_model(), text_corpus, tmp_path, f"tasks=[language,{new_task}]") == 0
    tasks = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]
    assert (list(tasks), tasks[new_task]["count"]) == (["language", new_task], 4)
    found = {row.quality.task: row.quality for row in read_rows(tmp_path / "rows.jsonl")}
    assert (found[new_task].metric, found[new_task].value) == ("accuracy", tasks[new_task]["value"])
    own = {"variants": ("mha",), "seeds": (0,), "budgets": ("equal_tokens",), "run_dir": "new"}
    assert CompareRecipe(**own, tasks=(new_task,)).tasks == (new_task,)
    with pytest.raises(UserError, match=r"tasks must be known ones; got 'speling' \(choices: .*spelling"):
        CompareRecipe(**own, tasks=("speling",))


def test_a_new_task_is_refused_where_it_does_not_fit(new_task, text_corpus, tmp_path, capsys):
    assert evaluated(random_model("bert"), text_corpus, tmp_path, f"tasks=[{new_task}]") == 2
    assert "tasks: spelling must fit the checkpoint; it asks for the next token" in capsys.readouterr().err


def test_two_tasks_of_one_name_are_a_mistake_of_whoever_adds_the_second(new_task, tmp_path):
    (tmp_path / "tasks" / "twice.py").write_text((tmp_path / "tasks" / "words.py").read_text())
    with pytest.raises(AssertionError, match="the same name"):
        all_tasks()
