"""What transformers does in `tests.endurance.against_transformers`: makes random checkpoints, and reads exported ones.

    python -m tests.endurance.transformers_side make FOLDER FIRST COUNT
    python -m tests.endurance.transformers_side read FOLDER

Runs in an environment that has torch and transformers, and nothing of this project. Letters: B batch, L length.
"""

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.endurance.against_transformers import ANSWER, ASKED, EXPORT, MODEL

_DTYPES = ("float32", "float32", "bfloat16", "float16")


def _rotary(rng: random.Random) -> dict[str, Any]:
    small = rng.choice([16, 32])
    yarn: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": rng.choice([2.0, 4.0]),
        "original_max_position_embeddings": small,
    }
    further = {
        "attention_factor": rng.choice([1.0, 1.3]),
        "beta_fast": rng.choice([16.0, 32.0]),
        "beta_slow": rng.choice([1.0, 2.0]),
        "truncate": False,
    }
    llama3 = {"low_freq_factor": 1.0, "high_freq_factor": rng.choice([2.0, 4.0])}
    scalings: list[dict[str, Any]] = [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": rng.choice([2.0, 3.5])},
        {"rope_type": "dynamic", "factor": rng.choice([2.0, 4.0])},
        {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": small, **llama3},
        yarn,
        {**yarn, **{name: value for name, value in further.items() if rng.random() < 0.5}},
    ]
    return {"rope_theta": rng.choice([1e4, 5e5, 1e6]), **rng.choice(scalings)}


def _sizes(rng: random.Random) -> dict[str, Any]:
    return {
        "vocab_size": rng.choice([50, 97, 128]),
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "num_attention_heads": rng.choice([2, 4, 6]),
        "intermediate_size": rng.choice([32, 56]),
        "max_position_embeddings": rng.choice([32, 64, 128]),
    }


def _decoder(kind: str, rng: random.Random) -> transformers.PreTrainedModel:
    """Llama, Mistral, Qwen 2 or 3, with whatever its config can say."""
    sizes = _sizes(rng)
    heads, head_dim = sizes["num_attention_heads"], rng.choice([4, 8, 16])
    # Qwen2 has no width of a head of its own.
    free = kind != "Qwen2" and rng.random() < 0.4
    sizes["hidden_size"] = heads * (rng.choice([6, 10]) if free else head_dim)
    sizes["num_key_value_heads"] = rng.choice([each for each in (1, 2, 3, 4, 6) if heads % each == 0])
    sizes |= {"tie_word_embeddings": rng.random() < 0.4, "rope_parameters": _rotary(rng)}
    if kind != "Qwen2":
        sizes["head_dim"] = head_dim
    if kind == "Llama":
        sizes |= {"rms_norm_eps": rng.choice([1e-5, 1e-6]), "mlp_bias": rng.random() < 0.3}
    if kind in ("Llama", "Qwen3"):
        sizes["attention_bias"] = rng.random() < 0.3
    if kind == "Mistral":
        sizes["sliding_window"] = rng.choice([None, 3, 8, 64])
    if kind.startswith("Qwen"):
        sizes |= {"use_sliding_window": rng.random() < 0.5, "sliding_window": rng.choice([4, 16])}
        sizes["max_window_layers"] = rng.choice([0, 1, sizes["num_hidden_layers"]])
    return getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes))


def _gpt2(rng: random.Random) -> transformers.PreTrainedModel:
    sizes = _sizes(rng)
    heads = sizes["num_attention_heads"]
    config = transformers.GPT2Config(
        vocab_size=sizes["vocab_size"],
        n_positions=sizes["max_position_embeddings"],
        n_embd=8 * heads,
        n_layer=sizes["num_hidden_layers"],
        n_head=heads,
        n_inner=rng.choice([None, 40]),
        activation_function=rng.choice(["gelu_new", "gelu", "relu", "gelu_pytorch_tanh"]),
        scale_attn_weights=rng.random() < 0.9,
        scale_attn_by_inverse_layer_idx=rng.random() < 0.1,
        tie_word_embeddings=rng.random() < 0.8,
    )
    return transformers.GPT2LMHeadModel(config)


