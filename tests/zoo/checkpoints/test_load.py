import json
import shutil

import mlx.core as mx
import pytest

import zoo
from tests.tolerances import tolerance
from tests.zoo.checkpoints.saved import TOKENIZER, save_all, small_model
from zoo.attention.catalog import attention_names, variant
from zoo.checkpoints import History, VerifiedFiles, load_checkpoint, load_model, save_checkpoint
from zoo.config import UserError

TOKENS = mx.array([[7, 100, 101, 33, 32, 5, 5, 250, 0, 1, 99, 64, 9]])


def test_a_model_loads_from_its_folder_and_gives_the_same_logits(tmp_path):
    model = small_model().eval()
    save_all(tmp_path / "one", model)
    loaded, tokenizer = zoo.load_model(tmp_path / "one")
    assert mx.array_equal(loaded(TOKENS), model(TOKENS)).item()
    assert tokenizer.fingerprint == TOKENIZER.fingerprint


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    for step in (3, 12):
        save_all(History(tmp_path / "checkpoints").path(step), small_model(seed=step))
    assert load_checkpoint(tmp_path).folder == tmp_path / "checkpoints" / "step_000012"


def test_a_checkpoint_that_its_run_drops_before_it_is_open_gives_way_to_a_newer_one(tmp_path, monkeypatch):
    history, dropped = History(tmp_path / "checkpoints"), []

    class Slow(VerifiedFiles):
        def __init__(self, folder):
            if len(dropped) < 3:
                step = history.steps()[-1]
                save_all(history.path(step + 1), small_model(seed=step))
                shutil.rmtree(folder)
                dropped.append(folder)
            super().__init__(folder)

    save_all(history.path(1))
    monkeypatch.setattr("zoo.checkpoints.opening.VerifiedFiles", Slow)
    assert load_checkpoint(tmp_path).folder == history.path(4)
    dropped.clear()
    # Asked for by its own name, it is missed.
    with pytest.raises(UserError, match=r"step_000004.* is missing"):
        load_checkpoint(history.path(4))


def exact_pairs():
    """Other variants of the function that `mha` computes."""
    wanted = variant("mha").capabilities.exact_class
    for name in attention_names():
        parts = variant(name).variants()
        groups = {vars(part.parameters)["num_kv_heads"] for part in parts if "num_kv_heads" in vars(part.parameters)}
        shares = {vars(part.parameters).get("queries_per_kv_head") for part in parts}
        if {part.capabilities.exact_class for part in parts} == {wanted} and groups == shares == {None}:
            yield name


@pytest.mark.parametrize("attention", list(exact_pairs()))
def test_another_implementation_of_the_attention_gives_the_same_logits(attention, tmp_path):
    model = small_model().eval()
    save_all(tmp_path / "one", model)
    loaded, _ = load_model(tmp_path / "one", attention=attention)
    assert loaded.config.attention.name == attention
    assert mx.abs(loaded(TOKENS) - model(TOKENS)).max().item() <= tolerance(mx.float32)


def test_another_mechanism_takes_the_same_weights(tmp_path):
    save_all(tmp_path / "one")
    plain, _ = load_model(tmp_path / "one")
    windowed, _ = load_model(tmp_path / "one", attention="swa_masked")
    assert {part.mechanism for part in windowed.config.attention.variants()} == {"sliding_window"}
    assert mx.array_equal(plain.embed_tokens.weight, windowed.embed_tokens.weight).item()


def test_layers_are_chosen_beside_another_attention_only(tmp_path):
    save_all(tmp_path / "one")
    loaded, _ = load_model(tmp_path / "one", attention="swa", layers=[-1])
    assert [layer.name for layer in loaded.config.attention.layer_pattern] == ["mha", "swa"]
    with pytest.raises(UserError, match=r"layers must be null without another attention; got \[0\]"):
        load_model(tmp_path / "one", layers=[0])


def test_missing_and_unexpected_parameters_are_named(tmp_path):
    folder = save_all(tmp_path / "one")
    untied = small_model(tie_word_embeddings=False)
    other = save_checkpoint(tmp_path / "two", model=untied)
    (folder / "config.json").write_bytes((other / "config.json").read_bytes())
    from zoo.checkpoints.manifest import write_manifest

    (folder / "manifest.json").unlink()
    write_manifest(folder)
    with pytest.raises(UserError, match=r"missing: lm_head\.weight"):
        load_checkpoint(folder)


def test_a_checkpoint_without_tokenizer_is_no_use_to_load_model(tmp_path):
    save_checkpoint(tmp_path / "one", model=small_model())
    assert load_checkpoint(tmp_path / "one").tokenizer is None
    with pytest.raises(UserError, match="must hold a tokenizer"):
        load_model(tmp_path / "one")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such folder"),
        ({}, "holds no manifest.json"),
        ({"config.json": '{"format": "attention-zoo"}'}, "holds no manifest.json"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content, message, tmp_path):
    folder = tmp_path / "one"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("format", "other", "written by Attention Zoo"), ("format_version", 99, "format_version must be 1; got 99")],
)
def test_formats_of_others_and_of_the_future_are_refused(key, value, message, tmp_path):
    from zoo.checkpoints.manifest import write_manifest

    folder = save_all(tmp_path / "one")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    (folder / "manifest.json").unlink()
    write_manifest(folder)
    with pytest.raises(UserError, match=message):
        load_checkpoint(folder)


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(UserError, match="must be a folder or a Hub id"):
        load_model("no/such/folder/any where")
