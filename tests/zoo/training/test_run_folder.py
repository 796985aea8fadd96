import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.config import UserError
from zoo.training.run_folder import RunFolder


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "run"
    with pytest.raises(UserError, match=f"run_dir must be a writable folder; got '{re.escape(str(path))}'"):
        RunFolder(path).__enter__()


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
    take = f"""
from pathlib import Path
from zoo.training.run_folder import RunFolder
RunFolder(Path({str(tmp_path)!r})).__enter__()
"""
    root = Path(__file__).resolve().parents[3]
    with RunFolder(tmp_path), pytest.raises(UserError, match="run_dir must not be in use"):
        RunFolder(tmp_path).__enter__()
    with RunFolder(tmp_path):
        done = subprocess.run([sys.executable, "-c", take], cwd=root, capture_output=True, text=True, check=False)
    assert "run_dir must not be in use" in done.stderr
    with RunFolder(tmp_path) as again:
        assert not again.holds_run


def test_description_and_result_are_read_as_they_were_written(tmp_path):
    with RunFolder(tmp_path / "deep" / "run") as folder:
        assert (folder.holds_run, folder.result()) == (False, None)
        folder.write_description({"seed": 3, "text": "zoö"}, {"overrides": []}, {"device": "x"})
        folder.write_result({"val_loss": 0.1 + 0.2})
        assert folder.holds_run
        assert folder.result() == {"val_loss": 0.1 + 0.2}
        assert yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8")) == {"seed": 3, "text": "zoö"}
        assert not list(folder.path.glob("*.partial"))


def test_a_folder_made_for_a_run_that_could_not_begin_goes_again(tmp_path):
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "new" / "deep", tmp_path / "there"):
        with pytest.raises(UserError, match="no data"), RunFolder(path):
            raise UserError("no data")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_holds_something_stays(tmp_path):
    folder = RunFolder(tmp_path / "run").__enter__()
    folder.write_result({})
    error = UserError("too late")
    folder.__exit__(UserError, error, None)
    assert (tmp_path / "run" / "result.json").is_file()


def test_checkpoints_alone_are_a_run(tmp_path):
    with RunFolder(tmp_path) as folder:
        (folder.checkpoints / "step_000003").mkdir(parents=True)
        assert folder.holds_run


@pytest.mark.parametrize("content", ["{", "[]", "3", ""])
def test_a_damaged_result_is_none(content, tmp_path):
    with RunFolder(tmp_path) as folder:
        (tmp_path / "result.json").write_text(content)
        assert folder.result() is None


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "config.yaml" / "x").mkdir(parents=True)
    with RunFolder(tmp_path) as folder, pytest.raises(UserError, match=r"config\.yaml must be writable; got "):
        folder.write_description({}, {}, {})
