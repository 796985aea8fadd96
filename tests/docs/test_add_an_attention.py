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
from eval.workloads.registry import BUILDERS
from recipes.app import execute
from recipes.train import main

folder, corpus, *names = sys.argv[1:]
small = ["training.steps=3", "training.sequence_length=33", "training.batch_size=2", "model.num_layers=1"]
small += ["training.compile=false", "training.sample_tokens=0", "training.eval_batches=1"]
found = {}
for name in names:
    where = ["data=text", f"data.path={corpus}", "tokenizer=bytes", f"run_dir={folder}/{name}"]
    own = ["attention.stride=7"] if name == "strided" else []
    found[name] = [execute("train", main, [f"attention={name}", *own, *small, *where])]
    for level in ("op", "layer"):
        plain = {"suite": "docs", "group": "docs", "builder": level, "level": level, "variant": name}
        attention = json.dumps({"name": name, "mechanism": name})
        sizes = {"mode": "forward_backward", "length": 37, "batch_size": 2, "num_heads": 4, "head_dim": 10}
        cell = Cell.model_validate({**plain, "attention": attention, **sizes, "num_kv_heads": 2, "compiled": False})
        found[name].append(BUILDERS[level](cell).check().passed)
print(json.dumps(found))
"""

# What follows in a file makes a mechanism whose op ignores the pattern.
LEAKING = """

from zoo.attention.pattern import pattern_mechanism
from zoo.ops import softmax
import dataclasses as _dc
from zoo.ops.patterns import everything

MECHANISM = pattern_mechanism(
    name="leaking", allowed=allowed, config=StridedConfig,
    implementations={
        "leaking": lambda _: lambda q, k, v, spec: softmax.fused(q, k, v, _dc.replace(spec, pattern=everything))
    },
)
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the guide's files added, and one of a wrong mechanism."""
    folder = tmp_path_factory.mktemp("guide") / "copy"
    for name in ("zoo", "recipes", "eval", "configs", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in NAMES:
        module, variant = f"zoo/attention/variants/{name}.py", f"configs/attention/{name}.yaml"
        (folder / module).write_text(_block("python", f"this as `{module}`"), encoding="utf-8")
        (folder / variant).write_text(_block("yaml", f"this as `{variant}`"), encoding="utf-8")
    right, variants = (folder / name for name in ("zoo/attention/variants/strided.py", "configs/attention"))
    right.with_name("leaking.py").write_text(right.read_text(encoding="utf-8") + LEAKING, encoding="utf-8")
    yaml = (variants / "strided.yaml").read_text(encoding="utf-8").replace("strided", "leaking")
    (variants / "leaking.yaml").write_text(yaml, encoding="utf-8")
    return folder


def test_the_guides_mechanisms_train_and_pass_the_gate(tree: Path, text_corpus: Path) -> None:
    done = _run([sys.executable, "-c", TRAIN_AND_CHECK, str(tree), str(text_corpus), *NAMES], tree)
    assert done.returncode == 0, done.stderr
    *trained, checked = map(json.loads, done.stdout.splitlines())
    assert [(result["attention"], result["steps"]) for result in trained] == [(name, 3) for name in NAMES]
    assert checked == {name: [0, True, True] for name in NAMES}


def test_the_guide_stays_short() -> None:
    assert len(_block("yaml", "this as `configs/attention/strided.yaml`").strip().splitlines()) == 2
    assert len(_block("python", "this as `zoo/attention/variants/kerple.py`").splitlines()) < 40
    assert len(_block("python", "this as `zoo/attention/variants/sigmoid.py`").splitlines()) < 60


def test_the_guides_mechanisms_pass_the_contract_and_a_leaking_one_fails(tree: Path) -> None:
    pytest_of_the_tree = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider"]
    done = _run([*pytest_of_the_tree, "tests/zoo/attention", "-k", " or ".join([*NAMES, "leaking"])], tree)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) > 5
    assert all("leaking" in line.partition("[")[2] for line in failed), failed
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 40 * len(NAMES)
    assert "error" not in done.stdout.splitlines()[-1]
