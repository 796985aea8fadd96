"""Text files as a corpus, and what all corpora of files have in common."""

import os
from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.data.corpora import TextConfig, data_config_from_mapping, documents_of, files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"b.txt": "second\n", "a/c.md": "first", "a/d.txt": "\ufeffthird\r\n", ".git/x": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def texts(path: Path | str | tuple[str, ...], documents: str = "auto") -> list[str]:
    config = TextConfig(path=path if isinstance(path, tuple) else str(path), documents=documents)
    return [each.text for each in config.open().documents()]


def test_a_folder_stands_for_its_visible_files_in_order(folder):
    assert texts(folder) == ["first", "third\r\n", "second\n"]


def test_a_file_name_that_is_no_text_is_no_obstacle(tmp_path):
    for index in range(5):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff%d.txt" % index)).write_text(f"text {index}")
    corpus = TextConfig(path=str(tmp_path)).open()
    assert len(corpus.fingerprint()) == 64
    assert sorted(each.text for each in documents_of(corpus)) == [f"text {index}" for index in range(5)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["second\n"]),
        ("**/*.txt", ["third\r\n", "second\n"]),
        ("a/?.md", ["first"]),
        ("[ab]/**", ["first", "third\r\n"]),
    ],
)
def test_globs(folder, pattern, expected):
    assert texts(folder / pattern, "file") == expected


def test_a_list_of_paths_is_read_in_turn_and_each_file_once(folder):
    assert texts((str(folder / "b.txt"), str(folder / "a"), str(folder / "*.txt"))) == [
        "second\n",
        "first",
        "third\r\n",
    ]


def test_relative_paths_start_in_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert texts("a") == texts("a/*") == ["first", "third\r\n"]


def test_a_single_file_is_split_at_blank_lines(tmp_path):
    (tmp_path / "book.txt").write_bytes(b"\n\none\ntwo\n \t\n\nthree\n\nfour")
    documents = list(TextConfig(path=str(tmp_path / "book.txt")).open().documents())
    assert [each.text for each in documents] == ["one\ntwo\n", "three\n", "four"]
    assert [each.source.rpartition(":")[2] for each in documents] == ["3", "7", "9"]


def test_a_single_file_can_be_one_document(tmp_path):
    (tmp_path / "book.txt").write_bytes(b"\none\n\ntwo")
    assert texts(tmp_path / "book.txt", "file") == ["\none\n\ntwo"]


def test_many_files_can_be_split_at_blank_lines(folder):
    (folder / "b.txt").write_text("x\n\ny", encoding="utf-8")
    assert texts(folder, "blank_line") == ["first", "third\r\n", "x\n", "y"]


def test_a_long_document_comes_in_parts_that_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_BYTES", 10)
    text = "one line\nanother line\r\n\n\nx\n" + "long " * 9 + "\nend"
    (tmp_path / "long.txt").write_bytes(text.encode())
    (tmp_path / "short.txt").write_bytes(b"short")
    documents = list(TextConfig(path=str(tmp_path)).open().documents())
    assert "".join(each.text for each in documents) == text + "short"
    assert [each.complete for each in documents][-2:] == [True, True]
    assert not any(each.complete for each in documents[:-2])
    assert max(len(each.text) for each in documents) <= 2 * 10
    assert len({each.split for each in documents[:-1]}) == 1


def test_validation_files_of_their_own_leave_the_others_for_training(folder):
    config = TextConfig(path=str(folder / "a"), validation_path=str(folder / "b.txt"), validation_fraction=0.9)
    assert {each.text: each.split for each in documents_of(config.open())} == {
        "first": "train",
        "third\r\n": "train",
        "second\n": "validation",
    }


