"""Tiny models as GGUF files: what stands in their metadata, and their tensors."""

from typing import Any

import numpy as np

VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS = 270, 32, 64, 2


def metadata(architecture: str, heads: int, kv_heads: int, head_dim: int) -> dict[str, Any]:
    # What a byte-level tokenizer needs least: an alphabet, two special tokens and a few merges.
    letters = [chr(number) for number in (*range(33, 127), *range(161, 173), *range(174, 324))]
    merges = ["t h", "th e", "Ġ the", "a n", "an d", "Ġ and", "i n", "Ġ in", "o n", "e r", "r e", "Ġ a"]
    tokens = ["<s>", "</s>", *letters, *("".join(merge.split(" ")) for merge in merges)]
    assert len(tokens) == VOCABULARY
    found = {
        "general.architecture": architecture,
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INTERMEDIATE,
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": kv_heads,
        f"{architecture}.attention.key_length": head_dim,
        f"{architecture}.attention.value_length": head_dim,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 50_000.0,
        f"{architecture}.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (VOCABULARY - 2),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}",
    }
    if architecture == "llama":
        found["llama.rope.dimension_count"] = head_dim
    return found


def tensors(architecture: str, heads: int, kv_heads: int, head_dim: int, kinds: Any, rng: Any) -> dict[str, Any]:
    embedding, matrix, output = kinds

    def matrices(rows: int, columns: int) -> np.ndarray:
        return (0.3 * rng.normal(size=(rows, columns))).astype(np.float32)

    def norm(size: int) -> tuple[np.ndarray, str]:
        return (1 + 0.2 * rng.normal(size=size)).astype(np.float32), "F32"

    found = {"token_embd.weight": (matrices(VOCABULARY, HIDDEN), embedding), "output_norm.weight": norm(HIDDEN)}
    if output is not None:
        found["output.weight"] = (matrices(VOCABULARY, HIDDEN), output)
    rows = {"attn_q": heads * head_dim, "attn_k": kv_heads * head_dim, "attn_v": kv_heads * head_dim}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        found |= {f"{block}.{name}.weight": (matrices(count, HIDDEN), matrix) for name, count in rows.items()}
        found[f"{block}.attn_output.weight"] = (matrices(HIDDEN, heads * head_dim), matrix)
        found[f"{block}.ffn_gate.weight"] = (matrices(INTERMEDIATE, HIDDEN), matrix)
        found[f"{block}.ffn_up.weight"] = (matrices(INTERMEDIATE, HIDDEN), matrix)
        found[f"{block}.ffn_down.weight"] = (matrices(HIDDEN, INTERMEDIATE), matrix)
        found |= {f"{block}.{name}.weight": norm(HIDDEN) for name in ("attn_norm", "ffn_norm")}
        if architecture == "qwen2":
            for name, count in rows.items():
                found[f"{block}.{name}.bias"] = ((0.3 * rng.normal(size=count)).astype(np.float32), "F32")
        if architecture == "qwen3":
            found |= {f"{block}.{name}.weight": norm(head_dim) for name in ("attn_q_norm", "attn_k_norm")}
    return found
