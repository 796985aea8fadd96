"""Comparisons of two short trainings, to be killed; their scripts are forked where the real ones would be started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hydra.core.global_hydra import GlobalHydra

# Here, and not at its first use in each process that is forked.
import eval.report  # noqa: F401
import recipes.compare
import recipes.evaluate
import recipes.scripts
import recipes.train
from eval.rows import Row, read_rows
from recipes.app import execute
from recipes.app import run as run_script
from tests.endurance.trainings import trained, without_figures, write_corpus
from tests.recipes.tiny_train import arguments

_SCRIPTS = {"train.py": recipes.train.main, "evaluate.py": recipes.evaluate.main}
_OPTIONS = (
    "variants=[mha,swa]",
    "seeds=[3]",
    "budgets=[equal_tokens]",
    "tasks=[language]",
    "benchmark=false",
    "training.steps=4",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=1",
    "training.log_every=1",
    "training.sample_tokens=0",
    "model.dropout=0.2",
)
# What is measured, and what comes of it.
_NEVER_EQUAL = {"train_seconds", "tokens_per_second", "peak_bytes"}


class Comparisons:
    """Over one corpus and one cache."""

    def __init__(self, folder: Path) -> None:
        """Writes the corpus."""
        self.cache, self.corpus = folder / "cache", write_corpus(folder)

    def main(self, run: Path) -> int:
        """Compares, or goes on."""
        typed = [each for each in arguments(self.corpus, self.cache, *_OPTIONS) if not each.startswith("attention=")]
        # There alone: what else starts a process means it.
        forking = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
        with patch.object(recipes.scripts, "subprocess", forking), without_figures():
            return execute("compare", recipes.compare.main, [*typed, f"run_dir={run}"])

    def kept(self, run: Path) -> dict[str, Any]:
        """When each training was finished."""
        return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("runs/*/finished.json")}

    def outcome(self, run: Path) -> dict[str, Any]:
        """The trainings, their figures, and the report but for what was measured."""
        rows = read_rows(run / "rows.jsonl")
        assert len(rows) == len((run / "rows.jsonl").read_bytes().splitlines()), f"{run}: a figure was stored twice"
        report = json.loads((run / "report" / "report.json").read_text())
        files = sorted(path for path in (run / "report").rglob("*") if path.is_file())
        return {
            "rows": [facts(row) for row in rows],
            "report": [sorted(report), [sorted(device) for device in report["devices"]]],
            "report's rows": [facts(row) for row in read_rows(run / "report" / "rows.jsonl.gz")],
            "files": [(path.name, path.stat().st_size > 0) for path in files if not path.name.endswith(".partial")],
            **{folder.name: trained(folder) for folder in sorted((run / "runs").iterdir())},
        }


def facts(row: Row) -> tuple[Any, ...]:
    """What a record says, but for what is measured."""
    assert row.quality is not None
    quality = row.quality.model_dump(exclude={*_NEVER_EQUAL, "curve"})
    return row.identity, row.status, quality, [(point.tokens, point.value) for point in row.quality.curve]


class Forked:
    """As `subprocess.Popen`, of a script of ours, which goes on in a fork: what takes seconds to import is there."""

    def __init__(
        self, command: Sequence[str], *, stdout: int, stderr: int, text: bool, env: Mapping[str, str], **_: Any
    ) -> None:
        """Takes what `ScriptRunner` gives."""
        assert (stdout, text) == (subprocess.PIPE, True)
        self._output, writing = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        try:
            _become(command[1:], writing, stderr, env)
        finally:
            os._exit(1)

    def communicate(self) -> tuple[str, None]:
        """Waits; gives what was printed."""
        with os.fdopen(self._output, encoding="utf-8") as stream:
            output = stream.read()
        self.wait()
        return output, None

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end, for as long as it takes."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it is not too late."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _become(command: Sequence[str], stdout: int, stderr: int, environment: Mapping[str, str]) -> None:
    """Makes a fork what a new process would be, and runs the script."""
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    # Locks among them, which would be held for as long as we live.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(environment)
    GlobalHydra.instance().clear()
    script, *sys.argv[1:] = command
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    try:
        run_script(Path(script).stem, _SCRIPTS[Path(script).name])
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
