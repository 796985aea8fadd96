"""The head of a GGUF file, read with suspicion: each count, length and place is checked before anything is allocated.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A magic number, a version and two counts; pairs of a
key and a typed value; a table of tensors; and from the next multiple of the alignment on, the tensors' bytes. Native
readers trust these numbers, MLX's own among them, and end the process or read past the file where one of them lies.
"""

import dataclasses
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zoo.checkpoints.gguf.blocks import KINDS, OTHER_KINDS, Kind
from zoo.config import UserError
from zoo.config.errors import MOST, shortened
from zoo.config.files import open_regular

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ARCHITECTURE, _ALIGNMENT = "general.architecture", "general.alignment"
# Three times what a vocabulary of 256,000 pieces with its merges takes.
_MOST_HEADER_BYTES = 64 * 2**20
# Forty times the keys and thirty times the tensors of the largest models; a tokenizer's largest list has 300,000 items.
_MOST_KEYS, _MOST_TENSORS, _MOST_ITEMS = 4_096, 65_536, 2**22
# Of a key, by the format, and generous for a tensor's name, which the format gives 64 bytes.
_MOST_KEY_BYTES, _MOST_NAME_BYTES = 65_535, 1_024
_MOST_AXES = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
# By the format's number of a type.
_SCALARS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as the table describes it.

    Attributes:
        kind: How its numbers are written.
        shape: Outermost axis first, as everywhere but in the file.
        start: Its first byte in the file.
        num_bytes: How many bytes it has there.
    """

    kind: Kind
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF file says before its tensors' bytes.

    Attributes:
        where: The file, for messages.
        metadata: Values by key: numbers, texts, truth values, and lists of these.
        tensors: By name, in the file's order.
    """

    where: str
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @property
    def architecture(self) -> str:
        """The name of the model's family, which is also the first part of its keys."""
        return self.text(_ARCHITECTURE)

    def text(self, key: str) -> str:
        """A text that must be there.

        Raises:
            UserError: If it is missing or no text.
        """
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise self.refusal(key, "be a text")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; without a default it must be there.

        Raises:
            UserError: If it is missing or no whole number.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal(key, "be a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; without a default it must be there.

        Raises:
            UserError: If it is missing, no number, or not finite.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.refusal(key, "be a finite number")
        return float(value)

    def truth(self, key: str, default: bool) -> bool:
        """A truth value.

        Raises:
            UserError: If it is there and none.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise self.refusal(key, "be true or false")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """A list of texts or numbers; empty where there is none.

        Raises:
            UserError: If it is there and no such list.
        """
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or (value and not isinstance(value[0], kind)):
            raise self.refusal(key, f"be a list of {kind.__name__}")
        return value

    def refusal(self, key: str, must: str) -> UserError:
        """What is raised about the value of a key."""
        got = shortened(self.metadata[key]) if key in self.metadata else "nothing"
        return UserError(f"{self.where}: {key} must {must}; got {got}")


def read_header(path: Path) -> Header:
    """Reads and checks everything but the tensors' bytes.

    Raises:
        UserError: If the file is missing, malformed or cut off, or has tensors of a kind that is not read here.
    """
    where = f"checkpoint: {path}"
    with open_regular(path, what="checkpoint") as stream:
        cursor = _Cursor(stream, where)
        if cursor.take(4, "the magic number") != MAGIC:
            raise UserError(f"{where} must begin with {MAGIC.decode()}; it is no GGUF file")
        version = cursor.number("<u4", "the version")
        if version not in _VERSIONS:
            raise UserError(f"{where}: version must be one of {_VERSIONS}; got {version}")
        num_tensors = cursor.count(_MOST_TENSORS, "tensors")
        num_keys = cursor.count(_MOST_KEYS, "keys")
        metadata = _metadata(cursor, num_keys)
        alignment = metadata.get(_ALIGNMENT, 32)
        known = isinstance(alignment, int) and alignment in {2**power for power in range(3, 17)}
        if not known:
            raise UserError(f"{where}: {_ALIGNMENT} must be a power of 2 from 8 to 65536; got {shortened(alignment)}")
        table = [_table_entry(cursor) for _ in range(num_tensors)]
    first = math.ceil(cursor.position / alignment) * alignment
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in table:
        if name in tensors:
            raise UserError(f"{where} must name each tensor once; got {shortened(name)} twice")
        if offset % alignment:
            raise UserError(f"{where}: {shortened(name)} must lie at a multiple of {alignment}; got {offset}")
        num_bytes = math.prod(shape) // kind.num_values * kind.num_bytes
        tensors[name] = StoredTensor(kind=kind, shape=shape, start=first + offset, num_bytes=num_bytes)
    _require_extents(tensors, cursor.size, where)
    return Header(where=where, metadata=metadata, tensors=tensors)


class _Cursor:
    """Takes bytes from the file's start on, never more than there are."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.where = where
        self.size = os.fstat(stream.fileno()).st_size
        self.position = 0
        self._stream = stream

    def take(self, count: int, what: str) -> bytes:
        self.require(count, what)
        try:
            content = self._stream.read(count)
        except OSError as error:
            raise UserError(f"{self.where} must be readable; {error.strerror or error}") from None
        if len(content) < count:
            raise UserError(f"{self.where} must stay as it is while it is read; it became shorter")
        self.position += count
        return content

    def require(self, count: int, what: str) -> None:
        if count > self.size - self.position:
            got = f"{shortened(count)} bytes at {self.position} of {self.size}"
            raise UserError(f"{self.where} must hold {what}, and is cut off or damaged; got {got}")
        if count > _MOST_HEADER_BYTES - self.position:
            raise UserError(f"{self.where} must have at most {_MOST_HEADER_BYTES} bytes before its tensors; got more")

    def number(self, dtype: str, what: str) -> int:
        content = self.take(np.dtype(dtype).itemsize, what)
        return int.from_bytes(content, "little")

    def count(self, most: int, what: str) -> int:
        count = self.number("<u8", f"the number of {what}")
        if count > most:
            raise UserError(f"{self.where} must have at most {most} {what}; got {count}")
        return count

    def text(self, most: int, what: str) -> str:
        length = int.from_bytes(self.take(8, what), "little")
        if length > most:
            raise UserError(f"{self.where}: {what} must have at most {most} bytes; got {length}")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where}: {what} must be UTF-8; {error.reason} at byte {error.start}") from None


