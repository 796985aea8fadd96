"""Nobody has to read what a script says: neither a closed terminal nor a full disk costs the run."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipes import streams
from zoo.config import UserError
from zoo.config.errors import printable

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from recipes.app import run
from recipes.streams import show

def main(config):
    for number in range(3000):
        {}
    show("\\n")
    return {{"done": True}}

run("variants", main)
"""
PROGRESS = SCRIPT.format('print("progress", number, file=sys.stderr, flush=True)')
TEXTS = SCRIPT.format('show("a text that says zo\\u00eb and \\udcff, ")')


@pytest.mark.parametrize(
    "redirection", ["2>&1 >{out} | head -c 9", "2>/dev/full >{out}", "2>&- >{out}", "<&- 2>&- >{out}"]
)
def test_a_stderr_that_takes_nothing_does_not_end_the_run(redirection, tmp_path):
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    command = f'"$PYTHON" -c "$SCRIPT" {redirection.format(out=tmp_path / "out")}'
    variables = {**os.environ, "PYTHON": sys.executable, "SCRIPT": PROGRESS, "PYTHONPATH": str(ROOT)}
    subprocess.run(["/bin/sh", "-c", command], env=variables, check=True, capture_output=True)
    assert (tmp_path / "out").read_text() == '\n{"done": true}\n'


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_characters_that_stdout_cannot_show_are_escaped_and_a_reader_may_leave(encoding):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", TEXTS]
    done = subprocess.run(command, env=variables, capture_output=True, check=True)
    text, last = done.stdout.decode(encoding).splitlines()
    assert text.startswith(f"a text that says zo{'ë' if encoding == 'utf-8' else chr(92) + 'xeb'} and \\udcff, ")
    assert json.loads(last) == {"done": True}
    assert done.stderr == b""
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(3) == b"a t"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")

    def fileno(self):
        return os.open(os.devnull, os.O_WRONLY)


def test_a_result_that_cannot_be_written_is_a_mistake_to_mend(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(UserError, match="stdout must be writable; got No space left on device"):
        streams.print_json({})


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\tb\r", "\u202eabc", "\udcff", "\x9b1m", "\u2028"])
def test_no_message_commands_the_terminal(text, capsys):
    shown = printable(f"got {text}")
    assert shown.isprintable()
    assert printable("zoë 日本 …") == "zoë 日本 …"
