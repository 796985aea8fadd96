"""The safetensors files of a folder in Hugging Face's layout: one, or shards that an index names.

Every header is verified before MLX sees a file, and every name that a file gives is confined to the folder. Other
forms of weights are pickles, which run code when they are opened; they are refused by name.
"""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import mlx.core as mx

from zoo.checkpoints.manifest import linked_from
from zoo.checkpoints.tensors import Entry, TensorFile, open_tensors
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import inside, open_regular, read_json_mapping

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# A model of two terabytes has 200; each is held open, and a process may open about a thousand files.
_MOST_SHARDS = 500
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "consolidated*.pth")
_OTHERS = ("*.h5", "*.msgpack", "*.onnx", "*.npz", "*.gguf")


class Weights(abc.ABC):
    """Tensors of a checkpoint by the names of Hugging Face's layout, whatever its files are."""

    @property
    @abc.abstractmethod
    def entries(self) -> Mapping[str, Entry]:
        """Dtype and shape of every tensor."""

    @abc.abstractmethod
    def where(self, name: str) -> str:
        """What to call the file of a tensor in messages."""

    @abc.abstractmethod
    def arrays(self) -> Iterator[tuple[str, mx.array]]:
        """Every tensor in turn; none is read before it is used, and each is forgotten after its turn."""

    @abc.abstractmethod
    def read(self, name: str) -> mx.array:
        """One tensor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards(Weights):
    """Tensors of one or several safetensors files.

    Attributes:
        files: Each with the names of its tensors.
        stack: Holds them open.
    """

    files: tuple[TensorFile, ...]
    stack: contextlib.ExitStack

    def __enter__(self) -> Self:
        """Holds the files open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of them."""
        self.stack.close()

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {name: entry for file in self.files for name, entry in file.entries.items()}

    @functools.cached_property
    def _file_of(self) -> Mapping[str, TensorFile]:
        return {name: file for file in self.files for name in file.entries}

    def where(self, name: str) -> str:
        return self._file_of[name].where

    def arrays(self) -> Iterator[tuple[str, mx.array]]:
        for file in self.files:
            arrays = file.load()
            for name in list(arrays):
                yield name, arrays.pop(name)

    def read(self, name: str) -> mx.array:
        return self._file_of[name].load()[name]


def open_weights(folder: Path) -> Shards:
    """Opens the weights of a folder and verifies every header.

    Raises:
        UserError: If there are none that can be read, one is missing or malformed, or the index is wrong.
    """
    index = _weight_map(folder)
    names = [SINGLE] if index is None else sorted(set(index.values()))
    with contextlib.ExitStack() as stack:
        files = []
        for name in names:
            path = inside(folder, name, what="checkpoint", linked=linked_from(folder))
            files.append(open_tensors(stack.enter_context(open_regular(path, what="checkpoint")), path))
        _require_unique(files)
        if index is not None:
            _require_indexed(folder, index, dict(zip(names, files, strict=True)))
        return Shards(files=tuple(files), stack=stack.pop_all())


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights.

    Raises:
        UserError: As `open_weights`.
    """
    index = _weight_map(folder)
    names = [SINGLE] if index is None else sorted(set(index.values()))
    return [inside(folder, name, what="checkpoint", linked=linked_from(folder)) for name in names]


def _weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor -> file as the index says; None for a single file, which comes first where there are both."""
    if (folder / SINGLE).exists():
        return None
    path = folder / INDEX
    if not path.exists():
        raise UserError(_without_weights(folder))
    path = inside(folder, INDEX, what="checkpoint", linked=linked_from(folder))
    found = read_json_mapping(path, what="checkpoint").get("weight_map")
    where = f"checkpoint: {path}: weight_map"
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{where} must name a file for each tensor; got {shortened(found)}")
    for name, file in found.items():
        if not isinstance(file, str):
            raise UserError(f"{where}: {shortened(name)} must be in a file; got {shortened(file)}")
        if not file.endswith(".safetensors"):
            raise UserError(f"{where}: {shortened(name)} must be in a .safetensors file; got {shortened(file)}")
    files = set(found.values())
    if len(files) > _MOST_SHARDS:
        raise UserError(f"{where} must name at most {_MOST_SHARDS} files; got {len(files)}")
    return dict(found)


def _without_weights(folder: Path) -> str:
    names = f"{SINGLE} or {INDEX}"
    for kind, patterns in (("pickles", _PICKLES), ("other forms", _OTHERS)):
        found = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
        if found:
            reason = "opening it would run code" if kind == "pickles" else "they are not read from a folder"
            rest = f"; it holds {shortened(found[0])}: {reason} (save the model as safetensors)"
            return f"checkpoint: {folder} must hold its weights as {names}{rest}"
    return f"checkpoint: {folder} must hold {names}; both are missing"


def _require_unique(files: list[TensorFile]) -> None:
    seen: dict[str, TensorFile] = {}
    for file in files:
        for name in file.entries:
            if name in seen:
                raise UserError(f"{file.where} must not hold {shortened(name)}, which {seen[name].path.name} holds")
            seen[name] = file


def _require_indexed(folder: Path, index: Mapping[str, str], files: Mapping[str, TensorFile]) -> None:
    for name, file in index.items():
        if name not in files[file].entries:
            raise UserError(f"checkpoint: {folder / INDEX}: {shortened(name)} must be in {file}; it is not there")
