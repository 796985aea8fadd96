"""Checkpoints of strangers: every sum in the manifest is right, and the content is anything but."""

import json
import shutil
import struct

import mlx.core as mx
import pytest

from tests.zoo.checkpoints.saved import small_model, small_optimizer
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from zoo.checkpoints import VerifiedFiles, load_checkpoint, restore_optimizer, save_checkpoint
from zoo.checkpoints.manifest import MANIFEST, write_manifest
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer, load_tokenizer
from zoo.training import TrainingState, resume_run

DEEP = "[" * 100_000
MISSING = object()


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    model = small_model()
    return save_checkpoint(
        tmp_path_factory.mktemp("run") / "checkpoints" / "step_000004",
        model=model,
        tokenizer=BytesTokenizer(),
        optimizer_state=small_optimizer(model).state,
        training_state=TrainingState(step=4).as_mapping(),
        config={},
    )


@pytest.fixture
def folder(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "checkpoints" / "step_000004")


def seal(folder):
    (folder / MANIFEST).unlink()
    write_manifest(folder)


def load(folder):
    """All that reads a checkpoint: for use, and to go on training."""
    load_checkpoint(folder)
    model = small_model()
    return resume_run(folder.parent, model=model, optimizer=small_optimizer(model), run_config={})


def refusal(folder, name, *words):
    seal(folder)
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert str(folder / name) in message
    for word in words:
        assert word in message


def test_an_intact_one_is_loaded(folder):
    seal(folder)
    assert load(folder).step == 4


JSON_FILES = ("config.json", "training_state.json", "zoo_tokenizer.json")


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', DEEP, '{"a": NaN}', '{"a": 1, "a": 2}', "\udcff"])
def test_json_that_is_no_object_is_refused(name, text, folder):
    (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    refusal(folder, name)


WRONG = {
    "config.json": {
        "format": [MISSING, 1, None, []],
        "format_version": [MISSING, "1", 2, None, True, 1.5],
        "has_tokenizer": [MISSING, 1, "false", None, []],
        "model": [MISSING, None, 3, [], {}],
        "run": [MISSING, None, 3, []],
        "more": [1],
    },
    "training_state.json": {
        "step": ["4", None, -1, 5, 4.5, True, 2**60, 10**400],
        "tokens": ["4", None, -1, 1.5],
        "seconds": ["4", None, -1.0, True, 10**400],
        "timed_seconds": [[], -0.5],
        "timed_tokens": ["4", -3],
        "first_loss": ["4", True, []],
        "window_nats": [None, "0"],
        "window_weight": [None, -1],
        "evaluation": [None, [], 3, {"step": "4"}, {"val_loss": "x"}, {"val_accuracy": True}, {"step": 1.5}],
        "random_state": [MISSING, None, 3, [], [1], [1, 2, 3], [-1, 0], [0, 2**32], ["1", 2], [1.5, 2], [True, 1]],
        "more": [1],
    },
    "zoo_tokenizer.json": {"kind": [MISSING, None, 3, [], {}, "pretrained", "x" * 10_000]},
}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(name, field, value) for name, fields in WRONG.items() for field, values in fields.items() for value in values],
    ids=lambda value: repr(value)[:20],
)
def test_a_missing_unknown_or_mistyped_field_is_named(name, field, value, folder):
    content = json.loads((folder / name).read_text())
    if value is MISSING:
        del content[field]
    else:
        content[field] = value
    (folder / name).write_text(json.dumps(content))
    refusal(folder, name, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 7),
        ("vocab_size", "259"),
        ("hidden_size", 13),
        ("num_layers", -1),
        ("family", []),
        ("family", "t5"),
        ("attention", 3),
        ("attention", {}),
        ("dropout", "x"),
        ("more", 1),
    ],
)
def test_a_model_that_cannot_be_is_refused(field, value, folder):
    content = json.loads((folder / "config.json").read_text())
    content["model"][field] = value
    (folder / "config.json").write_text(json.dumps(content))
    seal(folder)
    with pytest.raises(UserError, match=r"config\.json|model\.safetensors"):
        load(folder)


