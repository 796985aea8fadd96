"""The processes of this machine, for tests that end some and see that none is left."""

import os
import signal
import subprocess
import time
from pathlib import Path

_PATIENCE_SECONDS = 60.0


def command_lines() -> dict[int, str]:
    """What each process was started with, by its number."""
    if not Path("/proc/self").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=True).stdout
        return {int(line.split()[0]): line.split(maxsplit=1)[-1] for line in listed.splitlines()}
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # Of one that has ended it is empty, or gone.
        try:
            found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def kill(words: str) -> None:
    """Kills the processes whose command line holds these words, of which there must be some."""
    found = [process for process, line in command_lines().items() if words in line]
    assert found, words
    for process in found:
        os.kill(process, signal.SIGKILL)


def require_nobody_left(words: str) -> None:
    """Waits until no command line holds these words."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while left := [line for line in command_lines().values() if words in line]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
