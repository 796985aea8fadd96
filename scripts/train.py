"""Pretrains a model: `python scripts/train.py attention=swa model=gpt_tiny training.steps=300`."""

from recipes.app import run
from recipes.train import main

if __name__ == "__main__":
    run("train", main)
