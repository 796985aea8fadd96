"""Which function a cell computes, apart from how: only cells of one function are compared on speed alone."""

from eval.rows import Cell
from zoo.attention.function import function_of


def computed_function(cell: Cell, exact_class: str) -> tuple[object, ...]:
    """Equal for two cells that compute the same values from the same inputs and weights.

    Args:
        cell: What is measured.
        exact_class: As its subject has it.
    """
    what = (cell.level, cell.mode, cell.model, cell.causal, cell.dtype)
    shape = (cell.batch_size, cell.length, cell.num_heads, cell.num_kv_heads, cell.head_dim, cell.hidden_size)
    if cell.attention is None:
        return (*what, *shape, exact_class)
    heads = {"num_heads": cell.num_heads, "num_kv_heads": cell.num_kv_heads}
    return (*what, *shape, exact_class, function_of(cell.attention_mapping, **heads))
