"""Which function a cell computes, apart from how: only cells of one function are compared on speed alone."""

from collections.abc import Mapping
from typing import Any

from eval.rows import Cell
from zoo.attention import variant_from_mapping

# How a variant computes, or a matter of its own below.
_NO_MEANING = {"name", "mechanism", "implementation", "chunk_size", "num_kv_heads", "queries_per_kv_head"}
# A variant that chooses among implementations names the mechanism, and its parameters, in these.
_OF, _PARAMETERS = "of", "parameters"


def computed_function(cell: Cell, exact_class: str) -> tuple[object, ...]:
    """Equal for two cells that compute the same values from the same inputs and weights.

    Args:
        cell: What is measured.
        exact_class: As its subject has it.
    """
    what = (cell.level, cell.mode, cell.model, cell.causal, cell.dtype)
    shape = (cell.batch_size, cell.length, cell.num_heads, cell.num_kv_heads, cell.head_dim, cell.hidden_size)
    attention = () if cell.attention is None else _meaning(cell.attention_mapping, cell)
    return (*what, *shape, exact_class, attention)


def _meaning(mapping: Mapping[str, Any], cell: Cell) -> tuple[object, ...]:
    return tuple(_parameters(part.as_mapping(), cell) for part in variant_from_mapping(mapping).variants())


def _parameters(plain: Mapping[str, Any], cell: Cell) -> tuple[object, ...]:
    if _OF in plain:
        chosen = variant_from_mapping({"name": plain[_OF], "mechanism": plain[_OF], **plain[_PARAMETERS]})
        return (_num_kv_heads(plain, cell), _named(chosen.variants()[0].as_mapping()))
    return (_num_kv_heads(plain, cell), _named(plain))


def _named(plain: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in plain.items() if key not in _NO_MEANING))


def _num_kv_heads(plain: Mapping[str, Any], cell: Cell) -> int:
    if plain.get("queries_per_kv_head") is not None:
        return cell.num_heads // int(plain["queries_per_kv_head"])
    if plain.get("num_kv_heads") is not None:
        return int(plain["num_kv_heads"])
    return cell.num_heads if cell.num_kv_heads is None else cell.num_kv_heads
