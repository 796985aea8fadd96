"""Continues text: `python scripts/generate.py checkpoint=runs/NAME prompt="def " max_tokens=100`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("generate")
