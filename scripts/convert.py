"""Takes a model back to other tools: `python scripts/convert.py checkpoint=runs/NAME out=FOLDER`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("convert")
