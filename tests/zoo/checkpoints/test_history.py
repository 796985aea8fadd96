import errno
import re
import shutil

import pytest

from tests.zoo.checkpoints.saved import small_model, small_optimizer
from zoo.checkpoints import History
from zoo.config import UserError


def save(history, step):
    model = small_model()
    return history.save(
        step, model=model, tokenizer=None, optimizer_state=small_optimizer(model).state, training_state={}, config={}
    )


def test_the_newest_few_stay_in_the_order_of_their_steps(tmp_path):
    history = History(tmp_path / "checkpoints", keep=2)
    assert (history.steps(), history.newest()) == ([], None)
    for step in (5, 20, 1_000_000):
        folder = save(history, step)
        assert history.newest() == folder
    assert history.steps() == [20, 1_000_000]


def test_only_checkpoints_count_as_checkpoints(tmp_path):
    history = History(tmp_path)
    for name in ("step_best", "step_000003.old", "notes"):
        (tmp_path / name).mkdir()
    save(history, 7)
    assert history.steps() == [7]
    assert (tmp_path / "notes").is_dir()


@pytest.mark.parametrize("name", ["step_7", "step_0000007", "step_٠٠٠٠٠٧", "step_000009x"])
def test_a_folder_of_another_spelling_is_no_checkpoint(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / "step_000008").write_text("a file")
    assert History(tmp_path).newest() is None


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    (tmp_path / ".partial-step_000003-123").mkdir(parents=True)
    (tmp_path / ".partial-last").symlink_to("nowhere")
    save(History(tmp_path), 7)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000007"]


@pytest.mark.parametrize("form", ["a link", "a dangling link", "a resolved copy", "somebody's folder"])
def test_a_run_with_the_link_of_earlier_versions_goes_on(form, tmp_path):
    save(History(tmp_path), 7)
    if form == "a resolved copy":
        shutil.copytree(tmp_path / "step_000007", tmp_path / "last")
    elif form == "somebody's folder":
        (tmp_path / "last").mkdir()
    else:
        (tmp_path / "last").symlink_to("step_000007" if form == "a link" else "step_000001")
    for step in (8, 9):
        save(History(tmp_path), step)
    mine = ["last"] if form == "somebody's folder" else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*mine, "step_000009"]


def test_what_cannot_be_dropped_is_named(tmp_path, monkeypatch):
    def refuse(path, **_):
        if "dropped" in path.name:
            raise PermissionError(errno.EACCES, "no")

    history = History(tmp_path)
    save(history, 7)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(UserError, match=f"^checkpoint: {re.escape(str(tmp_path))} must be writable; no$"):
        save(history, 8)
    assert history.newest().name == "step_000008"
