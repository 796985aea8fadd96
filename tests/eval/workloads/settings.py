"""Cells for the builders' tests: every variant of the catalogue, at sizes that differ pairwise."""

import json
from typing import Any

import pytest

from eval.bench import Workload
from eval.rows import Cell
from eval.workloads import model as models
from zoo.attention import LayerPattern
from zoo.attention.catalog import attention_names, variant, variant_mapping
from zoo.models.catalog import shipped_model

LENGTH, BATCH_SIZE, NUM_HEADS, HEAD_DIM = 37, 3, 4, 10
# Windows, blocks and chunks, so that short texts cross their borders.
SHRUNK = 5


def cell(level: str, name: str, **changes: Any) -> Cell:
    """A small cell of a shipped variant, or of the mapping given as `attention`."""
    mapping = changes.pop("attention", None) or {
        key: min(value, SHRUNK) if isinstance(value, int) else value for key, value in variant_mapping(name).items()
    }
    plain = {
        "suite": "test",
        "group": "test",
        "builder": level,
        "level": level,
        "variant": name,
        "attention": json.dumps(mapping),
        "mode": "forward",
        "length": LENGTH,
        "batch_size": BATCH_SIZE,
        "num_heads": NUM_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_size": 34,
        "compiled": False,
    }
    return Cell.model_validate({**plain, **changes})


def shrink_models(monkeypatch: pytest.MonkeyPatch, *, vocab_size: int) -> None:
    """Makes the shipped models narrow and shallow."""
    small = {"num_layers": 2, "hidden_size": 24, "intermediate_size": 40, "max_seq_len": 64}
    monkeypatch.setattr(models, "shipped_model", lambda name: {**shipped_model(name), **small})
    monkeypatch.setattr(models, "VOCAB_SIZE", vocab_size)


def called(workload: Workload) -> Any:
    """What one call returns, loosely typed: an array, or arrays in lists."""
    return workload.call()


def is_hybrid(name: str) -> bool:
    return isinstance(variant(name), LayerPattern)


SINGLE = [name for name in attention_names() if not is_hybrid(name)]
DIRECTED = [
    (name, causal)
    for name in SINGLE
    for causal in (True, False)
    if all(each.capabilities.causal if causal else each.capabilities.bidirectional for each in variant(name).variants())
]
