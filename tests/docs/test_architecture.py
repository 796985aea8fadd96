"""The ways that docs/architecture.md describes: their files are there, and a training goes through them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
MOST = 12
# Trains for two steps, and prints the files of which it called a function.
TRACE = """
import sys, threading
root, *overrides = sys.argv[1:]
called = set()

def note(frame, event, argument):
    # What runs at import is no call; neither is the body of a class.
    if event == "call" and frame.f_code.co_name != "<module>" and frame.f_code.co_flags & 1:
        called.add(frame.f_code.co_filename)

sys.setprofile(note)
threading.setprofile(note)
from recipes.app import execute
from recipes.train import main
assert execute("train", main, overrides) == 0
sys.setprofile(None)
print("\\n".join(sorted(name.removeprefix(root + "/") for name in called if name.startswith(root))))
"""
SMALL = ["training.steps=2", "training.sequence_length=32", "training.batch_size=2", "model.num_layers=1"]
SMALL += ["training.sample_tokens=0", "training.eval_batches=1", "data=text", "tokenizer.vocab_size=520"]


def ways() -> dict[str, list[str]]:
    """Title of each way -> the file that each of its steps begins with."""
    _, *sections = re.split(r"^## (The way of .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        title: re.findall(r"^\d+\. `([^`]+)`", text, flags=re.MULTILINE)
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.mark.parametrize("title", ways())
def test_a_way_is_short_and_its_files_are_there(title: str) -> None:
    files = ways()[title]
    assert 5 <= len(files) <= MOST
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_a_training_goes_through_every_module_that_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"def f{index}(x):\n    return x + {index}\n" for index in range(400)))
    run = subprocess.run(
        [sys.executable, "-c", TRACE, str(ROOT), *SMALL, f"data.path={text}", f"run_dir={tmp_path / 'run'}",
         "attention=blocksparse"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    called = set(run.stdout.split())
    named = [name for title, files in ways().items() if "to a record" not in title for name in files]
    modules = [name for name in named if name.endswith(".py") and name.startswith(("zoo/", "recipes/"))]
    assert len(modules) > 15
    assert [name for name in modules if name not in called] == []
