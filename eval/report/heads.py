"""Which variants a model's own heads make one function: where they share keys and values, full attention is grouped."""

import json
from collections.abc import Iterable

from eval.report.qualities import function_of
from eval.report.selection import Measured

_OF_HEADS = ("num_kv_heads", "queries_per_kv_head")


def num_kv_heads(each: Measured) -> int:
    """Key/value heads of a row's attention: the variant's, else those of the model."""
    cell = each.cell
    mapping = {} if cell.attention is None else cell.attention_mapping
    own, queries = (mapping.get(name) for name in _OF_HEADS)
    if own is not None:
        return int(own)
    return cell.num_heads // int(queries) if queries is not None else cell.num_kv_heads or cell.num_heads


def same_by_heads(rows: Iterable[Measured]) -> list[str]:
    """A sentence for each model in which variants with different settings of heads are one function.

    Args:
        rows: Of models and parts of them.
    """
    found: dict[tuple[str, int, int], dict[str, dict[str, str]]] = {}
    for each in rows:
        cell = each.cell
        if cell.model is None or cell.attention is None or not cell.num_kv_heads or cell.num_kv_heads == cell.num_heads:
            continue
        function = json.loads(function_of(cell.attention) or "{}")
        kept = {key: value for key, value in function.items() if key not in _OF_HEADS}
        key = json.dumps([kept, num_kv_heads(each)], sort_keys=True)
        model = found.setdefault((cell.model, cell.num_heads, cell.num_kv_heads), {})
        names = model.setdefault(key, {})
        setting = json.dumps(function, sort_keys=True)
        # Ways to compute one setting are not worth a word: the one with the plainest name stands for all.
        names[setting] = min(names.get(setting, cell.variant), cell.variant, key=len)
    return [
        f"In {model} {heads} heads share {kv_heads} heads of keys and values: {' and '.join(names.values())} are one "
        "function there."
        for (model, heads, kv_heads), functions in found.items()
        for names in functions.values()
        if len(names) > 1
    ]
