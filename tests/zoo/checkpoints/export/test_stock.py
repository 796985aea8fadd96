"""What came from Hugging Face's layout goes back as it came; what stock code computes leaves as a stock model."""

import dataclasses
import json

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.full_disk import FullDisk
from tests.zoo.checkpoints.huggingface.references import ENCODERS, NAMES, PARITY, expected, model_folder
from tests.zoo.checkpoints.saved import TOKENIZER, small_model
from zoo.checkpoints import load_checkpoint
from zoo.checkpoints.export import MODEL_FILE, export_model, layout_of
from zoo.checkpoints.huggingface.load import FAMILIES, read_config
from zoo.checkpoints.huggingface.weights import open_weights
from zoo.config import UserError
from zoo.config.folders import new_folder

FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def export(folder, name, **options):
    loaded = load_checkpoint(model_folder(name))
    folder.mkdir(exist_ok=True)
    layout = export_model(folder, loaded.model, tokenizer=loaded.tokenizer, source=loaded.folder, **options)
    return loaded.model, layout


def computed(model, name):
    tokens_BL = mx.array(expected(name)["tokens_BL"])
    return model.hidden(tokens_BL) if name in ENCODERS else model(tokens_BL)


def tensors(folder, family):
    with open_weights(folder) as shards:
        return {known: shards.read(name) for name, known in family.canonical(shards.entries).items()}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_imported_goes_back_as_it_was(name, tmp_path):
    model, layout = export(tmp_path, name)
    again = load_checkpoint(tmp_path).model
    assert mx.array_equal(computed(model, name), computed(again, name))
    before, after = read_config(model_folder(name)), read_config(tmp_path)
    assert after["model_type"] == before["model_type"]
    for key in ("eos_token_id", "bos_token_id", "id2label"):
        assert after.get(key) == before.get(key) or key not in before
    family = FAMILIES[layout.architecture]
    theirs, ours = tensors(model_folder(name), family), tensors(tmp_path, family)
    assert ours.keys() <= theirs.keys()
    assert all(family.harmless.fullmatch(each) for each in theirs.keys() - ours.keys())
    if name == "bert_untied":
        # transformers reads the decoder's bias alone, and misses the other one in a file without it.
        assert mx.array_equal(ours.pop("cls.predictions.bias"), ours["cls.predictions.decoder.bias"])
    for each, array in ours.items():
        assert array.dtype == theirs[each].dtype
        assert mx.array_equal(array, theirs[each])
    for path in model_folder(name).glob("tokenizer*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert layout.in_mlx_lm or name in ENCODERS or (tmp_path / MODEL_FILE).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENCODERS])
def test_mlx_lm_computes_the_same(name, tmp_path):
    model, layout = export(tmp_path, name)
    theirs, _ = load_in_mlx_lm(tmp_path, trust_remote_code=layout.has_model_file)
    theirs.set_dtype(mx.float32)
    assert mx.abs(theirs(mx.array(expected(name)["tokens_BL"])) - computed(model, name)).max() <= PARITY


@pytest.mark.parametrize("attention", ["mha_manual", "mha_tiled", "adaptive", "gqa"])
def test_another_computation_of_one_function_is_a_stock_model(attention):
    model = small_model(attention, family="llama")
    layout = layout_of(model)
    assert (layout.architecture, layout.in_transformers, layout.in_mlx_lm) == ("llama", True, True)


def test_weights_take_the_dtype_that_is_asked_for(tmp_path):
    export(tmp_path, "llama", dtype=mx.bfloat16)
    assert {array.dtype for array in mx.load(str(tmp_path / "model.safetensors")).values()} == {mx.bfloat16}
    assert read_config(tmp_path)["torch_dtype"] == "bfloat16"


def test_a_weight_that_the_dtype_cannot_hold_is_named(tmp_path):
    model = small_model(family="llama")
    model.norm.weight = mx.full(model.norm.weight.shape, 1e6)
    with pytest.raises(UserError, match="norm"):
        export_model(tmp_path, model, tokenizer=TOKENIZER, dtype=mx.float16)


def test_large_models_leave_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.checkpoints.export.folder.SHARD_BYTES", 2000)
    model, _ = export(tmp_path, "llama")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) == len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert mx.array_equal(computed(load_checkpoint(tmp_path).model, "llama"), computed(model, "llama"))


def test_a_classifier_leaves_as_one_with_the_names_of_its_classes(tmp_path):
    model = small_model(family="bert", head_dim=3, num_classes=3, labels=["bad", "fair", "good"])
    layout = export_model(tmp_path, model, tokenizer=TOKENIZER)
    assert layout.config["architectures"] == ["BertForSequenceClassification"]
    assert layout.config["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    again = load_checkpoint(tmp_path).model
    assert again.config == dataclasses.replace(model.config, num_kv_heads=None, intermediate_size=14, head_dim=None)
    assert mx.array_equal(again.classify(mx.array([[1, 2]])), model.classify(mx.array([[1, 2]])))


def test_an_encoder_that_no_other_tool_has_stays_here():
    with pytest.raises(UserError, match="encoder with attention 'swa'"):
        layout_of(small_model("swa", family="bert"))


def test_the_folder_holds_nothing_but_what_is_needed(tmp_path):
    export(tmp_path, "llama")
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_a_disk_that_is_full_at_any_change_leaves_nothing(tmp_path):
    loaded = load_checkpoint(model_folder("llama"))

    def write(out):
        with new_folder(out) as folder:
            export_model(folder, loaded.model, tokenizer=loaded.tokenizer, source=loaded.folder)

    whole = FullDisk(tmp_path, fails_from=None)
    with whole.entered():
        write(tmp_path / "whole")
    renamed = next(number for number, change in enumerate(whole.changes, 1) if change.startswith("rename"))
    # What comes after the renaming is the forcing of its name to the disk.
    for number in range(1, renamed + 1):
        disk = FullDisk(tmp_path, fails_from=number)
        with disk.entered(), pytest.raises(OSError, match="No space left on device"):
            write(tmp_path / "cut")
        assert [path.name for path in tmp_path.iterdir()] == ["whole"], disk.changes[-1]
