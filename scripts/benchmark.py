"""Measures speed and memory: `python scripts/benchmark.py suite=attnbench`, or `variants=[mha,swa] levels=[layer]`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    # Inside, because every worker process of a benchmark imports its script once more and needs nothing of it.
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("benchmark")
