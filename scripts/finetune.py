"""Fine-tunes a checkpoint: `python scripts/finetune.py checkpoint=runs/NAME method=lora data.path=FOLDER_OF_JSONL`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("finetune")
