"""The suite `foundation`: the project's own claims about its parts, as figures with targets."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.foundation import FIGURES, HEAD_DIM, measure
from eval.graph import fused_attention_paths
from zoo.config import UserError
from zoo.runtime.backend import default_dtype
from zoo.runtime.versions import describe

# Not `rows.jsonl`: these are no rows of cells.
FILE = "foundation.jsonl"

__all__ = ["FIGURES", "measure_foundation"]


def measure_foundation(folder: Path, *, rounds: int, names: Sequence[str] | None) -> dict[str, Any]:
    """Measures figures, appends them to a file, and prints a table on stderr.

    Args:
        folder: Where the file goes.
        rounds: Timed rounds of each interleaved run.
        names: Which figures, or None for all.

    Returns:
        `rows_path`, and `summary`: one object per figure with its value, its target and whether it was met.

    Raises:
        UserError: If the folder cannot be written.
    """
    rows_path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows_path.touch()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"run_dir must be a folder that can be written; got {str(folder)!r} ({reason})") from None
    figures = measure(rounds=rounds, names=names)
    measured = [{**dataclasses.asdict(figure), "met": figure.met} for figure in figures]
    paths = fused_attention_paths(length=1024, head_dim=HEAD_DIM, dtype=default_dtype())
    machine = {**describe(), "fused_attention": paths}
    with rows_path.open("a", encoding="utf-8") as rows:
        for figure in measured:
            row = {**figure, "suite": "foundation", "rounds": rounds, "machine": machine}
            rows.write(json.dumps(row) + "\n")
    for figure in measured:
        sign, mark = (">=" if figure["at_least"] else "<="), ("met" if figure["met"] else "MISSED")
        print(f"{figure['name']:42} {figure['value']:8.3f}  {sign} {figure['target']:<6} {mark}", file=sys.stderr)
    return {"rows_path": str(rows_path), "summary": measured}