def test_the_fingerprint_follows_content_names_and_settings_but_not_the_folder(folder, tmp_path_factory):
    def fingerprint(where: Path, **settings: object) -> str:
        return TextConfig(path=str(where), **settings).open().fingerprint()

    copy = tmp_path_factory.mktemp("copy")
    for name in ("b.txt", "a/c.md", "a/d.txt"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes((folder / name).read_bytes())
    prints = [
        fingerprint(folder),
        fingerprint(folder, documents="blank_line"),
        fingerprint(folder, validation_fraction=0.1),
    ]
    prints += [fingerprint(folder / "a"), fingerprint(folder, validation_path=str(folder / "b.txt"))]
    assert fingerprint(copy) == fingerprint(folder, mask_documents=True, packing="documents") == prints[0]
    (copy / "b.txt").rename(copy / "e.txt")
    prints.append(fingerprint(copy))
    assert len(set(prints)) == len(prints)


def test_a_missing_path_is_refused_with_what_is_there_instead(folder):
    with pytest.raises(UserError, match=r"^data\.path must be an existing file, .*missing.*: a, b\.txt\)$"):
        TextConfig(path=str(folder / "missing")).open()
    with pytest.raises(UserError, match=r": b\.txt, a\)$"):
        TextConfig(path=str(folder / "B.txt")).open()
    with pytest.raises(UserError, match=r"^data\.validation_path must .* there is no folder .*nowhere$"):
        TextConfig(path=str(folder), validation_path=str(folder / "nowhere" / "x")).open()


@pytest.mark.parametrize("path", ["*.rst", "empty"])
def test_a_path_without_files_is_refused(folder, path):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="must hold at least one file"):
        TextConfig(path=str(folder / path)).open()


@pytest.mark.parametrize("documents", ["file", "blank_line"])
def test_bytes_that_are_no_text_are_refused_by_file_and_line(tmp_path, documents):
    (tmp_path / "bad.txt").write_bytes("größe\nx\n".encode() + b"ab\xffc\n")
    with pytest.raises(UserError, match=r"bad\.txt:3: must be UTF-8; got byte 0xff at column 3"):
        texts(tmp_path, documents)


@pytest.mark.parametrize("path", [None, "", [], ["a", ""]])
def test_a_path_has_to_be_given(path):
    with pytest.raises(UserError, match=r"^data: path must name .*file, folder or glob"):
        data_config_from_mapping({"corpus": "text", "path": path})


def test_an_unknown_corpus_or_key_is_refused_with_the_choices():
    with pytest.raises(UserError, match=r"^data: corpus .*'texts' \(choices: stdlib, text, jsonl, parquet, hub\)$"):
        data_config_from_mapping({"corpus": "texts"})
    with pytest.raises(UserError, match=r"^data: unknown key 'pth'; did you mean 'path'\?"):
        data_config_from_mapping({"corpus": "text", "pth": "x"})
    with pytest.raises(UserError, match=r"^data: validation_fraction must lie between 0 and 1; got 1\.0$"):
        data_config_from_mapping({"corpus": "stdlib", "validation_fraction": 1})


def test_a_config_survives_its_mapping():
    config = TextConfig(path=("a", "b"), documents="file", validation_fraction=0.25)
    assert data_config_from_mapping(config.as_mapping()) == config


def test_of_several_files_one_is_held_out_however_small_the_fraction_and_long_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_BYTES", 4)
    for name in ("a.txt", "b.txt", "c.txt", "empty.txt"):
        (tmp_path / name).write_text("" if name == "empty.txt" else f"{name}\nof several\nparts\n", encoding="utf-8")
    for fraction in (0.001, 0.02):
        config = TextConfig(path=str(tmp_path), validation_fraction=fraction)
        splits = {Path(each.source).name: each.split for each in documents_of(config.open())}
        assert sorted(splits.values()) == ["train", "train", "validation"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1e300, float("nan"), float("inf"), True, "0.1", None, [0.1], 10**400])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(UserError, match=r"^data(: |\.)validation_fraction must ") as raised:
        data_config_from_mapping({"corpus": "text", "path": "x", "validation_fraction": fraction})
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("number", [1, 0, -5, 2.5, True, "3", float("inf")])
def test_a_number_of_documents_that_is_none_is_refused(number):
    with pytest.raises(UserError, match=r"^data(: |\.)max_documents must "):
        data_config_from_mapping({"corpus": "hub", "path": "x", "max_documents": number})
