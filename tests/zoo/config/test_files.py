"""Whatever a file holds, the door either gives its value or says in one line what is wrong with which file."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.config.files import (
    LIMIT_DEPTH,
    inside,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_json_mapping,
    read_yaml_mapping,
    replace_file,
    typed_path,
)

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": 1} x',
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * (LIMIT_DEPTH + 2) + b"]" * (LIMIT_DEPTH + 2),
    ],
)
def test_what_is_no_json_is_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path, what="checkpoint")
    assert str(caught.value).startswith(f"checkpoint: {path} must ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", "null", "3", '"a"'])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match="must be a JSON object; got"):
        read_json_mapping(path, what="checkpoint")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\t- a",
        "a: !!python/object/apply:os.getcwd []",
        "a: 2024-99-99 00:00:00",
        "? [1, 2]\n: 3",
        "a: &a [*a]",
        "- " * 500 + "x",
        "a: " + "9" * 5000,
        BOMB,
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, where="configs/x.yaml")
    assert str(caught.value).startswith("configs/x.yaml must ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1: 2", "- a", "null: 1", "text"])
def test_what_is_no_yaml_mapping_of_texts_is_refused(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="must be a mapping whose keys are texts"):
        read_yaml_mapping(path, what="attention")


def test_what_is_json_comes_back(tmp_path):
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": {}}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert read_json(path, what="x") == value
    deep = "[" * LIMIT_DEPTH + "]" * LIMIT_DEPTH
    assert parse_json(deep, where="x") is not None
    assert parse_yaml("a: &x {b: 1}\nc: *x", where="x") == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_pipe_a_device_and_a_folder_are_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        caught = []

        def read(path=path, caught=caught):
            try:
                read_bytes(path, what="checkpoint")
            except UserError as error:
                caught.append(str(error))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(10)
        assert caught, f"{path} was waited for"
        assert str(path) in caught[0]
    with pytest.raises(UserError, match="regular file"):
        read_bytes(tmp_path.joinpath("/dev/zero"), what="checkpoint")


def test_what_calls_itself_regular_and_keeps_readers_waiting_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "log")
    # As the kernel's own log does.
    monkeypatch.setattr(stat, "S_ISREG", lambda mode: True)
    with pytest.raises(UserError, match="must be a regular file"):
        read_bytes(tmp_path / "log", what="rows")


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "big.json"
    with path.open("wb") as stream:
        stream.truncate(10 * 2**40)
    with pytest.raises(UserError, match="at most 1000 bytes"):
        read_bytes(path, what="checkpoint", limit=1000)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/.", "link/x", "a\0b"])
def test_names_in_files_never_lead_out_of_their_folder(tmp_path, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        inside(tmp_path / "here", name, what="checkpoint")
    assert inside(tmp_path / "here", "a/b.json", what="checkpoint") == tmp_path / "here" / "a" / "b.json"


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    replace_file(path, "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["~nouser/x", "~nouser", "a\0b", "a" * 5000, "\ud800"])
def test_a_path_that_no_file_can_have_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(UserError, match=r"^run_dir must ") as refused:
        typed_path(text, what="run_dir")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_a_path_that_leads_nowhere_yet_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, path in (("~/a/b", tmp_path / "a" / "b"), ("~/file/b", tmp_path / "file" / "b"), ("./~x", Path("~x"))):
        assert typed_path(text, what="run_dir") == path


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="must be a path that can be looked up"):
        typed_path(str(tmp_path / "loop"), what="run_dir")
