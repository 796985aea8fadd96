"""What the references under `pretrained/` are made of: models with awkward settings, and older spellings of files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

V = 96
SMALL = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
HALF, BRAIN = torch.float16, torch.bfloat16


def rewrite_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a saved `config.json`, as an older version or a stranger would have written it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def rewrite_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Changes the saved tensors."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.contiguous().clone() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def as_version_4(config: dict[str, Any]) -> None:
    """Spells rotary positions as transformers 4 did."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.41.2"


def with_inv_freq(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Adds the buffers that early versions saved; wrong ones, which nobody may read."""
    return {**tensors, **{f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(3) for layer in (0, 1)}}


def as_gpt2_on_the_hub(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without prefix, and each layer's causal mask."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.tril(torch.ones(1, 1, 8, 8)) for layer in (0, 1)}
    return {**bare, **masks}


def as_bert_on_the_hub(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Norms named gamma and beta, the head for pairs of sentences, and the buffer of positions."""
    renamed = {
        re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)): tensor
        for name, tensor in tensors.items()
    }
    return {**renamed, "bert.embeddings.position_ids": torch.arange(24)[None]}


def llama(**changes: Any) -> transformers.PreTrainedModel:
    """Llama with grouped heads of width 6, which is not 16 / 4."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**GROUPED, "head_dim": 6, **changes}))


def rope(kind: str, theta: float, **fields: Any) -> dict[str, Any]:
    """Rotary positions as transformers 5 spells them."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **fields}}


def qwen(cls: str, **changes: Any) -> transformers.PreTrainedModel:
    """Qwen2 or Qwen3."""
    config = getattr(transformers, f"{cls}Config")(**{**GROUPED, **changes})
    return getattr(transformers, f"{cls}ForCausalLM")(config)


def bert(cls: str, **changes: Any) -> transformers.PreTrainedModel:
    """BERT with three token types."""
    config = transformers.BertConfig(**{**SMALL, "max_position_embeddings": 24, "type_vocab_size": 3, **changes})
    return getattr(transformers, cls)(config)


def gpt2(**changes: Any) -> transformers.PreTrainedModel:
    """GPT-2 with an inner width of its own."""
    sizes = {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 28}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**{**sizes, "bos_token_id": 1, "eos_token_id": 2, **changes})
    )


YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
# Name: the model, and how it is saved: dtype, tokenizer, size of shards, and changes of what was saved.
CASES: dict[str, tuple[Callable[[], transformers.PreTrainedModel], dict[str, Any]]] = {
    "llama": (lambda: llama(**rope("default", 777.0)), {"tokenizer": "llama"}),
    "llama_linear": (
        lambda: llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **rope("linear", 5e3, factor=2.5)),
        {"dtype": HALF},
    ),
    "llama_dynamic": (
        lambda: llama(max_position_embeddings=16, **rope("dynamic", 1e3, factor=3.0)),
        {"dtype": BRAIN, "tokenizer": "llama"},
    ),
    "llama_llama3": (lambda: llama(head_dim=8, **rope("llama3", 500.0, **LLAMA3)), {"dtype": HALF, "shard": "8KB"}),
    "llama_yarn": (lambda: llama(head_dim=8, **rope("yarn", 1e3, **YARN)), {"dtype": BRAIN}),
    "llama_yarn_mscale": (
        lambda: llama(
            head_dim=8,
            **rope("yarn", 1e3, mscale=0.9, mscale_all_dim=0.3, beta_fast=2.0, beta_slow=0.05, truncate=False, **YARN),
        ),
        {"dtype": BRAIN},
    ),
    "llama_yarn_factor": (
        lambda: llama(head_dim=8, **rope("yarn", 1e3, mscale=0.5, attention_factor=1.3, **YARN)),
        {"dtype": BRAIN},
    ),
    "llama_of_4": (
        lambda: llama(num_key_value_heads=1, **rope("default", 333.0)),
        {"dtype": HALF, "config": as_version_4, "tensors": with_inv_freq},
    ),
    "llama_yarn_of_4": (
        lambda: llama(head_dim=8, **rope("yarn", 2e3, **YARN)),
        {"dtype": HALF, "config": as_version_4},
    ),
    "mistral": (
        lambda: transformers.MistralForCausalLM(
            transformers.MistralConfig(**{**GROUPED, "head_dim": 6, "sliding_window": 7, **rope("default", 2e3)})
        ),
        {"dtype": BRAIN, "tokenizer": "llama"},
    ),
    "mistral_full": (
        lambda: transformers.MistralForCausalLM(
            transformers.MistralConfig(**{**GROUPED, "sliding_window": None, **rope("default", 2e3)})
        ),
        {"dtype": BRAIN, "config": as_version_4},
    ),
    "qwen2": (
        lambda: qwen("Qwen2", tie_word_embeddings=True, **rope("default", 1e6)),
        {"dtype": HALF, "tokenizer": "gpt2"},
    ),
    "qwen2_window": (
        lambda: qwen(
            "Qwen2",
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
            **rope("default", 1e6),
        ),
        {"dtype": BRAIN},
    ),
    "qwen2_layers": (
        lambda: qwen(
            "Qwen2",
            use_sliding_window=True,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
            **rope("default", 5e2),
        ),
        {"dtype": HALF},
    ),
    "qwen3": (
        lambda: qwen("Qwen3", head_dim=6, attention_bias=True, rms_norm_eps=1e-3, **rope("default", 1e6)),
        {"dtype": BRAIN, "tokenizer": "gpt2"},
    ),
    "gpt2": (gpt2, {"tokenizer": "gpt2"}),
    "gpt2_bare": (
        lambda: gpt2(n_inner=None, activation_function="relu", layer_norm_epsilon=1e-3),
        {"dtype": HALF, "tensors": as_gpt2_on_the_hub},
    ),
    "gpt2_untied": (lambda: gpt2(tie_word_embeddings=False), {"dtype": BRAIN}),
    "bert": (lambda: bert("BertForMaskedLM"), {"tokenizer": "bert"}),
    "bert_untied": (lambda: bert("BertForMaskedLM", tie_word_embeddings=False), {}),
    "bert_encoder": (lambda: bert("BertModel", hidden_act="relu", layer_norm_eps=1e-3), {"dtype": HALF}),
    "bert_hub": (lambda: bert("BertForPreTraining"), {"dtype": HALF, "tensors": as_bert_on_the_hub}),
    "bert_classes": (lambda: bert("BertForSequenceClassification", num_labels=5), {"dtype": BRAIN}),
}
# Those whose `generation_config.json` names a second token that ends a text.
ENDS_EARLY = ("qwen2",)
# Name: the checkpoint that MLX quantizes, how, and the layers that it does otherwise; widths that groups of 32 divide.
WIDE = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
QUANTIZED: dict[str, tuple[Callable[[], transformers.PreTrainedModel], dict[str, Any], dict[str, Any]]] = {
    "llama_4_bits": (
        lambda: llama(**WIDE, num_hidden_layers=1, tie_word_embeddings=True, **rope("default", 777.0)),
        {"group_size": 32, "bits": 4},
        {},
    ),
    "qwen3_mixed": (
        lambda: qwen("Qwen3", **WIDE, **rope("default", 777.0)),
        {"group_size": 32, "bits": 4},
        {"down_proj": {"group_size": 64, "bits": 8}, "o_proj": False},
    ),
    "llama_mxfp4": (
        lambda: llama(**WIDE, num_hidden_layers=1, **rope("default", 777.0)),
        {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        {},
    ),
    "gpt2_4_bits": (lambda: gpt2(n_embd=32, n_inner=None, n_layer=1), {"group_size": 32, "bits": 4}, {}),
}
