"""A package outside the repository, as pip leaves it, with mechanisms that are wrong or slow on purpose."""

from pathlib import Path

_FAULT = """from tests.eval.checks.faults import {name}
from zoo.attention.pattern import pattern_mechanism

MECHANISM = pattern_mechanism(name="{name}", allowed=None, implementations={{"planted": lambda _: {name}}})
"""

_WINDOWED_FAULT = """from tests.eval.checks.faults import WINDOW, {name}
from zoo.attention.pattern import pattern_mechanism


def allowed(query_index, key_index, config):
    return (query_index - key_index < WINDOW) & (key_index <= query_index)


MECHANISM = pattern_mechanism(
    name="{name}", allowed=allowed, implementations={{"planted": lambda _: {name}}}, bidirectional=False
)
"""

_SLOW = '''"""`manual` attention, and one row of every ten of a batch once more: a tenth more work, the same values."""

import mlx.core as mx

from zoo.attention.pattern import pattern_mechanism
from zoo.ops import softmax


def attend(q, k, v, spec):
    rows = max(1, q.shape[0] // 10)
    again = softmax.manual(q[:rows], k[:rows], v[:rows], spec)
    return mx.depends([softmax.manual(q, k, v, spec)], [again])[0]


MECHANISM = pattern_mechanism(name="slowed", allowed=None, implementations={"manual": lambda _: attend})
'''

# Sources by name of the mechanism; the published mistakes are those of `tests.eval.checks.faults`.
WRONG = {name: _FAULT.format(name=name) for name in ("heads_as_sequence", "untransposed_values")}
WRONG["padded_keys"] = _WINDOWED_FAULT.format(name="padded_keys")
SLOW = {"slowed": _SLOW}


def lay_out(folder: Path, sources: dict[str, str]) -> None:
    """Writes the modules, and the metadata with their entry points."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {name}" for name in sources)
    (metadata / "entry_points.txt").write_text(f"[attention_zoo.mechanisms]\n{lines}\n", encoding="utf-8")
