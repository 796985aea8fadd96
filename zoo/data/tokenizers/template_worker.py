"""The process in which a chat template is rendered: run as a script, one JSON object a line in and out.

A template comes with a checkpoint, from whoever wrote that. transformers' sandbox keeps it from Python's objects, but
not from looping for ever or from making a text of a terabyte, and no thread can be stopped in the middle of that. A
process can be.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

# Beyond what the process has once everything is imported.
_MEMORY_BYTES = 2**29
_CPU_SECONDS = 10


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template(
            conversations=[request["messages"]],
            tools=request["tools"],
            chat_template=request["template"],
            add_generation_prompt=request["add_generation_prompt"],
            **request["variables"],
        )
    except MemoryError:
        return {"error": f"it takes more than {_MEMORY_BYTES // 2**20} MB"}
    # Whatever a template may raise is its own fault.
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": rendered[0]}


def _bound_memory() -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        # Only Linux tells, and only Linux keeps to it.
        return
    limit = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _bound_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + _CPU_SECONDS
    # Whoever asked kills it sooner; this is for when that one has died.
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _serve() -> None:
    # Imported before memory is bounded; says that it is done, so that no clock counts it.
    import transformers.utils.chat_template_utils  # noqa: F401

    _bound_memory()
    _say({"ready": True})
    for line in sys.stdin:
        _bound_time()
        _say(_answer(json.loads(line)))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