def _bert(rng: random.Random) -> transformers.PreTrainedModel:
    sizes = _sizes(rng)
    config = transformers.BertConfig(
        **sizes,
        hidden_size=8 * sizes["num_attention_heads"],
        hidden_act=rng.choice(["gelu", "relu", "gelu_new"]),
        type_vocab_size=rng.choice([1, 2, 3]),
        num_labels=rng.choice([2, 5]),
        tie_word_embeddings=rng.random() < 0.7,
    )
    made = rng.choice(["BertForMaskedLM", "BertModel", "BertForSequenceClassification", "BertForPreTraining"])
    return getattr(transformers, made)(config)


_KINDS: Mapping[str, Callable[[random.Random], transformers.PreTrainedModel]] = {
    **{kind: lambda rng, kind=kind: _decoder(kind, rng) for kind in ("Llama", "Mistral", "Qwen2", "Qwen3")},
    "GPT2": _gpt2,
    "Bert": _bert,
}


def make(folder: Path, number: int) -> None:
    """One checkpoint, a pure function of its number, and what transformers computes of it in float32."""
    rng = random.Random(number)
    torch.manual_seed(number)
    model = _KINDS[rng.choice(list(_KINDS))](rng)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.ndim > 1 else 0.2) + float(weight.ndim == 1))
    place = folder / f"{number}"
    model.to(getattr(torch, rng.choice(_DTYPES))).save_pretrained(
        place / MODEL, max_shard_size=rng.choice(["1GB", "20KB"])
    )
    if rng.random() < 0.5:
        _as_version_4(place / MODEL / "config.json", rng)
    length = min(rng.choice([5, 20, 31, 48]), model.config.max_position_embeddings)
    tokens_BL = torch.randint(1, model.config.vocab_size, (2, length))
    types_BL = torch.randint(0, getattr(model.config, "type_vocab_size", 1), (2, length))
    expected = _computed(place / MODEL, type(model).__name__, tokens_BL, types_BL)
    np.savez(place / ASKED, tokens_BL=tokens_BL, types_BL=types_BL, expected=expected, kind=type(model).__name__)


def _as_version_4(path: Path, rng: random.Random) -> None:
    """Writes a config as transformers 4 did, under the older of its own names too."""
    config = json.loads(path.read_text())
    rotary = config.pop("rope_parameters", None)
    if rotary is not None:
        config["rope_theta"] = rotary.pop("rope_theta")
        if rotary["rope_type"] != "default" and rng.random() < 0.5:
            rotary["type"] = rotary.pop("rope_type")
        config["rope_scaling"] = None if rotary.get("rope_type") == "default" else rotary
    config.pop("layer_types", None)
    config["torch_dtype"] = config.pop("dtype", "float32")
    path.write_text(json.dumps(config))


def _computed(folder: Path, kind: str, tokens_BL: torch.Tensor, types_BL: torch.Tensor) -> np.ndarray:
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    types = {"token_type_ids": types_BL} if kind.startswith("Bert") else {}
    with torch.no_grad():
        found = model(input_ids=tokens_BL, **types)
    values = [getattr(found, name, None) for name in ("logits", "prediction_logits", "last_hidden_state")]
    return next(each for each in values if each is not None).numpy()


def read(folder: Path) -> None:
    """What transformers computes of every exported folder that it has a class for."""
    for export in sorted(folder.glob(f"*/{EXPORT}/config.json")):
        architecture = json.loads(export.read_text())["architectures"][0]
        if hasattr(transformers, architecture):
            asked = np.load(export.parents[1] / ASKED)
            given = (torch.tensor(asked[name]) for name in ("tokens_BL", "types_BL"))
            np.save(export.parents[1] / ANSWER, _computed(export.parent, architecture, *given))


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if sys.argv[1] == "make":
        for each in range(int(sys.argv[3]), int(sys.argv[3]) + int(sys.argv[4])):
            make(Path(sys.argv[2]), each)
    else:
        read(Path(sys.argv[2]))
