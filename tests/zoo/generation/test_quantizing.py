"""Quantized caches: smaller, close to the numbers they stand for, and refused where a cache has none of its kind."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache, load_prompt_cache

from tests.zoo.generation.models import random_text, tiny_model
from tests.zoo.generation.test_conversation import one_each
from tests.zoo.generation.test_drafting import FORGETTING, drafted, write
from tests.zoo.generation.test_prompt_cache import NAMED
from zoo.config import UserError
from zoo.generation import CacheQuantization, Context, SavedContext, save_context
from zoo.layers.caches import QuantizedKVCache

EIGHT = CacheQuantization(bits=8)
READ = NAMED.encode(random_text(37))


def wide(name, **choices):
    return tiny_model(name, head_dim=32, **choices)


def logits_after(model, context, tokens):
    context.read(tokens[:-1], step_size=9)
    return np.array(model(mx.array([tokens[-1:]]), cache=context.cache)[0, -1])


@pytest.mark.parametrize("name", FORGETTING)
def test_scores_stay_close_and_bytes_shrink(name):
    model = wide(name)
    plain, quantized = Context(model), Context(model, quantization=EIGHT)
    before, after = (logits_after(model, context, READ) for context in (plain, quantized))
    error = np.abs(before - after).max() / np.abs(before).max()
    # Weights of these models are large, and so is what a rounded key does.
    assert 0 < error < 0.1
    # 8 bits of 32, and a scale and a bias of 32 bits for each 32 numbers.
    assert quantized.nbytes * 32 == plain.nbytes * 10


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_cache_gives_out_what_it_was_given_but_for_its_bits(bits):
    # A step of the scale from -1 to 1.
    error = 2 / (2**bits - 1)
    cache, exact = QuantizedKVCache(group_size=32, bits=bits), KVCache()
    assert cache.nbytes == 0
    mx.random.seed(1)
    for length in (3, 1, 300, 1):
        keys, values = mx.random.uniform(-1, 1, (2, 3, length, 64)), mx.random.uniform(-1, 1, (2, 3, length, 64))
        for got, given in zip(cache.update_and_fetch(keys, values), exact.update_and_fetch(keys, values), strict=True):
            assert got.shape == given.shape
            assert got.dtype == given.dtype
            assert mx.abs(got - given).max() < error
    cache.trim(2)
    exact.trim(2)
    assert mx.abs(cache.keys_and_values()[1] - exact.keys_and_values()[1]).max() < error
    assert cache.offset == 303


def test_a_text_returns_drafts_and_is_kept_in_a_file(tmp_path):
    model = wide("mha")
    plain = Context(model, quantization=EIGHT)
    text = write(model, plain)
    assert write(model, drafted(model, wide("mha", num_layers=1), context=Context(model, quantization=EIGHT))) == text
    plain.return_to(11)
    save_context(tmp_path / "kept.safetensors", plain, model=model, tokenizer=NAMED)
    assert {type(each).__name__ for each in load_prompt_cache(str(tmp_path / "kept.safetensors"))} == {
        "QuantizedKVCache"
    }
    saved = SavedContext(tmp_path / "kept.safetensors", model=model, tokenizer=NAMED, quantization=EIGHT)
    assert saved.context.nbytes == plain.nbytes
    assert write(model, saved.context, "on") == write(model, plain, "on")
    for other in (None, CacheQuantization(bits=4)):
        with pytest.raises(UserError, match=r"^prompt_cache: "):
            SavedContext(tmp_path / "kept.safetensors", model=model, tokenizer=NAMED, quantization=other)


@pytest.mark.parametrize("name", sorted(set(one_each()) - set(FORGETTING)))
def test_caches_of_other_kinds_are_refused_by_name(name):
    with pytest.raises(UserError, match=rf"kv_bits must be null with attention '{name}': it keeps a \w+Cache"):
        Context(wide(name), quantization=EIGHT)


def test_sizes_that_do_not_fit_are_refused():
    for bits in (0, 3, 16):
        with pytest.raises(UserError, match=f"kv_bits must be .*; got {bits} .choices: 2, 4, 8"):
            CacheQuantization(bits=bits)
    with pytest.raises(UserError, match="kv_group_size must be a size of groups; got 7"):
        CacheQuantization(bits=4, group_size=7)
    with pytest.raises(UserError, match="kv_group_size must divide the model's head_dim = 32; got 64"):
        Context(wide("mha"), quantization=CacheQuantization(bits=4, group_size=64))
    with pytest.raises(UserError, match="kv_group_size must divide the model's head_dim = 6; got 32"):
        Context(tiny_model("mha"), quantization=EIGHT)
    assert Context(tiny_model("mha", head_dim=64), quantization=EIGHT).cache[0].group_size == 64
