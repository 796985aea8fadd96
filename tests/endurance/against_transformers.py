"""Random checkpoints of transformers, read here and taken back: python -m tests.endurance.against_transformers

    peer=PYTHON          an interpreter that has torch and transformers; default: this one
    first=0 count=200    the checkpoints' numbers; each checkpoint is a pure function of its own
    out=FOLDER           where they lie, and are kept; default: a temporary folder

Each comes to one of three things: equal, refused in one line, or different, which is more than 1e-4 of its largest
value off in float32. The last line is JSON; the exit code is 1 if any is different. The suite has a stored reference of
each kind that went wrong.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Of a checkpoint's folder: what transformers saved, what it computed, what we exported, and what it computes of that.
MODEL, ASKED, EXPORT, ANSWER = "model", "asked.npz", "export", "answer.npy"
TOLERANCE = 1e-4


def main(words: Sequence[str]) -> dict[str, Any]:
    """Makes, reads, exports and has read again."""
    given = {"peer": sys.executable, "first": "0", "count": "200", "out": ""}
    given |= dict(word.partition("=")[::2] for word in words)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given["out"] or temporary)
        _peer(given["peer"], "make", folder, given["first"], given["count"])
        places = sorted((path.parent for path in folder.glob(f"*/{ASKED}")), key=lambda place: int(place.name))
        read, refused, different = _read(places)
        _peer(given["peer"], "read", folder)
        answers = [place for place in places if (place / ANSWER).exists()]
        wrong = [place.name for place in answers if not _agree(np.load(place / ANSWER), place)]
    return {
        "checkpoints": len(places),
        "equal": read - len(different),
        "refused": dict(refused.most_common()),
        "different": different,
        "exported and read again": len(answers),
        "different again": wrong,
    }


def _read(places: Sequence[Path]) -> tuple[int, collections.Counter[str], list[str]]:
    """How many we read, why not the others, and which came out otherwise; exports what it reads."""
    import zoo  # noqa: F401  # isort: skip (before mlx)
    import mlx.core as mx

    from zoo.checkpoints.export import export_model
    from zoo.checkpoints.load import load_checkpoint, locate
    from zoo.config import UserError

    read, refused, different = 0, collections.Counter[str](), []
    for place in places:
        try:
            loaded = load_checkpoint(locate(place / MODEL))
            model: Any = loaded.model
            model.set_dtype(mx.float32)
            (place / EXPORT).mkdir(exist_ok=True)
            export_model(place / EXPORT, model, tokenizer=None, source=loaded.folder, dtype=mx.float32)
        except UserError as error:
            refused[str(error).rpartition(": ")[2]] += 1
            continue
        read += 1
        if not _agree(_computed(model, place), place):
            different.append(place.name)
    return read, refused, different


def _computed(model: Any, place: Path) -> np.ndarray:
    import mlx.core as mx

    asked = np.load(place / ASKED)
    tokens_BL, types_BL = (mx.array(asked[name].astype(np.int32)) for name in ("tokens_BL", "types_BL"))
    if not str(asked["kind"]).startswith("Bert"):
        return np.array(model(tokens_BL))
    if str(asked["kind"]) == "BertForSequenceClassification":
        return np.array(model.classify(tokens_BL, token_types_BL=types_BL))
    hidden_BLD = model.hidden(tokens_BL, token_types_BL=types_BL)
    return np.array(hidden_BLD if str(asked["kind"]) == "BertModel" else model.logits(hidden_BLD))


def _agree(found: np.ndarray, place: Path) -> bool:
    expected = np.load(place / ASKED)["expected"]
    if found.shape != expected.shape:
        return False
    return bool(np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max()))


def _peer(python: str, what: str, folder: Path, *words: str) -> None:
    side = [python, "-m", "tests.endurance.transformers_side", what, str(folder), *words]
    subprocess.run(side, check=True, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONWARNINGS": "ignore"})


if __name__ == "__main__":
    result = main(sys.argv[1:])
    print(json.dumps(result))
    sys.exit(1 if result["different"] or result["different again"] else 0)
