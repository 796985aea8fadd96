"""The cache: whole folders or none, whoever writes them and however it ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.data.cache import cached_folder, key_of


def write_one(folder: Path) -> None:
    (folder / "file").write_text("content", encoding="utf-8")


def everything(root: Path) -> list[str]:
    """What lies in the cache, but for the empty files by which processes wait for each other."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if "locks" not in path.parts)


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


def test_keys_tell_all_parts_apart():
    keys = [key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of("a", "b", None), key_of("a", "b", 0), key_of()]
    assert len(set(keys)) == len(keys)
    assert key_of("a", ("b", 1)) == key_of("a", ("b", 1))
