"""A package outside the repository adds a mechanism by entry point, and it trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

MODULE = '''"""Every second key, from a package of its own."""

from typing import Any

from zoo.attention.pattern import PatternConfig


def allowed(query_index: Any, key_index: Any, config: PatternConfig) -> Any:
    """Keys an even distance away."""
    return (query_index - key_index) % 2 == 0
'''


def _install(folder: Path, entry_points: dict[str, str]) -> None:
    """Lays the package out as pip leaves it: the module, and metadata with its entry points."""
    (folder / "every_second.py").write_text(MODULE, encoding="utf-8")
    metadata = folder / "every_second-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: every-second\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {target}" for name, target in entry_points.items())
    (metadata / "entry_points.txt").write_text(f"[attention_zoo.mechanisms]\n{lines}\n", encoding="utf-8")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


def test_a_package_outside_adds_a_mechanism_that_trains(tmp_path: Path, text_corpus: Path) -> None:
    package = tmp_path / "site"
    package.mkdir()
    _install(package, {"every_second": "every_second"})
    done = _run(
        package,
        "scripts/train.py",
        "attention=every_second",
        "training.steps=3",
        "training.sequence_length=33",
        "training.batch_size=2",
        "data=text",
        f"data.path={text_corpus}",
        "tokenizer=bytes",
        f"run_dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["attention"], result["steps"]) == ("every_second", 3)


def test_a_name_claimed_twice_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "site"
    package.mkdir()
    _install(package, {"sliding_window": "every_second"})
    code = "import zoo.attention as a\ntry:\n    a.mechanism_names()\nexcept ValueError as e:\n    print(e)"
    done = _run(package, "-c", code)
    assert "mechanism 'sliding_window' must be unique" in done.stdout, done.stdout + done.stderr
