"""Writes one report of rows: `python scripts/report.py rows=[runs/a/rows.jsonl,runs/b/rows.jsonl] out=runs/report`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("report")
