"""Data sets of the Hub: a folder laid out like one, and a server that answers as the Hub does."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.config import UserError
from zoo.data.corpora import HubConfig


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


def data_set(folder: Path, splits: dict[str, list[str]]) -> Path:
    folder.mkdir(parents=True)
    for split, texts in splits.items():
        pq.write_table(
            pa.table({"n": list(range(len(texts))), "text": texts}), folder / f"{split}-00000-of-00001.parquet"
        )
    return folder


def read(path: Path, **settings: object) -> list[tuple[str, str, str]]:
    corpus = HubConfig(path=str(path), **settings).open()
    return [(each.text, each.split, each.source.rpartition("/")[2]) for each in corpus.documents()]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folders_own_validation_split_is_used(tmp_path, streaming):
    folder = data_set(tmp_path / "set", {"train": ["a", "b"], "validation": ["c"], "test": ["d"]})
    expected = [("a", "train", "train[0]"), ("b", "train", "train[1]"), ("c", "validation", "validation[0]")]
    assert read(folder, streaming=streaming) == expected
    chosen = read(folder, streaming=streaming, train_split="validation", validation_split="test")
    assert chosen == [("c", "train", "validation[0]"), ("d", "validation", "test[0]")]


def test_without_a_validation_split_a_part_is_held_out(tmp_path):
    folder = data_set(tmp_path / "set", {"train": [f"text {index}" for index in range(200)]})
    sides = [side for _, side, _ in read(folder, validation_fraction=0.25)]
    assert 0.1 < sides.count("validation") / 200 < 0.4


@pytest.mark.parametrize("streaming", [False, True])
def test_no_more_records_are_read_than_wanted(tmp_path, streaming):
    folder = data_set(tmp_path / "set", {"train": ["a", "b", "c"], "validation": ["d", "e", "f", "g"]})
    assert [text for text, _, _ in read(folder, streaming=streaming, max_documents=2)] == ["a", "b", "d", "e"]


def test_slices_of_splits_work(tmp_path):
    folder = data_set(tmp_path / "set", {"train": [str(index) for index in range(10)]})
    found = read(folder, train_split="train[:30%]", validation_split="train[90%:]")
    assert [text for text, _, _ in found] == ["0", "1", "2", "9"]


def test_the_fingerprint_follows_what_is_read(tmp_path):
    folder = data_set(tmp_path / "set", {"train": ["a", "b"]})
    before = HubConfig(path=str(folder)).open().fingerprint()
    assert HubConfig(path=str(folder), packing="documents", streaming=True).open().fingerprint() == before
    assert HubConfig(path=str(folder), max_documents=2).open().fingerprint() != before
    path = folder / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"text": ["a", "c", "d"]}), path)
    os.utime(path, (1, 1))
    assert HubConfig(path=str(folder)).open().fingerprint() != before


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_is_known_by_its_content_and_not_by_place_or_times(tmp_path, streaming):
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    os.utime(path, (1, 1))

    def found(folder: Path) -> tuple[str, list[str]]:
        corpus = HubConfig(path=str(folder), streaming=streaming).open()
        return corpus.fingerprint(), [each.text for each in corpus.documents()]

    before = found(tmp_path / "set")
    os.utime(path, (2, 2))
    assert found(tmp_path / "set") == before
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert found(tmp_path / "copy") == before
    path.write_text('{"text": "one"}\n{"text": "TWO"}\n', encoding="utf-8")
    os.utime(path, (2, 2))
    after = found(tmp_path / "set")
    assert after[1] == ["one", "TWO"]
    assert after[0] != before[0]


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path):
    folder = data_set(tmp_path / "set", {"train": ["a", "b"]})
    corpus = HubConfig(path=str(folder), streaming=True).open()
    data_set(tmp_path / "other", {"train": ["c", "d"]}).joinpath("train-00000-of-00001.parquet").replace(
        folder / "train-00000-of-00001.parquet"
    )
    with pytest.raises(UserError, match=r"train-.* must stay as it is while it is read"):
        list(corpus.documents())


@pytest.mark.parametrize("name", ["text", "json", "csv", "parquet", "arrow", "imagefolder", "webdataset"])
def test_the_name_of_a_format_is_refused_with_what_helps(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data_set(tmp_path / name, {"train": ["a"]})
    with pytest.raises(UserError, match=rf"^data\.path must be .* got {name!r}, .*data=\w+ data\.path=") as raised:
        HubConfig(path=name).open()
    assert "\n" not in str(raised.value)
    offered = str(raised.value).rpartition("data.path=")[2].rstrip(")")
    assert [each.text for each in HubConfig(path=offered, streaming=True).open().documents()] == ["a"]


def test_validating_on_the_split_that_is_trained_on_is_refused():
    with pytest.raises(UserError, match="validation_split must name another split than train_split"):
        HubConfig(path="x", validation_split="train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"field": "story"}, r"data\.field must be a field of the records; got 'story' \(choices: n, text\)"),
        ({"field": "n"}, r"set/train\[0\]: field 'n' must hold a text; got 0"),
        ({"train_split": "trian"}, r"data\.path: .* must be a data set that can be read; .*train"),
        ({"name": "german"}, r"data\.path: .* must be a data set that can be read; .*german.*default"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_not_there_is_refused_with_the_choices(tmp_path, settings, message, streaming):
    folder = data_set(tmp_path / "set", {"train": ["a", "b"]})
    with pytest.raises(UserError, match=message) as raised:
        read(folder, streaming=streaming, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_data_file_is_refused(tmp_path, streaming):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.path: .* must be a data set that can be read; .*JSON") as raised:
        read(folder, streaming=streaming)
    assert "\n" not in str(raised.value)


COMMIT = "5c0ffee" + "0" * 33
READ_FROM_HUB = """
import sys, zoo
from zoo.data.corpora import HubConfig
from zoo.config import UserError

