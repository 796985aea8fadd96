"""JSON lines as a corpus."""

from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.data.corpora import JsonlConfig


def documents(tmp_path: Path, content: bytes, **settings: object) -> list[tuple[str, str]]:
    (tmp_path / "data.jsonl").write_bytes(content)
    corpus = JsonlConfig(path=str(tmp_path), **settings).open()
    return [(each.text, each.source.rpartition("/")[2]) for each in corpus.documents()]


def test_each_line_is_an_object_and_blank_lines_are_none(tmp_path):
    content = '\ufeff{"text": "größer\\nx", "n": 1}\r\n\n{"n": [2], "text": ""}\n  \n{"text": "end"}'
    assert documents(tmp_path, content.encode()) == [
        ("größer\nx", "data.jsonl:1"),
        ("", "data.jsonl:3"),
        ("end", "data.jsonl:5"),
    ]


def test_the_field_can_be_chosen(tmp_path):
    assert documents(tmp_path, b'{"text": "no", "story": "yes"}', field="story") == [("yes", "data.jsonl:1")]


def test_of_a_folder_only_files_of_json_lines_are_read(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"no JSON")
    assert documents(tmp_path, b'{"text": "x"}') == [("x", "data.jsonl:1")]


def test_equal_texts_are_on_the_same_side(tmp_path):
    (tmp_path / "data.jsonl").write_text(
        "".join(f'{{"text": "t{index % 40}"}}\n' for index in range(120)), encoding="utf-8"
    )
    corpus = JsonlConfig(path=str(tmp_path), validation_fraction=0.3).open()
    sides = {(each.text, each.split) for each in corpus.documents()}
    assert len(sides) == 40
    assert {split for _, split in sides} == {"train", "validation"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', "must be a JSON object; Expecting ',' delimiter at column"),
        (b'{"text": "x"} {}', "must be a JSON object; Extra data at column 15"),
        (b'["text"]', "must be a JSON object; got list"),
        (b"1" * 5000, "must be a JSON object; Exceeds the limit"),
        (b"[" * 200_000, "must be a JSON object; it is nested too deeply"),
        (b'{"txt": "x", "id": 3}', r"data\.field must be a field of the records; got 'text' \(choices: id, txt\)"),
        (b"{}", r"data\.field must be a field of the records; got 'text' \(choices: none\)"),
        (b'{"text": 3.5}', "field 'text' must hold a text; got 3.5"),
        (b'{"text": null}', "field 'text' must hold a text; got None"),
        (b'{"text": "a\\ud800"}', "must hold Unicode text; got a lone surrogate at character 2"),
        (b'{"text": "\xff"}', "must be UTF-8; got byte 0xff at column 11"),
    ],
)
def test_a_broken_line_is_refused_by_file_and_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"data\.jsonl:3: .*{message}") as raised:
        documents(tmp_path, b'{"text": "x"}\n\n' + line + b'\n{"text": "y"}')
    assert "\n" not in str(raised.value)
