"""Shows trainings side by side: `python scripts/runs.py folders=[runs] sort=val_bits_per_byte`."""

from recipes.app import run
from recipes.runs import main

if __name__ == "__main__":
    run("runs", main)
