"""Writes one report of rows: `python scripts/report.py rows=[runs/a/rows.jsonl,runs/b/rows.jsonl] out=runs/report`."""

from recipes.app import run
from recipes.report import main

if __name__ == "__main__":
    run("report", main)
