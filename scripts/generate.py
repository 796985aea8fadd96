"""Continues text: `python scripts/generate.py checkpoint=runs/NAME prompt="def " max_tokens=100`."""

from recipes.app import run
from recipes.generate import main

if __name__ == "__main__":
    run("generate", main)
