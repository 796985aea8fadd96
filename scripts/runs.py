"""Shows trainings side by side: `python scripts/runs.py folders=[runs] sort=val_bits_per_byte`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("runs")
