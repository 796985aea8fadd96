"""Writes GGUF files by the letter of the format, so that each byte of one can be made wrong."""

import struct
from pathlib import Path

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, LIST, U64, I64, F64 = range(13)
_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
# Values in a block, and how one is written from float32 numbers.
GGML = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


class Typed:
    """A value with the type that it is to be written as."""

    def __init__(self, kind, value, of=None):
        self.kind, self.value, self.of = kind, value, of


def text(value):
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def value(item):
    """A value's type and bytes: as `Typed` says, else as it is usual."""
    if not isinstance(item, Typed):
        if isinstance(item, list):
            of = TEXT if isinstance(item[0], str) else F32 if isinstance(item[0], float) else I32
            item = Typed(LIST, item, of)
        else:
            kinds = {bool: BOOL, int: U32, float: F32, str: TEXT, bytes: TEXT}
            item = Typed(kinds[type(item)], item)
    return struct.pack("<I", item.kind) + _content(item)


def _content(item):
    if item.kind == TEXT:
        return text(item.value)
    if item.kind == LIST:
        items = b"".join(_content(Typed(item.of, each)) for each in item.value)
        return struct.pack("<IQ", item.of, len(item.value)) + items
    return struct.pack(f"<{_FORMATS[item.kind]}", item.value)


def blocks(numbers, kind):
    """Bytes of an array; quantized as llama.cpp does it, block by block."""
    if kind == "F32":
        return numbers.astype("<f4").tobytes()
    if kind == "F16":
        return numbers.astype("<f2").tobytes()
    if kind == "BF16":
        return (numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return b"".join(_block(block, kind) for block in numbers.reshape(-1, 32))


def _block(block, kind):
    if kind == "Q8_0":
        scale = np.float16(np.abs(block).max() / 127)
        return scale.tobytes() + np.round(block / scale).astype(np.int8).tobytes()
    if kind == "Q4_0":
        scale = np.float16(block[np.abs(block).argmax()] / -8)
        head, numbers = scale.tobytes(), np.clip(np.round(block / scale) + 8, 0, 15).astype(np.uint8)
    else:
        low = np.float16(block.min())
        scale = np.float16((block.max() - low) / 15)
        head, numbers = (
            scale.tobytes() + low.tobytes(),
            np.clip(np.round((block - low) / scale), 0, 15).astype(np.uint8),
        )
    return head + bytes(numbers[index] | numbers[index + 16] << 4 for index in range(16))


def plain(content, kind, shape):
    """The numbers that bytes stand for, one after another as the format defines them, float32."""
    if kind == "F32":
        return np.frombuffer(content, "<f4").reshape(shape)
    if kind == "F16":
        return np.frombuffer(content, "<f2").astype(np.float32).reshape(shape)
    if kind == "BF16":
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    size = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind]
    numbers = []
    for start in range(0, len(content), size):
        block = content[start : start + size]
        scale = np.frombuffer(block[:2], "<f2").astype(np.float32)[0]
        if kind == "Q8_0":
            numbers += [scale * np.float32(each) for each in np.frombuffer(block[2:], np.int8)]
            continue
        low = np.frombuffer(block[2:4], "<f2").astype(np.float32)[0] if kind == "Q4_1" else np.float32(-8) * scale
        halves = block[-16:]
        numbers += [np.float32(each & 15) * scale + low for each in halves]
        numbers += [np.float32(each >> 4) * scale + low for each in halves]
    return np.array(numbers, np.float32).reshape(shape)


def entry(name, shape, kind, offset):
    """A line of the table of tensors; `kind` is a name or ggml's number."""
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + axes + struct.pack("<IQ", GGML.get(kind, kind), offset)


def write_gguf(path, metadata, tensors, *, version=3, alignment=32, counts=None):
    """Writes a file.

    Args:
        path: Where.
        metadata: Value by key, or pairs of both.
        tensors: Name -> (array, kind), or -> (bytes, kind, shape).
        version: Of the format.
        alignment: Of the tensors' bytes.
        counts: What to say in place of the numbers of tensors and keys.

    Returns:
        The path.
    """
    pairs = list(metadata.items()) if isinstance(metadata, dict) else metadata
    table, content = b"", b""
    for name, (numbers, kind, *shape) in tensors.items():
        table += entry(name, shape[0] if shape else numbers.shape, kind, len(content))
        content += numbers if isinstance(numbers, bytes) else blocks(numbers, kind)
        content += bytes(-len(content) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    head += b"".join(text(key) + value(item) for key, item in pairs) + table
    Path(path).write_bytes(head + bytes(-len(head) % alignment) + content)
    return Path(path)
