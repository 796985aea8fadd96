"""Where a model's heads share keys and values, the report says which variants are one function."""

from eval.query import Measured, measured
from eval.report.heads import same_by_heads
from eval.rows import Cell
from tests.eval.report.planted import attention
from tests.eval.rows_factory import speed_row


def _rows(model: str, heads: int, kv_heads: int) -> list[Measured]:
    cells = [
        Cell(
            suite="transfer",
            group="model",
            builder="model",
            variant=name,
            attention=attention(name),
            level="model",
            mode="step",
            model=model,
            length=128,
            num_heads=heads,
            num_kv_heads=kv_heads,
        )
        for name in ("mha_manual", "mha", "gqa", "mqa", "swa")
    ]
    return measured([speed_row(cell, [1.0, 1.0]) for cell in cells])


def test_full_attention_is_grouped_attention_where_the_model_shares_its_heads() -> None:
    (sentence,) = same_by_heads(_rows("llama_tiny", 4, 2))
    assert sentence == "In llama_tiny 4 heads share 2 heads of keys and values: mha and gqa are one function there."
    assert same_by_heads(_rows("gpt_tiny", 4, 4)) == []
