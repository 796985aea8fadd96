"""Every command that measures, compares or reports, in the pages and in `make results`, is one that would start.

They take minutes, so that each is taken to the point where its work would begin: everything is composed and checked.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import recipes.benchmark
import recipes.compare
import recipes.train
from recipes.app import execute
from recipes.comparison_run import ComparisonRun
from recipes.exchanges import Exchanges, finetuning_plan
from recipes.report import ReportRecipe
from zoo.config import UserError, from_mapping

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/guide.md", "docs/apple.md")
SCRIPTS = ("benchmark", "compare", "report")
_COMMAND = re.compile(rf"python scripts/({'|'.join(SCRIPTS)})\.py ")
COMPOSED = "this far and no further"


def _of_pages() -> list[str]:
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    ]
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if _COMMAND.match(line)]


def _of_make() -> list[str]:
    """The lines of the targets that measure, which are not run."""
    targets = ["results", "exchanges", "surgeries", "scaling"]
    plan = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in plan.stdout.splitlines() if _COMMAND.search(line)]


def _stop(*_: object, **__: object) -> Any:
    raise UserError(COMPOSED)


def _stop_at_an_exchange(asked: Exchanges, **_: object) -> Any:
    finetuning_plan(asked)
    raise UserError(COMPOSED)


def _starts(script: str, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[ComparisonRun]:
    """Takes a command to where its work would begin; returns the trainings that it would make."""
    kept = [each for each in arguments if not each.startswith("run_dir=")]
    runs: list[ComparisonRun] = []
    if script == "benchmark":
        monkeypatch.setattr(recipes.benchmark, "measure", _stop)
        monkeypatch.setattr(recipes.benchmark, "read_rows", lambda _: [])
        code = execute("benchmark", recipes.benchmark.main, [*kept, f"run_dir={folder}"])
    elif script == "compare":
        monkeypatch.setattr(ComparisonRun, "carry_out", lambda run, _: runs.append(run))
        monkeypatch.setattr(recipes.compare, "_steps", lambda *_: ())
        monkeypatch.setattr(recipes.compare.ScriptRunner, "run", lambda *_: None)
        monkeypatch.setattr(recipes.compare, "_collected", _stop)
        monkeypatch.setattr(recipes.compare, "compare_exchanges", _stop_at_an_exchange)
        code = execute("compare", recipes.compare.main, [*kept, f"run_dir={folder}"])
    else:
        code = execute("report", _report, arguments)
    assert code == 2
    return runs


def _report(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    from_mapping(ReportRecipe, {str(key): value for key, value in plain.items()}, path="report")
    raise UserError(COMPOSED)


def test_the_pages_and_make_results_have_commands_of_every_kind() -> None:
    for found in (_of_pages(), _of_make()):
        assert {match[1] for line in found if (match := _COMMAND.search(line))} == set(SCRIPTS)


@pytest.mark.parametrize("command", [*_of_pages(), *_of_make()])
def test_the_command_would_start(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script, *arguments = shlex.split(command)[1:]
    runs = _starts(Path(script).stem, arguments, tmp_path / "run", monkeypatch)
    assert capfd.readouterr().err.splitlines()[-1] == f"error: {COMPOSED}"
    monkeypatch.setattr(recipes.train, "_train", _stop)
    # `compare.py` has checked every variant's plan; in question is what it types for `train.py`, which differs
    # in the attention alone: one training, and those whose attention has parameters.
    for run in {each.variant: each for each in runs if each is runs[0] or "(" in each.variant}.values():
        assert execute("train", recipes.train.main, [*run.overrides, f"run_dir={tmp_path / 'training'}"]) == 2
        assert capfd.readouterr().err.splitlines()[-1] == f"error: {COMPOSED}", run.name
