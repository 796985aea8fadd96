"""One line on stderr for a process that is ended without a word, as the kernel ends one when memory runs out.

Neither SIGKILL nor a fault in native code lets a process say anything: on CPUs MLX goes on with the null pointer that
it got for memory. So a shell waits at the end of a pipe, and speaks if it closes before it was dismissed.
"""

import contextlib
import subprocess
from collections.abc import Iterator

# Signals meant for the process are none of the shell's business.
_SCRIPT = "trap '' HUP INT TERM; read -r dismissed || printf '\\nerror: %s\\n' \"$1\" >&2"


@contextlib.contextmanager
def last_words(message: str) -> Iterator[None]:
    """Says `error: <message>` if this process dies inside; nothing however else it is left."""
    try:
        speaker = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "sh", message],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Of its own, so that it outlives what is killed together with its group.
            start_new_session=True,
        )
    except OSError:
        # A system without a shell, or without room for one more process.
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            speaker.communicate(b"dismissed\n")
