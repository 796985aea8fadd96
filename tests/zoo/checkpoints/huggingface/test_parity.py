"""Every family and option against transformers' own results, which `tests/references/make_pretrained.py` has stored."""

import functools

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.zoo.checkpoints.huggingface.references import (
    ENCODERS,
    LANGUAGE_MODELS,
    NAMES,
    PARITY,
    difference,
    expected,
    model_folder,
)
from zoo.checkpoints import load_checkpoint, load_model, save_checkpoint
from zoo.checkpoints.huggingface.load import FAMILIES
from zoo.checkpoints.huggingface.table import tensors
from zoo.config.files import read_json_mapping
from zoo.generation import GenerationConfig, generate_batch, generate_text
from zoo.ops.masks import MaskSpec

WITH_TEXT = [name for name in LANGUAGE_MODELS if "greedy" in expected(name)]


@functools.cache
def loaded(name):
    return load_checkpoint(model_folder(name)).model


def test_there_is_a_reference_for_every_family():
    assert {read_json_mapping(model_folder(name) / "config.json", what="it")["model_type"] for name in NAMES} == set(
        FAMILIES
    )


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_logits_equal_those_of_transformers(name):
    facts = expected(name)
    assert difference(loaded(name)(mx.array(facts["tokens_BL"])), facts["logits_BLV"]) < PARITY


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_logits_with_a_cache_equal_those_of_transformers_with_a_cache(name):
    facts, model = expected(name), loaded(name)
    tokens_BL, prefill = mx.array(facts["tokens_BL"]), int(facts["prefill"])
    cache = model.make_cache()
    steps = [model(tokens_BL[:, :prefill], cache=cache)[0, -1]]
    steps += [
        model(tokens_BL[:, index : index + 1], cache=cache)[0, -1] for index in range(prefill, tokens_BL.shape[1])
    ]
    assert difference(mx.stack(steps), facts["steps_LV"]) < PARITY


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_equals_that_of_transformers_with_token_types_and_padding(name):
    facts, model = expected(name), loaded(name)
    tokens_BL, types_BL = mx.array(facts["tokens_BL"]), mx.array(facts["types_BL"])
    asked = {"mask": MaskSpec(causal=False, lengths_B=mx.array(facts["lengths_B"])), "token_types_BL": types_BL}
    valid_BL = np.arange(tokens_BL.shape[1]) < facts["lengths_B"][:, None]
    hidden_BLD = model.hidden(tokens_BL, **asked)
    assert difference(hidden_BLD, facts["hidden_BLD"], valid_BL) < PARITY
    assert difference(model.sentence_vectors(tokens_BL, **asked), facts["pooled_BD"]) < PARITY
    if "logits_BLV" in facts:
        assert difference(model.logits(hidden_BLD), facts["logits_BLV"], valid_BL) < PARITY
    if "scores_BC" in facts:
        assert difference(model.classify(tokens_BL, **asked), facts["scores_BC"]) < PARITY


@pytest.mark.parametrize("name", WITH_TEXT)
def test_greedy_text_equals_that_of_transformers(name):
    facts = expected(name)
    model, tokenizer = load_model(model_folder(name))
    config = GenerationConfig(max_tokens=20, prefill_step_size=5)
    prompt = str(facts["prompt"])
    assert generate_text(model, tokenizer, prompt, config).text == str(facts["greedy"])
    assert [each.text for each in generate_batch(model, tokenizer, [prompt] * 2, config)] == [str(facts["greedy"])] * 2


@pytest.mark.parametrize(
    "name", ["llama_dynamic", "mistral", "qwen3_mixed", "llama_mxfp4", "gpt2_untied", "bert_encoder"]
)
def test_a_foreign_model_saved_here_is_the_same_model(name, tmp_path):
    model, facts = loaded(name), expected(name)
    save_checkpoint(tmp_path / "own", model=model)
    again = load_checkpoint(tmp_path / "own").model
    tokens_BL = mx.array(facts["tokens_BL"])
    assert again.config == model.config
    assert mx.array_equal(again.hidden(tokens_BL), model.hidden(tokens_BL))


def test_a_foreign_tokenizer_saved_here_ends_texts_as_its_model_says(tmp_path):
    model, tokenizer = load_model(model_folder("qwen2"))
    save_checkpoint(tmp_path / "own", model=model, tokenizer=tokenizer)
    again = load_model(tmp_path / "own")[1]
    assert len(tokenizer.end_ids) == 2
    # Transformers adds a token for padding to every Qwen2 tokenizer, and this model has no weights for it.
    assert tokenizer.vocab_size == again.vocab_size == model.config.vocab_size > max(tokenizer.pad_id, again.pad_id)
    assert again.end_ids == tokenizer.end_ids
    assert again.encode_prompt("the cat") == tokenizer.encode_prompt("the cat")
    assert again.for_a_new_model().end_ids == {tokenizer.eos_id}


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt2_untied", "gpt2_4_bits", "bert", "bert_classes"])
def test_the_table_gives_back_the_tensors_of_the_file(name):
    model, file = loaded(name), mx.load(str(model_folder(name) / "model.safetensors"))
    family = FAMILIES[read_json_mapping(model_folder(name) / "config.json", what="it")["model_type"]]
    arrays = dict(tree_flatten(model.parameters()))
    given = {each.theirs: each.theirs_from(arrays) for each in tensors(family.modules(model.config, file), arrays)}
    # A tied bias stands in a file once or twice.
    assert file.keys() - given.keys() <= {"cls.predictions.bias"}
    assert given.keys() <= file.keys()
    assert all(mx.array_equal(given[key], file[key]) for key in given)
