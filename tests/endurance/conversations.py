"""Real conversations without a download: python -m tests.endurance.conversations FOLDER

Made of the standard library's own documentation: the question is what something does, the answer its docstring. The
folder gets a `train.jsonl`; `make adaptations` trains adapters of a real model on it.
"""

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Shorter than this, a docstring says no more than the name.
_LEAST_CHARACTERS = 40
# Importing these opens a browser or prints a poem.
_NOT_IMPORTED = ("antigravity", "this", "idlelib", "turtle", "tkinter")


def conversations() -> Iterator[dict[str, Any]]:
    """One for each docstring of the standard library, each docstring once."""
    seen = set()
    for module in sorted(each.name for each in pkgutil.iter_modules() if each.name in sys.stdlib_module_names):
        if module.startswith("_") or module in _NOT_IMPORTED:
            continue
        try:
            found = importlib.import_module(module)
        # What another system has, or this one lacks.
        except (ImportError, OSError, AttributeError):
            continue
        for path, thing in _documented(module, found):
            text = inspect.getdoc(thing) or ""
            if len(text) >= _LEAST_CHARACTERS and text not in seen:
                seen.add(text)
                question = {"role": "user", "content": f"What does {path} do?"}
                yield {"messages": [question, {"role": "assistant", "content": text}]}


def _documented(path: str, owner: Any) -> Iterator[tuple[str, Any]]:
    for name, each in sorted(vars(owner).items()):
        home = (getattr(each, "__module__", None) or path).partition(".")[0].lstrip("_")
        if name.startswith("_") or not callable(each) or home != path.partition(".")[0]:
            continue
        yield f"{path}.{name}", each
        if inspect.isclass(each):
            yield from _documented(f"{path}.{name}", each)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in conversations()), encoding="utf-8")
