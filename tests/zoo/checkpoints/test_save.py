import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tests.zoo.checkpoints.saved import save_all, small_model, small_optimizer
from zoo.checkpoints import History, VerifiedFiles, load_checkpoint, restore_optimizer, save_checkpoint, verify_manifest
from zoo.config import UserError

ROOT = Path(__file__).resolve().parents[3]


def test_everything_comes_back_bit_for_bit(tmp_path):
    model = small_model(seed=8)
    folder = save_all(tmp_path / "one", model)
    loaded = load_checkpoint(folder)
    assert loaded.model.config == model.config
    for (name, expected), (found_name, found) in zip(
        tree_flatten(model.parameters()), tree_flatten(loaded.model.parameters()), strict=True
    ):
        assert name == found_name
        assert expected.dtype == found.dtype
        assert mx.array_equal(expected, found).item(), name
    assert loaded.training_state == {"step": 4, "loss": 0.1 + 0.2}
    assert loaded.config == {"seed": 3}
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("zoö")) == "zoö"
    assert not loaded.model.training


def test_optimizer_state_comes_back_bit_for_bit(tmp_path):
    model = small_model()
    optimizer, fresh = small_optimizer(model), small_optimizer(model)
    for _ in range(3):
        optimizer.update(model, model.parameters())
    folder = save_checkpoint(tmp_path / "one", model=model, optimizer_state=optimizer.state)
    with VerifiedFiles(folder) as files:
        restore_optimizer(fresh, files)
    expected, found = tree_flatten(optimizer.state), tree_flatten(fresh.state)
    assert [name for name, _ in expected] == [name for name, _ in found]
    assert all(
        a.dtype == b.dtype and mx.array_equal(a, b).item() for (_, a), (_, b) in zip(expected, found, strict=True)
    )
    assert dict(found)["states.0.step"].item() == 3


def test_an_optimizer_of_another_kind_is_refused(tmp_path):
    model = small_model()
    folder = save_checkpoint(tmp_path / "one", model=model)
    with VerifiedFiles(folder) as files, pytest.raises(UserError, match="saved without an optimizer"):
        restore_optimizer(small_optimizer(model), files)


def test_an_existing_folder_is_never_overwritten(tmp_path):
    folder = save_all(tmp_path / "one")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="must be a new folder"):
        save_all(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="must be writable"):
        save_all(tmp_path / "file" / "one")


SAVER = """
import itertools, sys
from pathlib import Path
from tests.zoo.checkpoints.saved import TOKENIZER, small_model, small_optimizer
from zoo.checkpoints import History
import zoo.checkpoints.history, zoo.checkpoints.save, zoo.config.folders

folder, die_at = Path(sys.argv[1]), sys.argv[2]

def dying(module, name):
    import os
    original = getattr(module, name)
    def deadly(*arguments, **options):
        if (History(folder).steps() or [0])[-1] >= 3:
            os._exit(9)
        return original(*arguments, **options)
    setattr(module, name, deadly)

if die_at != "any moment":
    module, name = die_at.rsplit(".", 1)
    dying(eval(module), name)
model = small_model(hidden_size=64)
optimizer = small_optimizer(model)
history = History(folder, keep=1)
start = (history.steps() or [0])[-1] + 1
for step in itertools.count(start):
    state = {"optimizer_state": optimizer.state, "training_state": {"step": step}}
    history.save(step, model=model, tokenizer=TOKENIZER, config={}, **state)
    print(step, flush=True)
"""


def start_saving(folder, die_at):
    return subprocess.Popen(
        [sys.executable, "-c", SAVER, str(folder), die_at],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "die_at",
    [
        "zoo.checkpoints.save.write_manifest",
        "zoo.config.folders.sync",
        "zoo.checkpoints.history.History._prune",
        "zoo.checkpoints.history.shutil.rmtree",
    ],
)
def test_a_death_at_any_stage_leaves_the_last_good_checkpoint(die_at, tmp_path):
    process = start_saving(tmp_path, die_at)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 9, errors
    history = History(tmp_path, keep=1)
    newest = history.newest()
    verify_manifest(newest)
    assert load_checkpoint(newest).training_state == {"step": history.steps()[-1]}
    model = small_model()
    history.save(
        99, model=model, tokenizer=None, optimizer_state=small_optimizer(model).state, training_state={}, config={}
    )
    assert History(tmp_path).steps()[-1] == 99
    assert [path.name for path in tmp_path.iterdir()] == ["step_000099"]


@pytest.mark.slow
def test_a_kill_at_a_random_moment_leaves_a_good_checkpoint(tmp_path):
    generator = random.Random(4)
    for _ in range(6):
        process = start_saving(tmp_path, "any moment")
        assert process.stdout.readline(), process.stderr.read()
        time.sleep(generator.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        history = History(tmp_path)
        assert history.newest() is not None
        for step in history.steps():
            verify_manifest(history.path(step))


def test_the_manifest_is_written_last(tmp_path):
    folder = save_all(tmp_path / "one")
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
