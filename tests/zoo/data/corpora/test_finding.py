"""Which files a corpus is: each real file once, however it is spelled, linked or given."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.config import UserError
from zoo.data.corpora import DataConfig, JsonlConfig, ParquetConfig, TextConfig, documents_of
from zoo.data.corpora.files import PART_BYTES

SPLITS = ("train", "validation")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of texts: two called alike, one of another name."""
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path / "c")
    write({"en/train.txt": "English", "de/train.txt": "German", "a.txt": "a letter"})
    return tmp_path / "c"


def write(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


def sides(*paths: str, **settings: object) -> dict[str, str]:
    """Split by text; every text must be there once."""
    documents = [(each.text, each.split) for each in documents_of(TextConfig(path=paths, **settings).open())]
    assert len(dict(documents)) == len(documents)
    return dict(documents)


def names(*paths: str) -> list[str]:
    return [file.name for file in TextConfig(path=paths).open().files]


def test_of_files_called_alike_exactly_one_is_held_out(folder):
    assert sorted(sides("en/train.txt", "de/train.txt", "a.txt").values()) == ["train", "train", "validation"]
    assert sorted(sides("en", "de").values()) == ["train", "validation"]


@pytest.mark.parametrize("first", ["en/train.txt", "./en/../en//train.txt", "{}/en/train.txt", "en", "en/*.txt"])
def test_the_split_does_not_depend_on_the_spelling(folder, first):
    expected = sides("en/train.txt", "de/train.txt", "a.txt", documents="file")
    assert sides(first.format(folder), "de/train.txt", "a.txt", documents="file") == expected


@pytest.mark.parametrize(
    "link",
    [
        lambda old, new: new.symlink_to(old.absolute()),
        lambda old, new: new.hardlink_to(old),
        lambda old, new: new.with_suffix(".folder").symlink_to(old.absolute().parent),
    ],
)
def test_a_file_and_links_to_it_are_one_file(folder, link):
    before = sides("en", "de", "a.txt")
    for name in ("0", "en/0", "z", "de/z"):
        link(Path("en/train.txt"), Path(name))
    for paths in (["en", "de", "a.txt"], ["a.txt", "de", "en"], ["./en/train.txt", ".", "de/*", "**/*.txt"]):
        found = sides(*paths)
        assert found.keys() == before.keys()
        assert sorted(found.values()) == ["train", "train", "validation"]
    # The name that is no link is the file's.
    assert names("en") in (["train.txt"], ["0"])


def test_files_of_one_content_are_on_one_side(folder):
    write({f"copies/{number}.txt": "English" for number in range(9)})
    documents = [(each.text, each.split) for each in TextConfig(path=".", validation_fraction=0.4).open().documents()]
    assert len({split for text, split in documents if text == "English"}) == 1
    assert {split for _, split in documents} == {"train", "validation"}


@pytest.mark.parametrize("documents", ["auto", "file", "blank_line"])
@pytest.mark.parametrize("fraction", [0.05, 0.9])
def test_of_nothing_but_copies_no_text_is_on_both_sides(folder, documents, fraction):
    lines = "".join(f"line {number} of the only text there is\n" for number in range(40))
    write({"copies/a": lines, "copies/b": lines, "copies/c": " \n", "other/a": lines})
    corpus = TextConfig(path=("copies", "other"), documents=documents, validation_fraction=fraction).open()
    found = {split: [each.text for each in documents_of(corpus) if each.split == split] for split in SPLITS}
    assert "".join(found["train"] + found["validation"]) == lines
    assert all(found.values())


def write_jsonl(path: Path, text: str) -> None:
    path.write_text(f'{{"text": "{text}"}}\n', encoding="utf-8")


def write_parquet(path: Path, text: str) -> None:
    pq.write_table(pa.table({"text": [text]}), path)


KINDS: dict[str, tuple[type[DataConfig], Callable[[Path, str], object]]] = {
    "txt": (TextConfig, lambda path, text: path.write_text(text, encoding="utf-8")),
    "jsonl": (JsonlConfig, write_jsonl),
    "parquet": (ParquetConfig, write_parquet),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "held_out", ["c/val", "./c//val", "{}/c/val", "c/v*", "linked", "hard", "folder", "copy", "marked", "c/[v]al"]
)
@pytest.mark.parametrize("path", ["c", "c/*", "**/*"])
def test_what_is_validated_on_is_never_trained_on(tmp_path, monkeypatch, kind, held_out, path):
    monkeypatch.chdir(tmp_path)
    config, write_text = KINDS[kind]
    Path("c").mkdir()
    for name in ("one", "two", "val"):
        write_text(Path(f"c/{name}.{kind}"), f"text {name}")
    Path(f"linked.{kind}").symlink_to(f"c/val.{kind}")
    os.link(f"c/val.{kind}", f"hard.{kind}")
    Path(f"copy.{kind}").write_bytes(Path(f"c/val.{kind}").read_bytes())
    # Parquet knows no byte order mark.
    Path(f"marked.{kind}").write_bytes(b"\xef\xbb\xbf" * (kind != "parquet") + Path(f"c/val.{kind}").read_bytes())
    Path("folder").mkdir()
    Path(f"folder/any.{kind}").symlink_to(f"../c/val.{kind}")
    validation = held_out.format(tmp_path) + ("" if held_out == "folder" else f".{kind}")
    corpus = config(path=path, validation_path=validation).open()
    found = [(each.text, each.split) for each in documents_of(corpus)]
    assert sorted(found) == [("text one", "train"), ("text two", "train"), ("text val", "validation")]
    with pytest.raises(UserError, match=r"^data\.path must hold files that are not in data\.validation_path as well"):
        config(path=validation, validation_path="c").open().fingerprint()


def test_a_part_of_a_path_that_exists_is_no_wildcard(folder):
    write(
        {
            "exp[12]/x.txt": "literal",
            "exp[12]/y.md": "beside",
            "exp1/x.txt": "one",
            "exp2/[x].txt": "brackets",
            "exp2/x.txt": "two",
        }
    )
    assert sides("exp[12]/*.txt", documents="file").keys() == {"literal"}
    assert sides("exp[12]", documents="file").keys() == {"literal", "beside"}
    assert sides("exp?/[x].txt", documents="file").keys() == {"one", "brackets"}
    write({"*/only.txt": "star"})
    assert sides("*/*.txt", documents="file").keys() == {"star"}
    with pytest.raises(UserError, match=r"data\.path must be an existing file, .*'exp\[12\]/y\.txt'.*choices .*x\.txt"):
        sides("exp[12]/y.txt")


def test_linked_folders_are_followed_and_circles_end(folder, tmp_path):
    write({"../elsewhere/deep/far.txt": "far"})
    Path("en/link").symlink_to("../../elsewhere")
    Path("../elsewhere/deep/up").symlink_to("..")
    Path("en/self").symlink_to(".")
    Path("again").symlink_to("en")
    assert names("en") == ["link/deep/far.txt", "train.txt"]
    assert names("en/**") == ["link/deep/far.txt", "train.txt"]
    assert names("**/far.txt") == ["en/link/deep/far.txt"]
    assert names(".") == ["a.txt", "de/train.txt", "en/link/deep/far.txt", "en/train.txt"]
    assert sides(".").keys() == {"English", "German", "a letter", "far"}


def test_what_is_no_file_is_left_out_with_a_line_and_never_waited_for(folder, caplog):
    os.mkfifo("en/pipe.txt")
    Path("en/gone.txt").symlink_to("nowhere")
    Path("en/circle.txt").symlink_to("circle.txt")
    Path("en/folder.txt").mkdir()
    assert names("en") == names("en/*") == ["train.txt"]
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "'circle.txt', 'gone.txt', 'pipe.txt'"
    ] * 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pipe", "data.path must be a file, folder or glob; got 'pipe', a pipe, a socket or a device"),
        ("/dev/zero", "data.path must be a file, folder or glob; got '/dev/zero', a pipe"),
        ("gone", "data.path must be an existing file, folder or glob; got 'gone', a link that leads nowhere"),
        ("a\0b", r"data.path must be a path that can be looked up; got 'a\x00b' (embedded null byte)"),
        ("~nobody-is-called-so/x", "data.path must begin with a home folder that exists"),
        ("\ud800", r"data.path must be a path that can be looked up; got '\ud800' ("),
        ("x" * 300, "File name too long"),
        ("a.txt/b", "data.path must be an existing file"),
        ("a**b", "data.path: a**b must hold at least one file"),
    ],
)
@pytest.mark.parametrize("corpus", [TextConfig, JsonlConfig])
def test_a_path_that_is_no_corpus_is_one_line(folder, corpus, path, message):
    os.mkfifo("pipe")
    Path("gone").symlink_to("nowhere")
    with pytest.raises(UserError) as raised:
        corpus(path=path).open()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", ["edit", "grow", "vanish", "pipe", "replace"])