for streaming in (False, True):
    corpus = HubConfig(path="zoo/stories", streaming=streaming, max_documents=3).open()
    print([(each.text, each.split) for each in corpus.documents()], corpus.fingerprint())
try:
    HubConfig(path="zoo/none").open()
except UserError as error:
    print(error)
"""


class HubHandler(http.server.BaseHTTPRequestHandler):
    """Answers what the library asks of the Hub about one data set, `zoo/stories`."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _answer(self, *, with_body: bool) -> None:
        status, headers, body = self._reply(self.path.partition("?")[0])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _reply(self, path: str) -> tuple[int, dict[str, str], bytes]:
        api = "/api/datasets/zoo/stories"
        if path == f"{api}/revision/{COMMIT}":
            return 200, {}, json.dumps({"id": "zoo/stories", "sha": COMMIT, "siblings": []}).encode()
        if path == f"{api}/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": name, "size": len(self.files[name]), "oid": name} for name in self.files
            ]
            return 200, {}, json.dumps(entries).encode()
        asked = re.fullmatch(r"/datasets/zoo/stories/resolve/\w+/(.*)", path)
        if asked is None or asked[1] not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound" if "zoo/stories" in path else "RepoNotFound"}, b"{}"
        return self._content(self.files[asked[1]])

    def _content(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or self.command == "HEAD":
            return 200, headers, content
        start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        return 206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}, content[start : end + 1]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    folder = data_set(tmp_path / "stories", {"train": [f"story {index}" for index in range(5)], "validation": ["end"]})
    HubHandler.files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"---\n---\n"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_data_set_of_the_hub_is_read_whether_downloaded_or_streamed(tmp_path, endpoint):
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", READ_FROM_HUB]
    finished = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    downloaded, streamed, refused = finished.stdout.splitlines()
    texts = "[('story 0', 'train'), ('story 1', 'train'), ('story 2', 'train'), ('end', 'validation')]"
    assert downloaded.startswith(texts)
    assert streamed == downloaded
    assert refused.startswith("data.path: 'zoo/none' must be a data set that can be read; ")
