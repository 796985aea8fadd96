"""A training of a comparison dies: the others are finished, and the same command asks for it again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.rows import read_rows
from tests.processes import kill
from tests.recipes.test_compare import ROOT, command, written


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")], ids=["threads", "joblib"]
)
def test_a_training_that_dies_does_not_end_the_others_and_is_asked_for_again(
    launcher: tuple[str, ...], text_corpus: Path, tmp_path: Path
) -> None:
    more = ("budgets=[equal_tokens]", "training.steps=10", "training.checkpoint_every=1", "training.eval_every=5")
    script = [
        sys.executable,
        str(ROOT / "scripts" / "compare.py"),
        *command(text_corpus, tmp_path / "cache", tmp_path, *more, *launcher),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    first = tmp_path / "runs" / "equal_tokens-mha-seed3"
    while begun.poll() is None and not (first / "metrics.jsonl").is_file():
        time.sleep(0.01)
    kill(f"run_dir={first} ")
    _, errors = begun.communicate()
    why = "training equal_tokens-mha-seed3 failed (killed by SIGKILL, as Linux does when memory runs out): "
    assert begun.returncode == 2
    assert errors.splitlines()[-1].startswith(f"error: 1 of 2 runs ended without a result: {why}")
    assert errors.endswith("(the same command asks for them again)\n")
    before = written(tmp_path)
    assert list(before) == ["equal_tokens-swa-seed3"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert before.items() <= written(tmp_path).items()
    rows = read_rows(Path(json.loads(done.stdout.splitlines()[-1])["rows_path"]))
    assert {row.quality.variant for row in rows if row.quality} == {"mha", "swa"}
