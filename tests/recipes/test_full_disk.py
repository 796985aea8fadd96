"""The disk fills up while a run writes to its folder."""

import os

import mlx.core as mx
import pytest

from tests.full_disk import FullDisk

SHORT = (
    "training.steps=2",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=1",
    "training.log_every=1",
    "training.eval_every=null",
    "training.sample_tokens=1",
    "model.dropout=0.2",
)
# Every single change, which takes minutes, if this is set; else the last write to each file.
EVERY_CHANGE = "ZOO_TEST_EVERY_CHANGE"


def weights(folder):
    arrays = dict(mx.load(str(folder / "checkpoints" / "step_000002" / "model.safetensors")))
    return {name: array.tolist() for name, array in arrays.items()}


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_is_one_line_and_loses_nothing(train, tmp_path):
    whole = FullDisk(tmp_path / "whole", fails_from=None)
    with whole.entered():
        train(f"run_dir={whole.folder}", *SHORT)
    expected, last = weights(whole.folder), {}
    for number, change in enumerate(whole.changes, 1):
        what, _, name = change.partition(" ")
        if what == "write" or os.environ.get(EVERY_CHANGE):
            last[number if os.environ.get(EVERY_CHANGE) else name.rpartition("/")[2]] = number
    for number in last.values():
        disk = FullDisk(tmp_path / f"run-{number}", fails_from=number)
        with disk.entered():
            code, result, errors = train.attempt(f"run_dir={disk.folder}", *SHORT)
        where = f"change {number}: {disk.changes[-1]}: {errors}"
        assert (code, result) == (2, None), where
        assert errors.count("error: ") == 1, where
        assert "Traceback" not in errors, where
        assert errors.splitlines()[-1].startswith("error: "), where
        assert not list(disk.folder.rglob("*artial*")), where
        train(f"run_dir={disk.folder}", "resume=auto", *SHORT)
        assert weights(disk.folder) == expected, where
