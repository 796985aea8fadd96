"""Executes docs/add-an-attention.md: its files, put where it says, train and pass the contract and the gate."""

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
# The guide's mechanisms: a pattern, a change of the scores, and no softmax.
NAMES = ("strided", "kerple", "sigmoid")
# Trains, then asks the gate of the benchmark; in one process, for each start takes seconds.
TRAIN_AND_CHECK = """
import json, sys
from eval.rows import Cell
from eval.speed.builders import BUILDERS
from recipes.app import execute
from recipes.train import main

name, folder, corpus = sys.argv[1:]
small = ["training.steps=3", "training.sequence_length=33", "training.batch_size=2", "model.num_layers=1"]
where = ["data=text", f"data.path={corpus}", "tokenizer=bytes", f"run_dir={folder}/{name}"]
code = execute("train", main, [f"attention={name}", *small, *where])
checks = []
for level in ("op", "layer"):
    plain = {"suite": "docs", "group": "docs", "builder": level, "level": level, "variant": name}
    attention = json.dumps({"name": name, "mechanism": name})
    sizes = {"mode": "forward_backward", "length": 37, "batch_size": 2, "num_heads": 4, "head_dim": 10}
    cell = Cell.model_validate({**plain, "attention": attention, **sizes, "num_kv_heads": 2, "compiled": False})
    checks.append(BUILDERS[level](cell).check().passed)
print(json.dumps({"code": code, "checks": checks}))
"""


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
    for name in NAMES:
        module, variant = f"zoo/attention/variants/{name}.py", f"configs/attention/{name}.yaml"
        (folder / module).write_text(_block("python", f"this as `{module}`"), encoding="utf-8")
        (folder / variant).write_text(_block("yaml", f"this as `{variant}`"), encoding="utf-8")
    return folder


def test_the_guides_two_files_train(tree: Path, text_corpus: Path) -> None:
    script = [sys.executable, "scripts/train.py", "attention=strided", "attention.stride=7", "training.steps=3"]
    small = ["training.sequence_length=33", "training.batch_size=2", "data=text", f"data.path={text_corpus}"]
    done = _run([*script, *small, "tokenizer=bytes", f"run_dir={tree / 'run'}"], tree)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["attention"] == "strided"
    assert result["steps"] == 3


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_guides_other_mechanisms_train_and_pass_the_gate(tree: Path, text_corpus: Path, name: str) -> None:
    done = _run([sys.executable, "-c", TRAIN_AND_CHECK, name, str(tree), str(text_corpus)], tree)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "checks": [True, True]}


def test_the_guide_stays_short() -> None:
    assert len(_block("yaml", "this as `configs/attention/strided.yaml`").strip().splitlines()) == 2
    assert len(_block("python", "this as `zoo/attention/variants/kerple.py`").splitlines()) < 40
    assert len(_block("python", "this as `zoo/attention/variants/sigmoid.py`").splitlines()) < 60


def test_the_guides_mechanisms_pass_the_contract(tree: Path) -> None:
    pytest_of_the_tree = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = _run([*pytest_of_the_tree, "tests/zoo/attention", "-k", " or ".join(NAMES)], tree)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 40 * len(NAMES)


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
