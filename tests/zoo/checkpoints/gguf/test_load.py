"""Models from GGUF files: what transformers computes of the same file, and one line for what is not read here."""

import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.zoo.checkpoints.gguf.tiny import HIDDEN, metadata, tensors
from tests.zoo.checkpoints.gguf.written import Typed, write_gguf
from zoo.checkpoints import load_checkpoint, load_model
from zoo.checkpoints.gguf.config import config_of
from zoo.checkpoints.gguf.header import read_header
from zoo.config import UserError
from zoo.layers.quantized import CpuQuantizedEmbedding, CpuQuantizedLinear
from zoo.runtime.backend import backend

FILES = sorted((Path(__file__).resolve().parents[3] / "references" / "gguf").glob("*.gguf"))
# As for folders in Hugging Face's layout.
PARITY = 1e-4
TOKENS = mx.array([[7, 100, 101, 33, 32, 5, 5, 250, 0, 1, 99, 64, 9]])


def path_of(kind):
    return next(path for path in FILES if path.stem == kind)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_logits_equal_those_of_transformers(path):
    expected = np.load(path.with_suffix(".npz"))
    model, tokenizer = load_model(path)
    found = np.array(model(mx.array(expected["tokens_BL"])))
    assert np.abs(found - expected["logits_BLV"]).max() < PARITY
    assert tokenizer.decode(tokenizer.encode("the hat, and in")) == "the hat, and in"


@pytest.mark.parametrize("kind", ["llama_q4_1", "llama_q8_0"])
def test_quantized_weights_stay_quantized(kind):
    path = path_of(kind)
    model, _ = load_model(path)
    quantized = [
        each for _, each in model.named_modules() if isinstance(each, nn.QuantizedLinear | nn.QuantizedEmbedding)
    ]
    assert len(quantized) >= 15
    # MLX's own would take minutes for a page of text.
    assert {type(each) for each in quantized} <= {CpuQuantizedLinear, CpuQuantizedEmbedding} or backend() != "cpu"
    # The scales take twice their bytes; the tokenizer and the rest of the head take none.
    assert sum(array.nbytes for _, array in tree_flatten(model.parameters())) < 1.3 * path.stat().st_size


def test_another_attention_takes_a_files_weights():
    path = path_of("llama_q4_1")
    whole = load_model(path)[0](TOKENS)
    assert mx.abs(load_model(path, attention="mha_tiled")[0](TOKENS) - whole).max().item() < PARITY
    assert load_model(path, attention="swa")[0].config.attention.name == "swa"


def model_file(tmp_path, *, architecture="llama", heads=(4, 2, 8), kinds=("F32", "F32", None), **changes):
    """A file of a tiny model in which some keys and tensors are others; None leaves one out."""
    about = metadata(architecture, *heads)
    arrays = tensors(architecture, *heads, kinds, np.random.default_rng(5))
    for name, value in changes.items():
        known = arrays if name.endswith((".weight", ".bias")) else about
        known.pop(name, None)
        if value is not None:
            known[name] = value
    return write_gguf(tmp_path / "model.gguf", about, arrays), arrays


def permuted(array, heads):
    """As llama.cpp stores the rows of queries and keys."""
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_rotary_rows_come_back_into_their_order(leaf, tmp_path):
    heads = {"attn_q": 4, "attn_k": 2, "attn_v": 2}
    rng = np.random.default_rng(6)
    plain = {
        name: rng.random((8 * count, HIDDEN) if leaf == "weight" else 8 * count, np.float32)
        for name, count in heads.items()
    }
    stored = {
        f"blk.{layer}.{name}.{leaf}": (array if name == "attn_v" else permuted(array, heads[name]), "F32")
        for layer in range(2)
        for name, array in plain.items()
    }
    if leaf == "bias":
        stored |= {f"blk.{layer}.attn_output.bias": (np.zeros(HIDDEN, np.float32), "F32") for layer in range(2)}
    model, _ = load_model(model_file(tmp_path, **stored)[0])
    for name, array in plain.items():
        assert np.array_equal(np.array(getattr(model.layers[1].self_attn, f"{name[-1]}_proj")[leaf]), array)


def config(tmp_path, **changes):
    path, _ = model_file(tmp_path, **changes)
    return config_of(read_header(path), path)


