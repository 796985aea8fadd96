"""Says how good a trained model is: `python scripts/evaluate.py checkpoint=runs/NAME tasks=[language,positions]`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("evaluate")