def test_a_file_that_changes_before_it_is_read_is_refused(folder, change):
    corpus = TextConfig(path=".").open()
    corpus.fingerprint()
    path = Path("en/train.txt")
    times = path.stat()
    if change in ("vanish", "pipe", "replace"):
        path.unlink()
    if change == "pipe":
        os.mkfifo(path)
    elif change != "vanish":
        path.write_text("Englisch" if change == "grow" else "HSILGNE", encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match=r"^data\.path: en/train\.txt must ") as raised:
        list(corpus.documents())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("corpus", [TextConfig, JsonlConfig])
def test_utf16_is_refused_by_its_name(tmp_path, corpus, encoding):
    (tmp_path / "a").write_bytes('{"text": "a text"}\n'.encode(encoding))
    with pytest.raises(UserError, match=r"data\.path: .*/a: must be UTF-8; it begins like UTF-16 \(iconv"):
        list(corpus(path=str(tmp_path / "a")).open().documents())


@pytest.mark.parametrize("documents", ["file", "blank_line"])
def test_a_byte_order_mark_is_no_text(tmp_path, documents):
    (tmp_path / "a.txt").write_bytes("\ufeffone\n\n\ufefftwo".encode())
    (tmp_path / "empty.txt").write_bytes("\ufeff".encode())
    corpus = TextConfig(path=str(tmp_path), documents=documents).open()
    assert "".join(each.text for each in corpus.documents()).replace("\n", "") == "one\ufefftwo"


