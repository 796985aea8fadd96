"""`scripts/generate.py` as a process of its own."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.recipes.test_generate import ROOT, expected, save


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("a run") / "llama", "llama")


def test_ctrl_c_ends_the_script_with_the_json_of_what_was_generated(run_dir):
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), f"checkpoint={run_dir}", "prompt=f(x): {"]
    endless = [*command, "max_tokens=null", "stop_at_eos=false"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    shown, _, last = (first + rest).decode().removesuffix("\n").rpartition("\n")
    result = json.loads(last)
    assert (result["finish_reason"], result["interrupted"]) == ("interrupted", True)
    assert result["text"].removesuffix("\n") == shown.removesuffix("\n")


@pytest.mark.slow
def test_the_script_streams_from_any_folder(run_dir, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "scripts" / "generate.py"),
        f"checkpoint={run_dir}",
        "prompt=f(x): {",
        "temperature=0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "max_tokens=15"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    text, _, last = done.stdout.removesuffix("\n").rpartition("\n")
    assert text == json.loads(last)["text"] == expected(run_dir, "f(x): {", max_tokens=15)
    assert list(tmp_path.iterdir()) == []
