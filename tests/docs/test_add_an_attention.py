"""Executes docs/add-an-attention.md: its file and its YAML, put where it says, train and pass the contract."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "add-an-attention.md"


def _block(language: str, after: str) -> str:
    """The first fenced block of a language after a sentence of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    match = re.search(rf"```{language}\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert match, f"no {language} block after {after!r}"
    return match.group(1)


def _run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project with the guide's two files added, and nothing else."""
    folder = tmp_path / "copy"
    for name in ("zoo", "recipes", "eval", "configs", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    module = _block("python", "Save this as `zoo/attention/variants/strided.py`")
    (folder / "zoo" / "attention" / "variants" / "strided.py").write_text(module, encoding="utf-8")
    yaml = _block("yaml", "Save this as `configs/attention/strided.yaml`")
    assert len(yaml.strip().splitlines()) == 2
    (folder / "configs" / "attention" / "strided.yaml").write_text(yaml, encoding="utf-8")
    return folder


def test_the_guides_two_files_train(tree: Path, text_corpus: Path) -> None:
    script = [sys.executable, "scripts/train.py", "attention=strided", "attention.stride=7", "training.steps=3"]
    small = ["training.sequence_length=33", "training.batch_size=2", "data=text", f"data.path={text_corpus}"]
    done = _run([*script, *small, "tokenizer=bytes", f"run_dir={tree / 'run'}"], tree)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["attention"] == "strided"
    assert result["steps"] == 3


def test_the_guides_mechanism_passes_the_contract(tree: Path) -> None:
    pytest_of_the_tree = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = _run([*pytest_of_the_tree, "tests/zoo/attention", "-k", "strided"], tree)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 40


def test_a_leaking_pattern_fails_the_contract(tree: Path) -> None:
    """The same run on a wrong implementation must be red: plant one that ignores the pattern."""
    file = tree / "zoo" / "attention" / "variants" / "strided.py"
    fault = """

from zoo.attention.pattern import pattern_mechanism
from zoo.ops import softmax
import dataclasses as _dc
from zoo.ops.patterns import everything

MECHANISM = pattern_mechanism(
    name="strided", allowed=allowed, config=StridedConfig,
    implementations={
        "leaking": lambda _: lambda q, k, v, spec: softmax.fused(q, k, v, _dc.replace(spec, pattern=everything))
    },
)
"""
    file.write_text(file.read_text(encoding="utf-8") + fault, encoding="utf-8")
    done = _run([sys.executable, "-m", "pytest", "-q", "-x", "tests/zoo/attention", "-k", "strided and leaking"], tree)
    assert done.returncode == 1, done.stdout
