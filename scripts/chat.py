"""Chats with a checkpoint: `python scripts/chat.py checkpoint=runs/NAME`."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    run_path(str(Path(__file__).resolve().with_name("_start.py")))["start"]("chat")
