"""The head of a GGUF file: what is well-formed is read, and each lie is one line before anything is allocated."""

import os
import struct

import numpy as np
import pytest

from tests.zoo.checkpoints.gguf.written import (
    BOOL,
    F32,
    F64,
    I8,
    I64,
    LIST,
    TEXT,
    U64,
    Typed,
    entry,
    text,
    value,
    write_gguf,
)
from zoo.checkpoints.gguf.header import read_header
from zoo.config import UserError

ONE = {"a": (np.arange(6, dtype=np.float32).reshape(2, 3), "F32")}


def test_every_type_of_value_is_read(tmp_path):
    metadata = {
        "a": 3,
        "b": 0.5,
        "c": True,
        "d": "ä\n漢",
        "e": Typed(I64, -(2**40)),
        "f": Typed(F64, 0.1),
        "g": Typed(U64, 2**63),
        "h": [1, -2],
        "i": ["x", "", "yz"],
        "j": Typed(LIST, [True, False], BOOL),
        "k": Typed(LIST, [], TEXT),
        "l": Typed(LIST, [-1, 127], I8),
    }
    header = read_header(write_gguf(tmp_path / "a.gguf", metadata, ONE))
    plain = {key: item.value if isinstance(item, Typed) else item for key, item in metadata.items()}
    assert header.metadata == plain
    assert [type(each) for each in header.metadata.values()] == [type(each) for each in plain.values()]


@pytest.mark.parametrize(("version", "alignment"), [(2, 32), (3, 32), (3, 8), (3, 4096)])
def test_tensors_are_found_where_they_lie(version, alignment, tmp_path):
    numbers = {name: np.random.default_rng(seed).random((3, 32), np.float32) for seed, name in enumerate("ab")}
    tensors = {"a": (numbers["a"], "F32"), "b": (numbers["b"], "F16")}
    metadata = {} if alignment == 32 else {"general.alignment": alignment}
    path = write_gguf(tmp_path / "a.gguf", metadata, tensors, version=version, alignment=alignment)
    header, content = read_header(path), path.read_bytes()
    for name, dtype in (("a", "<f4"), ("b", "<f2")):
        found = header.tensors[name]
        assert found.shape == (3, 32)
        stored = np.frombuffer(content[found.start : found.start + found.num_bytes], dtype).reshape(3, 32)
        assert np.array_equal(stored, numbers[name].astype(dtype))


