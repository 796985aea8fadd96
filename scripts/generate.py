"""Continues text: `python scripts/generate.py checkpoint=runs/NAME prompt="def " max_tokens=100`."""

import sys

from recipes.app import run
from recipes.generate import main_with, take_texts

if __name__ == "__main__":
    texts, sys.argv[1:] = take_texts(sys.argv[1:])
    run("generate", main_with(texts))
