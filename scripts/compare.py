"""Compares variants: `python scripts/compare.py variants=[mha,swa,linear] training.steps=200`."""

from recipes.app import run
from recipes.compare import main

if __name__ == "__main__":
    run("compare", main)
