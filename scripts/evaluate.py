"""Says how good a trained model is: `python scripts/evaluate.py checkpoint=runs/NAME tasks=[language,positions]`."""

from recipes.app import run
from recipes.evaluate import main

if __name__ == "__main__":
    run("evaluate", main)
