"""Safetensors files, read with suspicion: MLX's reader sees a file only after its header has proved well-formed.

Format: https://huggingface.co/docs/safetensors, eight bytes with the header's length, the header as JSON, the arrays'
bytes without a gap. A header that lies makes a native reader fail in ways that cannot be caught.
"""

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx

from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened
from zoo.config.files import parse_json

# A tenth of this holds the header of a model of a hundred layers.
_MAX_HEADER_BYTES = 2**22
# MLX counts elements along an axis in 32 bits; no array of a model has more than a few axes.
_MAX_LENGTH, _MAX_AXES = 2**31 - 1, 16
_DTYPES: dict[str, mx.Dtype] = {
    "F32": mx.float32,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F64": mx.float64,
    "I8": mx.int8,
    "I16": mx.int16,
    "I32": mx.int32,
    "I64": mx.int64,
    "U8": mx.uint8,
    "U16": mx.uint16,
    "U32": mx.uint32,
    "U64": mx.uint64,
    "BOOL": mx.bool_,
    "C64": mx.complex64,
}
# What weights are made of; 64 bits there are on CPUs alone.
WEIGHTS = (mx.float32, mx.float16, mx.bfloat16)
# How files begin that Python's pickle and PyTorch write.
_PICKLES = (b"PK\x03\x04", *(bytes([0x80, version]) for version in range(2, 6)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An array as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    def require(self, what: str, shape: tuple[int, ...], dtypes: tuple[mx.Dtype, ...]) -> None:
        """Refuses a tensor of another shape or dtype.

        Args:
            what: File and name, for messages.
            shape: That it must have.
            dtypes: One of which it must have.

        Raises:
            UserError: Says what it has to be.
        """
        if self.shape != shape:
            raise UserError(f"{what} must have shape {shape}; got {shortened(self.shape)}")
        if _DTYPES[self.dtype] not in dtypes:
            names = " or ".join(str(dtype).rpartition(".")[2] for dtype in dtypes)
            raise UserError(f"{what} must be {names}; got {self.dtype}")


def dtype_of(entry: Entry) -> mx.Dtype:
    """The dtype that an entry of a well-formed header names."""
    return _DTYPES[entry.dtype]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file whose header is well-formed.

    Attributes:
        stream: The file.
        path: Its name.
        where: What to call it in messages.
        entries: What it holds.
        metadata: What it says of itself.
    """

    stream: BinaryIO
    path: Path
    where: str
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    def require(self, name: str, shape: tuple[int, ...], dtypes: tuple[mx.Dtype, ...]) -> None:
        """Refuses a tensor of another shape or dtype.

        Raises:
            UserError: Names the tensor, and what it has to be.
        """
        self.entries[name].require(f"{self.where}: {name}", shape, dtypes)

    def load(self) -> dict[str, mx.array]:
        """All tensors, each read when it is first used, for which the file has to be open still.

        Raises:
            UserError: If MLX cannot read them.
        """
        self.stream.seek(0)
        try:
            arrays = mx.load(self.stream, format="safetensors")
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"{self.where} must be readable; {' '.join(str(error).split())}") from error
        assert isinstance(arrays, dict)
        return arrays


def open_tensors(stream: BinaryIO, path: Path, *, what: str = "checkpoint") -> TensorFile:
    """Verifies the header of a safetensors file.

    Args:
        stream: The file, at its start.
        path: Its name in messages.
        what: Whose file it is, for messages.

    Raises:
        UserError: If it is malformed.
    """
    where = f"{what}: {path}"
    entries, metadata = _header(stream, where)
    return TensorFile(stream=stream, path=path, where=where, entries=entries, metadata=metadata)


def require_finite(arrays: Mapping[str, mx.array], where: str) -> None:
    """Computes arrays, and refuses numbers that are not finite.

    Raises:
        UserError: Names the first such array, or says why they cannot be read.
    """
    floats = {name: array for name, array in arrays.items() if mx.issubdtype(array.dtype, mx.floating)}
    finite = {name: mx.all(mx.isfinite(array)) for name, array in floats.items()}
    try:
        mx.eval(dict(arrays), finite)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{where} must be readable; {' '.join(str(error).split())}") from error
    for name, answer in finite.items():
        if not answer.item():
            raise UserError(f"{where}: {name} must hold finite numbers; it holds others")


def write_tensors(path: Path, arrays: Mapping[str, mx.array]) -> None:
    """Writes arrays by name.

    Raises:
        OSError: If that fails.
    """
    # Through Python's own file: MLX's takes no path that is not UTF-8 and tells no reason when the disk is full.
    with path.open("wb") as stream:
        mx.save_safetensors(stream, dict(arrays), metadata={"format": "mlx"})


def read_tensors(
    stream: BinaryIO, path: Path, wanted: Mapping[str, mx.array], *, what: str, same_dtypes: bool
) -> dict[str, mx.array]:
    """Reads exactly the arrays that are wanted.

    Args:
        stream: The file, at its start.
        path: Its name in messages.
        wanted: Arrays of the names, shapes and, with `same_dtypes`, dtypes that the file has to have.
        what: What they are, for messages (for example `the model's parameters`).
        same_dtypes: Whether dtypes must be those of `wanted`; else any that weights are made of.

    Returns:
        The arrays in the order of `wanted`, in memory.

    Raises:
        UserError: If the file is malformed, or holds other arrays, or numbers that are not finite.
    """
    file = open_tensors(stream, path)
    require_names(file.entries, wanted, f"{file.where} must hold exactly {what}")
    for name, array in wanted.items():
        exact = same_dtypes or not mx.issubdtype(array.dtype, mx.floating)
        file.require(name, array.shape, (array.dtype,) if exact else WEIGHTS)
    arrays = file.load()
    require_finite(arrays, file.where)
    return {name: arrays[name] for name in wanted}


def _header(stream: BinaryIO, where: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """The header's arrays and metadata, by the letter of the format."""
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(8)
    length = int.from_bytes(start, "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        if start.startswith(_PICKLES):
            raise UserError(f"{where} must be a safetensors file; it is a pickle, and opening it would run code")
        raise UserError(f"{where} must begin with a header inside the file; got {size} bytes and a header of {length}")
    try:
        text = stream.read(length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} must have a header in UTF-8; {error.reason} at byte {8 + error.start}") from None
    header = parse_json(text, where=f"{where}: the header")
    if not isinstance(header, dict):
        raise UserError(f"{where}: the header must be a JSON object; got {type(header).__name__}")
    # MLX itself writes null where there is none.
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"{where}: __metadata__ must be a JSON object of texts, or null")
    entries = {}
    for name, entry in header.items():
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {shortened(name)} must be a JSON object; got {type(entry).__name__}")
        entries[name] = from_mapping(Entry, entry, path=f"{where}: {shortened(name)}")
    _require_extents(entries, size - 8 - length, where)
    return entries, metadata


def _require_extents(entries: Mapping[str, Entry], size: int, where: str) -> None:
    """Refuses arrays that do not lie one after the other, each in its own size, up to the end of the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        what = f"{where}: {shortened(name)}"
        if entry.dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise UserError(f"{what} must have a known dtype; got {shortened(entry.dtype)} (choices: {known})")
        if len(entry.shape) > _MAX_AXES or not all(0 <= length <= _MAX_LENGTH for length in entry.shape):
            raise UserError(f"{what} must have a shape of an array; got {shortened(entry.shape)}")
        expected = (end, end + math.prod(entry.shape) * _DTYPES[entry.dtype].size)
        if entry.data_offsets != expected:
            got = shortened(entry.data_offsets)
            raise UserError(f"{what} must lie at bytes {expected}, after the array before it; got {got}")
        end = expected[1]
    if end != size:
        raise UserError(f"{where} must hold {end} bytes of arrays; got {size}")


def require_names(found: Collection[str], wanted: Collection[str], must: str) -> None:
    """Refuses other names than those that are wanted.

    Raises:
        UserError: Lists some that are missing, and some that are unexpected.
    """
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        extra = [shortened(name) for name in extra]
        lines = [
            f"{kind}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
            for kind, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise UserError(f"{must}; {'; '.join(lines)}")