def _metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text(_MOST_KEY_BYTES, "a key")
        if key in metadata:
            raise UserError(f"{cursor.where} must name each key once; got {shortened(key)} twice")
        metadata[key] = _value(cursor, cursor.number("<u4", "a type"), shortened(key))
    return metadata


def _value(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == _STRING:
        return cursor.text(_MOST_HEADER_BYTES, what)
    if kind != _ARRAY:
        return _scalars(cursor, kind, 1, what)[0]
    kind = cursor.number("<u4", what)
    count = cursor.count(_MOST_ITEMS, f"items of {what}")
    if kind == _ARRAY:
        raise UserError(f"{cursor.where}: {what} must be no list of lists, which nothing here needs")
    if kind != _STRING:
        return _scalars(cursor, kind, count, what)
    # Each has its length before it, so that a count that lies is known before a list grows.
    cursor.require(8 * count, what)
    return [cursor.text(_MOST_HEADER_BYTES, what) for _ in range(count)]


def _scalars(cursor: _Cursor, kind: int, count: int, what: str) -> list[Any]:
    if kind not in _SCALARS:
        raise UserError(f"{cursor.where}: {what} must be of a type from 0 to 12; got {kind}")
    dtype = np.dtype(_SCALARS[kind])
    values = np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)
    if kind == _BOOL:
        if (values > 1).any():
            raise UserError(f"{cursor.where}: {what} must be true or false; got {shortened(int(values.max()))}")
        values = values.astype(np.bool_)
    return values.tolist()


def _table_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], Kind, int]:
    name = cursor.text(_MOST_NAME_BYTES, "a tensor's name")
    what = f"{cursor.where}: {shortened(name)}"
    num_axes = cursor.number("<u4", "a number of axes")
    if not 1 <= num_axes <= _MOST_AXES:
        raise UserError(f"{what} must have from 1 to {_MOST_AXES} axes; got {num_axes}")
    lengths = struct.unpack(f"<{num_axes}Q", cursor.take(8 * num_axes, "a shape"))
    number, offset = struct.unpack("<IQ", cursor.take(12, "a tensor's place"))
    if not all(1 <= length <= MOST for length in lengths):
        raise UserError(f"{what} must have axes of 1 to {MOST}; got {shortened(lengths[::-1])}")
    if number not in KINDS:
        known = ", ".join(kind.name for kind in KINDS.values())
        got = OTHER_KINDS.get(number, f"number {number}")
        raise UserError(f"{what} must be of a kind that is read here; got {got} (choices: {known})")
    kind = KINDS[number]
    if lengths[0] % kind.num_values:
        raise UserError(f"{what} must have rows of whole blocks of {kind.num_values}; got {lengths[0]}")
    return name, lengths[::-1], kind, offset


def _require_extents(tensors: dict[str, StoredTensor], size: int, where: str) -> None:
    """Refuses tensors that lie outside the file, or share bytes: so they take no more memory than the file has."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start < end:
            raise UserError(f"{where}: {shortened(name)} must share no bytes with another tensor; it does")
        end = tensor.start + tensor.num_bytes
        if end > size:
            got = f"a file of {size} bytes"
            raise UserError(
                f"{where} must hold {shortened(name)} up to byte {end}, and is cut off or damaged; got {got}"
            )
