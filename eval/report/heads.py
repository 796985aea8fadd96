"""Which variants a model's own heads make one function: where they share keys and values, full attention is grouped."""

from collections.abc import Iterable

from eval.query import Measured
from zoo.attention.function import function_of


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
        heads = (cell.num_heads, cell.num_kv_heads)
        function = function_of(cell.attention_mapping, num_heads=heads[0], num_kv_heads=heads[1])
        names = found.setdefault((cell.model, *heads), {}).setdefault(function, {})
        setting = function_of(cell.attention_mapping)
        # Ways to compute one setting are not worth a word: the one with the plainest name stands for all.
        names[setting] = min(names.get(setting, cell.variant), cell.variant, key=len)
    return [
        f"In {model} {heads} heads share {kv_heads} heads of keys and values: {' and '.join(names.values())} are one "
        "function there."
        for (model, heads, kv_heads), functions in found.items()
        for names in functions.values()
        if len(names) > 1
    ]