@pytest.mark.parametrize("documents", ["file", "blank_line"])
def test_a_line_without_end_is_read_in_parts(tmp_path, documents, monkeypatch):
    monkeypatch.setattr("zoo.data.corpora.files.PART_BYTES", 7)
    text = "größer " * 40 + "  " * 9 + "größer " * 3
    (tmp_path / "a.txt").write_text(f"{text}\nb\n\nc", encoding="utf-8")
    found = list(TextConfig(path=str(tmp_path / "a.txt"), documents=documents).open().documents())
    if documents == "file":
        assert "".join(each.text for each in found) == f"{text}\nb\n\nc"
        assert [each.complete for each in found].count(True) == 1
    else:
        assert "".join(each.text for each in found[:-1]) == f"{text}\nb\n"
        assert (found[-1].text, found[-1].source.rpartition(":")[2]) == ("c", "4")
        assert [each.complete for each in found].count(True) == 2
        assert len({(each.source, each.split) for each in found[:-1]}) == 1
    assert max(len(each.text) for each in found) <= 14


def test_bad_bytes_in_a_long_line_are_found_at_their_column(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x\n" + b"a" * PART_BYTES + "é".encode() + b"\xff\n")
    with pytest.raises(UserError, match=rf"a\.txt:2: .* 0xff at column {PART_BYTES + 3} "):
        list(TextConfig(path=str(tmp_path / "a.txt")).open().documents())
    (tmp_path / "a.txt").write_bytes("cut é".encode()[:-1])
    with pytest.raises(UserError, match=r"a\.txt:1: .* 0xc3 at column 5 \(unexpected end of data\)"):
        list(TextConfig(path=str(tmp_path / "a.txt")).open().documents())


def test_a_record_that_names_its_text_twice_is_refused(tmp_path):
    (tmp_path / "a").write_text('{"text": "a", "n": {"text": 1, "text": 2}}\n{"text": "b", "text": "c"}\n')
    documents = JsonlConfig(path=str(tmp_path / "a")).open().documents()
    assert next(documents).text == "a"
    with pytest.raises(UserError, match=r"a:2: must name field 'text' once; it is there 2 times"):
        next(documents)


def test_a_record_longer_than_a_part_is_whole_and_one_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data.corpora.files.PART_BYTES", 5)
    monkeypatch.setattr("zoo.data.corpora.files.LIMIT_BYTES", 90)
    (tmp_path / "a").write_text(f'{{"text": "{"größe" * 9}"}}\n\n{{"text": "b"}}\n{{"text": "{"b" * 90}"}}\n')
    documents = JsonlConfig(path=str(tmp_path / "a")).open().documents()
    assert [next(documents).text for _ in range(2)] == ["größe" * 9, "b"]
    with pytest.raises(UserError, match=r"a:4: must be a line of at most 90 bytes"):
        next(documents)