def head(*parts, num_tensors=0, num_keys=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + b"".join(parts)


def table(*entries, room=0):
    content = head(*entries, num_tensors=len(entries))
    return content + bytes(-len(content) % 32) + bytes(room)


def listed(of, count, content=b""):
    return head(text("k"), struct.pack("<IIQ", LIST, of, count), content, num_keys=1)


BROKEN = {
    "empty": (b"", "must hold the magic number, and is cut off"),
    "another format": (b"GGML" + bytes(40), "must begin with GGUF"),
    "version 1": (head(version=1), "version must be one of"),
    "the other byte order": (head(version=3 << 24), "version must be one of"),
    "cut in the counts": (head()[:20], "the number of keys, and is cut off"),
    "2^60 tensors": (head(num_tensors=2**60), "at most 65536 tensors; got 1152921504606846976"),
    "2^64 - 1 keys": (head(num_keys=2**64 - 1), "at most 4096 keys"),
    "fewer keys than it says": (head(num_keys=1), "must hold a key, and is cut off"),
    "a key of 2^63 bytes": (head(struct.pack("<Q", 2**63), num_keys=1), "a key must have at most 65535 bytes"),
    "a key that is no text": (head(text(b"\xff\xfe"), value(1), num_keys=1), "a key must be UTF-8"),
    "a key twice": (head(text("k"), value(1), text("k"), value(2), num_keys=2), "name each key once; got 'k' twice"),
    "an unknown type": (
        head(text("k"), struct.pack("<I", 13), num_keys=1),
        "'k' must be of a type from 0 to 12; got 13",
    ),
    "a truth value of 2": (head(text("k"), struct.pack("<IB", BOOL, 2), num_keys=1), "must be true or false; got 2"),
    "a text of 2^64 - 1 bytes": (head(text("k"), struct.pack("<IQ", TEXT, 2**64 - 1), num_keys=1), "at most 67108864"),
    "a text beyond the end": (
        head(text("k"), struct.pack("<IQ", TEXT, 9), b"short", num_keys=1),
        "'k', and is cut off",
    ),
    "a list of 2^60 numbers": (listed(F32, 2**60), "at most 4194304 items of 'k'"),
    "a list beyond the end": (listed(F32, 2**20, bytes(64)), "'k', and is cut off or damaged; got 4194304 bytes"),
    "a list of texts beyond the end": (listed(TEXT, 2**20, bytes(64)), "'k', and is cut off or damaged; got 8388608"),
    "a list of lists": (listed(LIST, 1, struct.pack("<IQ", F32, 0)), "must be no list of lists"),
    "a list of an unknown type": (listed(77, 1, bytes(8)), "of a type from 0 to 12; got 77"),
    "an alignment of 0": (head(text("general.alignment"), value(0), num_keys=1), "alignment must be a power of 2"),
    "an alignment of 24": (head(text("general.alignment"), value(24), num_keys=1), "alignment must be a power of 2"),
    "an alignment that is a text": (head(text("general.alignment"), value("32"), num_keys=1), "must be a power of 2"),
    "no axes": (table(entry("a", (), "F32", 0)), "'a' must have from 1 to 4 axes; got 0"),
    "2^31 axes": (head(text("a"), struct.pack("<I", 2**31), num_tensors=1), "from 1 to 4 axes"),
    "an axis of 0": (table(entry("a", (3, 0), "F32", 0)), "axes of 1 to"),
    "axes whose product overflows": (table(entry("a", (2**31 - 1,) * 4, "F32", 0)), "up to byte 8507059"),
    "an axis of 2^63": (table(entry("a", (2**63,), "F32", 0)), "axes of 1 to"),
    "a kind that is not read": (table(entry("a", (256,), 12, 0)), "of a kind that is read here; got Q4_K"),
    "a kind that there is not": (table(entry("a", (256,), 99, 0)), "got number 99 (choices: F32, F16"),
    "part of a block": (table(entry("a", (33,), "Q4_0", 0)), "rows of whole blocks of 32; got 33"),
    "a place off the alignment": (table(entry("a", (1,), "F32", 4), room=64), "multiple of 32; got 4"),
    "a place beyond the end": (table(entry("a", (1,), "F32", 2**62)), "up to byte 46116860"),
    "data that is cut off": (table(entry("a", (64,), "F32", 0), room=255), "up to byte 320, and is cut off or damaged"),
    "a tensor twice": (table(entry("a", (1,), "F32", 0), entry("a", (1,), "F32", 32), room=64), "each tensor once"),
    "shared bytes": (
        table(entry("a", (9,), "F32", 0), entry("b", (1,), "F32", 32), room=64),
        "'b' must share no bytes",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_malformed_is_one_line(name, tmp_path):
    content, message = BROKEN[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_header(path)
    assert str(raised.value).startswith(f"checkpoint: {path}")
    assert message in str(raised.value)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    metadata = {"a": "text", "b": ["x", "yz"], "c": [1, 2], "d": True}
    content = write_gguf(tmp_path / "whole.gguf", metadata, ONE).read_bytes()
    path = tmp_path / "cut.gguf"
    # What fills the last tensor up belongs to no tensor.
    for length in range(len(content) - 8):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="cut off"):
            read_header(path)


def test_a_file_that_is_larger_than_any_header_is_not_read_through(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(head(text("k"), struct.pack("<IQ", TEXT, 2**26), num_keys=1))
    os.truncate(path, 2**40)
    with pytest.raises(UserError, match="at most 67108864 bytes before its tensors"):
        read_header(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_what_is_no_file_is_refused(kind, tmp_path):
    path = tmp_path / "a.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match="must exist" if kind == "missing" else "must be a regular file"):
        read_header(path)