def llama3_factors(factor, theta, head_dim):
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_scalings_of_rotary_positions_are_understood(tmp_path):
    theta = {"rope_theta": 50_000.0}
    assert config(tmp_path)["rope_parameters"] == {**theta, "rope_type": "default"}
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert config(tmp_path, **linear)["rope_parameters"] == {**theta, "rope_type": "linear", "factor": 4.0}
    yarn = {**linear, "llama.rope.scaling.type": "yarn", "llama.rope.scaling.original_context_length": 64}
    expected = {**theta, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert config(tmp_path, **yarn)["rope_parameters"] == expected
    long = {"heads": (4, 2, 64), "rope_freqs.weight": (llama3_factors(8.0, 50_000.0, 64), "F32")}
    assert config(tmp_path, **long)["rope_parameters"] == {
        **theta,
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    unscaled = config(tmp_path, **{"rope_freqs.weight": ones(4)})["rope_parameters"]
    assert unscaled["factor"] == 1.0
    scaled, _ = load_model(model_file(tmp_path, **long)[0])
    plain, _ = load_model(model_file(tmp_path, heads=(4, 2, 64))[0])
    assert mx.abs(scaled(TOKENS) - plain(TOKENS)).max().item() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_sliding_window_is_one(architecture, tmp_path):
    changes = {"architecture": architecture, f"{architecture}.attention.sliding_window": 5}
    model, _ = load_model(model_file(tmp_path, **changes)[0])
    assert {(part.mechanism, part.parameters.window_size) for part in model.config.attention.variants()} == {
        ("sliding_window", 5)
    }


def ones(*shape, kind="F32"):
    return np.ones(shape, np.float32), kind


BROKEN = {
    "another architecture": (
        {"general.architecture": "gemma2"},
        "architecture must be one of llama, qwen2, qwen3; got",
    ),
    "no architecture": ({"general.architecture": None}, "general.architecture must be a text; got nothing"),
    "experts": ({"llama.expert_count": 8}, "not read here; got 'llama.expert_count': 8"),
    "a key that nobody knows": ({"llama.attention.twist": True}, "not read here; got 'llama.attention.twist': True"),
    "no number of layers": ({"llama.block_count": None}, "llama.block_count must be a whole number; got nothing"),
    "layers without end": ({"llama.block_count": 2**32 - 1}, "num_layers must be at most"),
    "a width that is a text": ({"llama.embedding_length": "32"}, "llama.embedding_length must be a whole number"),
    "heads of each layer": (
        {"llama.attention.head_count": [4, 4]},
        "llama.attention.head_count must be a whole number",
    ),
    "no heads": ({"llama.attention.head_count": 0}, "llama.attention.head_count must be at least 1"),
    "key heads that do not fit": ({"llama.attention.head_count_kv": 3}, "num_kv_heads must divide num_heads 4; got 3"),
    "part of a head turned": ({"llama.rope.dimension_count": 4}, "must be the width of a head, 8; got 4"),
    "an epsilon that is no number": (
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        "rms_epsilon must be a finite number; got nan",
    ),
    "an unknown scaling": ({"llama.rope.scaling.type": "longrope"}, "must be none, linear or yarn; got 'longrope'"),
    "a scaling without a factor": ({"llama.rope.scaling.type": "linear"}, "scaling.factor must be a finite number"),
    "factors of another length": ({"rope_freqs.weight": ones(999)}, "must be the factors of Llama 3.1"),
    "factors of nothing": ({"rope_freqs.weight": (np.zeros(4, np.float32), "F32")}, "must be the factors of Llama 3.1"),
    "no embedding": ({"token_embd.weight": None}, "must hold token_embd.weight; it is missing"),
    "a missing tensor": ({"blk.1.ffn_up.weight": None}, "missing: model.layers.1.mlp.up_proj.weight"),
    "a layer too many": ({"blk.2.ffn_up.weight": ones(64, 32)}, "unexpected: 'model.layers.2.mlp.up_proj.weight'"),
    "a tensor of nothing": ({"blk.0.ffn_gate_exps.weight": ones(2, 2)}, "must hold no tensors but a Llama's"),
    "another shape": ({"blk.0.ffn_up.weight": ones(32, 64)}, "up_proj.weight must have shape (64, 32); got (32, 64)"),
    "a quantized norm": ({"blk.0.attn_norm.weight": ones(32, kind="Q8_0")}, "quantization must be one that MLX can do"),
    "numbers that are not finite": ({"blk.0.ffn_up.weight": (np.full((64, 32), np.nan, np.float32), "F32")}, "finite"),
    "scales that are not finite": (
        {"blk.0.ffn_up.weight": ((b"\x00\x7c" + bytes(16)) * 64, "Q4_0", (64, 32))},
        "must hold finite numbers",
    ),
    "scales that signal": (
        {"blk.0.ffn_up.weight": ((b"\x01\x7c" + bytes(32)) * 64, "Q8_0", (64, 32))},
        "must hold finite numbers",
    ),
    "a vocabulary below the tokenizer's": ({"llama.vocab_size": 269}, "at least the tokenizer's size; got 269 for 270"),
    "a vocabulary above the embedding": ({"llama.vocab_size": 2**31 - 1}, "embed_tokens.weight must have shape (21474"),
    "a window of nothing": ({"llama.attention.sliding_window": 0}, "sliding_window must be at least 1"),
    "a base of nothing": ({"llama.rope.freq_base": 0.0}, "rope_theta must be at least 1"),
    "a base of another type": (
        {"llama.rope.freq_base": Typed(8, "x")},
        "rope.freq_base must be a finite number; got 'x'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_not_read_is_one_line(fault, tmp_path):
    changes, message = BROKEN[fault]
    path, _ = model_file(tmp_path, **changes)
    with pytest.raises(UserError) as raised:
        load_model(path)
    assert str(raised.value).startswith(f"checkpoint: {path}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_known_by_how_it_begins(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(path_of("llama_q4_1").read_bytes())
    assert load_checkpoint(path).folder == path
    path.write_text("a text")
    with pytest.raises(UserError, match="must be the folder of a checkpoint or of a run"):
        load_checkpoint(path)
