"""Compares variants: `python scripts/compare.py variants=[mha,swa,linear] training.steps=200`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("compare")
