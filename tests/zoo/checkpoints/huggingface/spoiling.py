"""Ways to spoil a folder in Hugging Face's layout."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Break = Callable[[Path], Any]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def config(**changes: Any) -> Break:
    """Sets keys of `config.json`; None takes one away."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))

    return change


def text(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content)


def tensors(change: Callable[[dict[str, mx.array]], Any]) -> Break:
    """Changes the arrays of the single file."""

    def rewrite(folder: Path) -> None:
        arrays: Any = mx.load(str(folder / SINGLE))
        mx.eval(arrays)
        change(arrays)
        mx.save_safetensors(str(folder / SINGLE), arrays)

    return rewrite


def header(change: Callable[[dict[str, Any]], Any]) -> Break:
    """Changes the header of the single file and leaves the bytes behind it."""

    def rewrite(folder: Path) -> None:
        content = (folder / SINGLE).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        entries = json.loads(content[8 : 8 + length])
        change(entries)
        again = json.dumps(entries).encode()
        (folder / SINGLE).write_bytes(struct.pack("<Q", len(again)) + again + content[8 + length :])

    return rewrite


def content(change: Callable[[bytes], bytes]) -> Break:
    return lambda folder: (folder / SINGLE).write_bytes(change((folder / SINGLE).read_bytes()))


def indexed(change: Callable[[dict[str, Any]], Any]) -> Break:
    """Changes what the index says is where."""

    def rewrite(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return rewrite


def without(*names: str) -> Break:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def both(*breaks: Break) -> Break:
    return lambda folder: [each(folder) for each in breaks]


def pickled(name: str) -> Break:
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Trap(folder.parent / "sprung")))


def fifo(name: str) -> Break:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replace


def linked_out(name: str) -> Break:
    def replace(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return replace


def cut(name: str) -> Break:
    return tensors(lambda arrays: arrays.pop(name))
