"""Makes the tiny GGUF files under `gguf/`, and what transformers computes of them.

    python -m tests.references.make_gguf [NAME …]
    python -m tests.references.make_gguf FILE.gguf  # SmolLM2's, where `make smollm` has put it

Needs torch, transformers 5 and gguf, in an environment of its own; the tests that read the result need none of them.
Beside each file lies `NAME.npz` with `tokens_BL` and the `logits_BLV` of transformers' own reading of the file.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.zoo.checkpoints.gguf.texts import TEXTS
from tests.zoo.checkpoints.gguf.tiny import VOCABULARY, metadata, tensors
from tests.zoo.checkpoints.gguf.written import write_gguf

OUT, SMOLLM = (Path(__file__).resolve().parent / name for name in ("gguf", "smollm"))
LENGTH = 20
# Architecture, heads, key/value heads, width of a head, kinds of the embedding, the matrices and the output.
CASES: dict[str, tuple[str, int, int, int, tuple[str, str, str | None]]] = {
    "llama_q4_0": ("llama", 4, 2, 16, ("Q8_0", "Q4_0", "F16")),
    "llama_q4_1": ("llama", 2, 2, 16, ("Q8_0", "Q4_1", None)),
    "llama_q8_0": ("llama", 4, 1, 16, ("Q4_0", "Q8_0", "Q8_0")),
    "llama_f16": ("llama", 2, 1, 32, ("F16", "F16", None)),
    "llama_f32": ("llama", 8, 2, 8, ("F32", "F32", "F32")),
    "qwen2_q8_0": ("qwen2", 4, 2, 8, ("Q8_0", "Q8_0", None)),
    "qwen3_q4_1": ("qwen3", 4, 2, 16, ("Q8_0", "Q4_1", "Q8_0")),
}


def make(name: str) -> None:
    architecture, heads, kv_heads, head_dim, kinds = CASES[name]
    rng = np.random.default_rng(sorted(CASES).index(name))
    about = metadata(architecture, heads, kv_heads, head_dim)
    path = write_gguf(OUT / f"{name}.gguf", about, tensors(architecture, heads, kv_heads, head_dim, kinds, rng))
    # Of Qwen3's files transformers reads every width of a head as 128.
    said = {"head_dim": head_dim} if architecture == "qwen3" else {}
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(OUT, gguf_file=path.name, dtype=torch.float32, **said).eval()
    tokens_BL = rng.integers(0, VOCABULARY, (1, LENGTH))
    with torch.no_grad():
        logits_BLV = model(torch.tensor(tokens_BL)).logits.numpy()
    np.savez_compressed(OUT / f"{name}.npz", tokens_BL=tokens_BL, logits_BLV=logits_BLV)
    print(name, path.stat().st_size, float(np.abs(logits_BLV).max()))


def make_smollm(path: Path) -> None:
    """What transformers computes of the real model: of 512 tokens some columns of the logits and their sums."""
    names = {"gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **names)
    ids = {text: tokenizer.encode(text) for text in TEXTS}
    (SMOLLM / "tokens.json").write_text(json.dumps(ids, indent=1), encoding="ascii")
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **names).eval()
    tokens_BL = np.array([tokenizer.encode(Path(argparse.__file__).read_text())[1000:1512]])
    with torch.no_grad():
        logits_LV = model(torch.tensor(tokens_BL)).logits[0]
    columns = np.sort(np.random.default_rng(0).choice(logits_LV.shape[1], 64, replace=False))
    np.savez_compressed(
        SMOLLM / "expected.npz",
        tokens_BL=tokens_BL,
        columns=columns,
        logits_LC=logits_LV[:, columns].numpy(),
        largest_L=logits_LV.max(-1).values.numpy(),
        best_L=logits_LV.argmax(-1).numpy(),
        log_sums_L=torch.logsumexp(logits_LV.double(), -1).numpy(),
    )


if __name__ == "__main__":
    for folder in (OUT, SMOLLM):
        folder.mkdir(exist_ok=True)
    for each in sys.argv[1:] or CASES:
        if each.endswith(".gguf"):
            make_smollm(Path(each))
        else:
            make(each)
