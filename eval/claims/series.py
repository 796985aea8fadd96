"""The lines of the published figures, as our rows know them."""

from eval.claims.evidence import Series, Setting

# The published layer: one sequence, eight heads of 64, no mask.
FORWARD = Setting(suite="attnbench", mode="forward", batch_size=1)
BACKWARD = Setting(suite="attnbench", mode="forward_backward", batch_size=1)

MANUAL = Series(label="unfused MHA", mechanism="softmax", implementation="manual", causal=False)
FUSED = Series(label="fused MHA", mechanism="softmax", implementation="fused", causal=False)
TILED = Series(label="tiled MHA", mechanism="softmax", implementation="tiled", causal=False)
GQA = Series(label="GQA (4 KV heads)", mechanism="softmax", implementation="fused", num_kv_heads=4, causal=False)
MQA = Series(label="MQA", mechanism="softmax", implementation="fused", num_kv_heads=1, causal=False)
LINEAR = Series(label="linear", mechanism="linear", implementation="chunked", causal=False)
CAUSAL_CUMSUM = Series(label="causal linear (cumsum)", mechanism="linear", implementation="cumsum", causal=True)
CAUSAL_CHUNKED = Series(label="causal linear (chunked)", mechanism="linear", implementation="chunked", causal=True)
LEGACY = Series(label="block-sparse as published", mechanism="block_sparse_legacy", implementation="blocked")

# Without a mask or with one.
ANY_MANUAL = Series(label="unfused MHA", mechanism="softmax", implementation="manual")
ANY_FUSED = Series(label="fused MHA", mechanism="softmax", implementation="fused")


def window(implementation: str, window_size: int = 64) -> Series:
    """A sliding window of one implementation."""
    return Series(
        label=f"{implementation} window ({window_size})",
        mechanism="sliding_window",
        implementation=implementation,
        parameters={"window_size": window_size},
        causal=False,
    )


def block_sparse(block_size: int = 32) -> Series:
    """Block-sparse attention with one joint softmax and, as published, one global token."""
    return Series(
        label=f"block-sparse ({block_size})",
        mechanism="block_sparse",
        implementation="blocked",
        parameters={"block_size": block_size, "num_global_tokens": 1},
        causal=False,
    )
