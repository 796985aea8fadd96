"""The cache: whole folders or none, whoever writes them and however it ends."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from zoo.config import UserError
from zoo.data import cache
from zoo.data.cache import cached_folder, key_of


def write_one(folder: Path) -> None:
    (folder / "file").write_text("content", encoding="utf-8")


def everything(root: Path) -> list[str]:
    """What lies in the cache, but for the empty files by which processes wait for each other."""
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if "locks" not in path.parts)
    return sorted(path for path in paths if not path.endswith("/seal.json"))


def test_a_folder_is_written_once(tmp_path):
    first = cached_folder(tmp_path, "texts", "key", write_one)
    assert cached_folder(tmp_path, "texts", "key", lambda folder: pytest.fail("written again")) == first
    assert (first / "file").read_text(encoding="utf-8") == "content"
    assert everything(tmp_path) == ["texts", "texts/key", "texts/key/file"]


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_nothing_stays_of_a_write_that_fails(tmp_path, error):
    def fail(folder: Path) -> None:
        write_one(folder)
        raise error("half way")

    with pytest.raises(error, match="half way"):
        cached_folder(tmp_path, "texts", "key", fail)
    assert everything(tmp_path) == ["texts"]
    cached_folder(tmp_path, "texts", "key", write_one)


WRITE_AND_WAIT = """
import sys, time, zoo
from pathlib import Path
from zoo.data.cache import cached_folder

def write(folder):
    (folder / "file").write_text("half")
    print("written", flush=True)
    sys.stdin.read()
    (folder / "file").write_text("content")

cached_folder(Path(sys.argv[1]), "texts", sys.argv[2], write)
"""


def start_writing(root: Path, key: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(root), key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(input="", timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("key", ["key", "other"])
def test_what_a_killed_process_left_is_never_read_and_goes_with_the_next_write(tmp_path, key):
    process = start_writing(tmp_path, "key")
    process.kill()
    process.communicate()
    assert everything(tmp_path) == ["texts", "texts/key.partial", "texts/key.partial/file"]
    cached_folder(tmp_path, "texts", key, write_one)
    assert everything(tmp_path) == ["texts", f"texts/{key}", f"texts/{key}/file"]
    assert (tmp_path / f"texts/{key}/file").read_text(encoding="utf-8") == "content"


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    process = start_writing(tmp_path, "key")
    cached_folder(tmp_path, "texts", "other", write_one)
    assert "texts/key.partial/file" in everything(tmp_path)
    finish(process)
    assert everything(tmp_path) == ["texts", "texts/key", "texts/key/file", "texts/other", "texts/other/file"]


def test_who_wants_what_another_process_is_writing_waits_for_it(tmp_path):
    process = start_writing(tmp_path, "key")
    found: list[Path] = []

    def want() -> None:
        found.append(cached_folder(tmp_path, "texts", "key", lambda folder: pytest.fail("written twice")))

    waiting = threading.Thread(target=want)
    waiting.start()
    time.sleep(0.2)
    assert not found
    finish(process)
    waiting.join(timeout=60)
    assert (found[0] / "file").read_text(encoding="utf-8") == "content"


def test_a_cache_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^data\.cache_dir: .*file/cache must be writable; .*Not a directory"):
        cached_folder(tmp_path / "file" / "cache", "texts", "key", write_one)


CONTENTS = {
    "other bytes of the same size": ("file", "CONTENT"),
    "cut": ("file", "con"),
    "empty": ("file", ""),
    "one file more": ("more", ""),
    "empty seal": ("seal.json", ""),
    "seal that is no object": ("seal.json", "[]"),
    "seal of nothing": ("seal.json", "{}"),
    "seal of other files": ("seal.json", '{"files": {}, "sha256": "0"}'),
}
REPLACEMENTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "missing": ("file", lambda path: None),
    "a folder for a file": ("file", lambda path: path.mkdir()),
    "a pipe for a file": ("file", os.mkfifo),
    "no seal": ("seal.json", lambda path: None),
    "a file for the folder": ("", lambda path: path.touch()),
    "nothing in the folder": ("", lambda path: path.mkdir()),
    "a link to nowhere": ("", lambda path: path.symlink_to("nowhere")),
    "a link to another folder": ("", lambda path: path.symlink_to("..")),
}


def spoil(folder: Path, damage: str) -> None:
    if damage in CONTENTS:
        name, content = CONTENTS[damage]
        (folder / name).write_text(content, encoding="utf-8")
        return
    name, replace = REPLACEMENTS[damage]
    path = folder / name
    if name:
        path.unlink()
    else:
        shutil.rmtree(path)
    replace(path)


@pytest.mark.parametrize("damage", [*CONTENTS, *REPLACEMENTS])
def test_a_damaged_folder_is_made_anew_with_one_line_that_names_it(tmp_path, caplog, damage):
    folder = cached_folder(tmp_path, "texts", "key", write_one)
    spoil(folder, damage)
    assert cached_folder(tmp_path, "texts", "key", write_one) == folder
    (record,) = caplog.records
    assert f"cache: {folder} is damaged and made anew: " in record.getMessage()
    assert "\n" not in record.getMessage()
    cached_folder(tmp_path, "texts", "key", lambda partial: pytest.fail("written again"))
    assert everything(tmp_path) == ["texts", "texts/key", "texts/key/file"]
    assert (folder / "file").read_text(encoding="utf-8") == "content"


@pytest.mark.parametrize("left", ["file", "link", "folder"])
def test_whatever_stands_where_is_written_is_no_obstacle(tmp_path, left):
    (tmp_path / "texts").mkdir()
    place = tmp_path / "texts" / "key.partial"
    if left == "link":
        place.symlink_to("nowhere")
    elif left == "file":
        place.touch()
    else:
        place.mkdir()
    cached_folder(tmp_path, "texts", "key", write_one)
    assert everything(tmp_path) == ["texts", "texts/key", "texts/key/file"]


@pytest.mark.parametrize("lock", ["pipe", "folder"])
def test_whatever_stands_where_the_lock_is_never_blocks(tmp_path, lock):
    (tmp_path / "locks").mkdir()
    place = tmp_path / "locks" / "texts-key"
    if lock == "pipe":
        os.mkfifo(place)
        cached_folder(tmp_path, "texts", "key", write_one)
        return
    place.mkdir()
    with pytest.raises(UserError, match=r"^data\.cache_dir: .* must be writable; "):
        cached_folder(tmp_path, "texts", "key", write_one)


def test_a_cache_that_can_only_be_read_is_read_and_if_damaged_refused_by_name(tmp_path, monkeypatch):
    folder = cached_folder(tmp_path, "texts", "key", write_one)

    # Nobody can take permissions from the user who runs tests in a container.
    def refuse(folder: Path, *, wait: bool) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache, "_lock", refuse)
    assert cached_folder(tmp_path, "texts", "key", write_one) == folder
    (folder / "file").write_text("damage", encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"^data\.cache_dir: {folder} is damaged \(.*\) and must be writable; "
    ) as raised:
        cached_folder(tmp_path, "texts", "key", write_one)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=rf"^data\.cache_dir: {tmp_path} must be writable; "):
        cached_folder(tmp_path, "texts", "other", write_one)


def test_keys_tell_all_parts_apart():
    keys = [key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of("a", "b", None), key_of("a", "b", 0), key_of()]
    assert len(set(keys)) == len(keys)
    assert key_of("a", ("b", 1)) == key_of("a", ("b", 1))