def tensors(path):
    """A safetensors file as a header and bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put(path, header, content, *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content)


TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 2**32, 10**6])
def test_a_length_of_the_header_that_is_not_its_own_is_refused(name, length, folder):
    put(folder / name, *tensors(folder / name), length=length)
    refusal(folder, name)


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"3", b"{}", DEEP.encode(), b"\xff\xfe", b'{"a": 1, "a": 1}', b'{"__metadata__": 3}']
)
def test_a_header_that_is_none_is_refused(name, header, folder):
    put(folder / name, header, tensors(folder / name)[1])
    refusal(folder, name)


@pytest.mark.parametrize("size", [0, 3, 8, 100, -1])
@pytest.mark.parametrize("name", TENSOR_FILES)
def test_a_truncated_file_with_a_right_sum_is_refused(name, size, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:size])
    refusal(folder, name)
    (folder / name).write_bytes(content + b"\0")
    refusal(folder, name)


ENTRIES = {
    "no object": lambda entry: 3,
    "no dtype": lambda entry: {key: value for key, value in entry.items() if key != "dtype"},
    "an unknown dtype": lambda entry: {**entry, "dtype": "F8_E4M3"},
    "a dtype of another size": lambda entry: {**entry, "dtype": "F16"},
    "whole numbers": lambda entry: {**entry, "dtype": "I32"},
    "a dtype that is no text": lambda entry: {**entry, "dtype": 3},
    "an axis more": lambda entry: {**entry, "shape": [*entry["shape"], 1]},
    "another order": lambda entry: {**entry, "shape": entry["shape"][::-1]},
    "a negative shape": lambda entry: {**entry, "shape": [-length for length in entry["shape"]]},
    "an endless shape": lambda entry: {**entry, "shape": [2**62, 4]},
    "a shape of 2**64": lambda entry: {**entry, "shape": [2**64, 0]},
    "many axes": lambda entry: {**entry, "shape": [10**9] * 30_000},
    "a shape of texts": lambda entry: {**entry, "shape": ["3"]},
    "an overlap": lambda entry: {**entry, "data_offsets": [0, entry["data_offsets"][1] - entry["data_offsets"][0]]},
    "the wrong way round": lambda entry: {**entry, "data_offsets": entry["data_offsets"][::-1]},
    "beyond the end": lambda entry: {**entry, "data_offsets": [offset + 2**40 for offset in entry["data_offsets"]]},
    "before the start": lambda entry: {**entry, "data_offsets": [offset - 2**40 for offset in entry["data_offsets"]]},
    "one offset": lambda entry: {**entry, "data_offsets": [0]},
    "offsets that are no numbers": lambda entry: {**entry, "data_offsets": "ab"},
    "offsets beyond 64 bits": lambda entry: {**entry, "data_offsets": [2**70, 2**70]},
    "an unknown key": lambda entry: {**entry, "more": 1},
}


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize("wrong", ENTRIES)
def test_an_array_that_contradicts_the_file_or_the_model_is_refused(wrong, name, folder):
    header, content = tensors(folder / name)
    # Not square, and not the first of the file.
    key = max((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][0])
    rows = [key for key, entry in header.items() if key != "__metadata__" and len(set(entry["shape"])) == 2]
    key = rows[-1] if wrong == "another order" else key
    header[key] = ENTRIES[wrong](header[key])
    put(folder / name, header, content)
    refusal(folder, name)


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize("wrong", ["missing", "renamed", "more", "a name of a megabyte"])
def test_exactly_the_arrays_that_are_wanted_must_be_there(wrong, name, folder):
    arrays = dict(mx.load(str(folder / name)))
    first = sorted(arrays)[0]
    if wrong == "missing":
        del arrays[first]
    elif wrong == "renamed":
        arrays[first.upper()] = arrays.pop(first)
    else:
        arrays["more" if wrong == "more" else "x" * 2**20] = mx.zeros((1,))
    mx.save_safetensors(str(folder / name), arrays)
    refusal(folder, name, "must hold exactly")


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.bool_, mx.complex64, mx.int64])
def test_weights_are_floating_point(dtype, folder):
    path = folder / "model.safetensors"
    mx.save_safetensors(str(path), {name: array.astype(dtype) for name, array in mx.load(str(path)).items()})
    refusal(folder, path.name, "must be float32 or float16 or bfloat16")


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_weights_of_every_floating_type_are_loaded(dtype, folder):
    path = folder / "model.safetensors"
    mx.save_safetensors(str(path), {name: array.astype(dtype) for name, array in mx.load(str(path)).items()})
    seal(folder)
    assert load_checkpoint(folder).model.embed_tokens.weight.dtype == dtype


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize("value", [mx.nan, mx.inf, -mx.inf])
def test_numbers_that_are_not_finite_are_refused(name, value, folder):
    arrays = dict(mx.load(str(folder / name)))
    key = max(arrays, key=lambda key: arrays[key].size)
    arrays[key] = mx.where(mx.arange(arrays[key].size).reshape(arrays[key].shape) == 5, value, arrays[key])
    mx.save_safetensors(str(folder / name), arrays)
    refusal(folder, name, key, "finite")


@pytest.mark.parametrize("change", ["a shape", "a dtype"])
def test_an_optimizer_state_of_another_form_is_refused(change, folder):
    path = folder / "optimizer.safetensors"
    arrays = dict(mx.load(str(path)))
    key = next(key for key, array in arrays.items() if array.ndim == 2)
    arrays[key] = arrays[key][:-1] if change == "a shape" else arrays[key].astype(mx.float16)
    mx.save_safetensors(str(path), arrays)
    seal(folder)
    with VerifiedFiles(folder) as files, pytest.raises(UserError, match=f"{key} must "):
        restore_optimizer(small_optimizer(small_model()), files)


def test_files_that_are_not_listed_do_not_reach_the_tokenizer(tmp_path):
    tokenizer = load_tokenizer(byte_level_checkpoint(tmp_path / "tokenizer"))
    folder = save_checkpoint(tmp_path / "one", model=small_model(vocab_size=300), tokenizer=tokenizer)
    for name in ("added_tokens.json", "special_tokens_map.json", "vocab.json"):
        (folder / name).write_text("{")
    assert load_checkpoint(folder).tokenizer.fingerprint == tokenizer.fingerprint
