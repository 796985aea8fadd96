"""Measures speed and memory: `python scripts/benchmark.py suite=foundation`."""

from recipes.app import run
from recipes.benchmark import main

if __name__ == "__main__":
    run("benchmark", main)
