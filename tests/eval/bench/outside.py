"""A package outside the repository, as pip leaves it, with mechanisms that are wrong or slow on purpose."""

from pathlib import Path

# Sources by name of the mechanism; the published mistakes, word for word in MLX.
HEADS_AS_SEQUENCE = '''"""The flash comparison: q, k and v go in as [B, L, H, D] where MLX wants [B, H, L, D]."""

import mlx.core as mx

from zoo.attention.pattern import pattern_mechanism


def attend(q, k, v, spec):
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale).transpose(0, 2, 1, 3)


MECHANISM = pattern_mechanism(name="heads_as_sequence", allowed=None, implementations={"flash": lambda _: attend})
'''

UNTRANSPOSED_VALUES = '''"""AttnBench's grouped heads: V is cut into heads without the transpose."""

from zoo.attention.pattern import pattern_mechanism
from zoo.ops import softmax


def attend(q, k, v, spec):
    B, K, S, H = v.shape
    return softmax.manual(q, k, v.transpose(0, 2, 1, 3).reshape(B, K, S, H), spec)


MECHANISM = pattern_mechanism(name="untransposed_values", allowed=None, implementations={"grouped": lambda _: attend})
'''

PADDED_KEYS = '''"""AttnBench's window: keys before the text are vectors of -1e9, which win wherever sum(q) < 0."""

import mlx.core as mx

from zoo.attention.pattern import pattern_mechanism

WINDOW = 8


def allowed(query_index, key_index, config):
    return (query_index - key_index < WINDOW) & (key_index <= query_index)


def attend(q, k, v, spec):
    length, ahead = q.shape[2], [(0, 0), (0, 0), (WINDOW - 1, 0), (0, 0)]
    index = mx.arange(length)[:, None] + mx.arange(WINDOW)[None]
    k = mx.take(mx.pad(k, ahead, constant_values=mx.array(-1e9, k.dtype)), index, axis=2)
    v = mx.take(mx.pad(v, ahead), index, axis=2)
    scores = (q[:, :, :, None] @ k.swapaxes(-1, -2)) * spec.scale
    return (mx.softmax(scores, axis=-1) @ v)[:, :, :, 0]


MECHANISM = pattern_mechanism(
    name="padded_keys", allowed=allowed, implementations={"gather": lambda _: attend}, bidirectional=False
)
'''

SLOWED = '''"""`manual` attention, and one row of every ten of a batch once more: a tenth more work, the same values."""

import mlx.core as mx

from zoo.attention.pattern import pattern_mechanism
from zoo.ops import softmax


def attend(q, k, v, spec):
    rows = max(1, q.shape[0] // 10)
    again = softmax.manual(q[:rows], k[:rows], v[:rows], spec)
    return mx.depends([softmax.manual(q, k, v, spec)], [again])[0]


MECHANISM = pattern_mechanism(name="slowed", allowed=None, implementations={"manual": lambda _: attend})
'''

WRONG = {
    "heads_as_sequence": HEADS_AS_SEQUENCE,
    "untransposed_values": UNTRANSPOSED_VALUES,
    "padded_keys": PADDED_KEYS,
}
SLOW = {"slowed": SLOWED}


def lay_out(folder: Path, sources: dict[str, str]) -> None:
    """Writes the modules, and the metadata with their entry points."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {name}" for name in sources)
    (metadata / "entry_points.txt").write_text(f"[attention_zoo.mechanisms]\n{lines}\n", encoding="utf-8")
