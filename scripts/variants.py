"""Lists every attention variant: `python scripts/variants.py`."""

from recipes.app import run
from recipes.variants import main

if __name__ == "__main__":
    run("variants", main)
