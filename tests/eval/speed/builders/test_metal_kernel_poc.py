import mlx.core as mx
import pytest

from eval.rows import Cell
from eval.speed.builders import metal_kernel_poc
from zoo.config import UserError

CELL = Cell(
    suite="test",
    group="test",
    builder="metal_kernel_poc",
    variant="metal_kernel_poc",
    level="op",
    mode="forward",
    batch_size=2,
    length=37,
    num_heads=3,
    head_dim=32,
    causal=False,
)


def test_the_kernel_matches_the_reference_or_says_that_there_is_no_metal() -> None:
    if mx.metal.is_available():
        assert metal_kernel_poc.build(CELL).check().passed
    else:
        with pytest.raises(UserError, match="needs a device with Metal"):
            metal_kernel_poc.build(CELL)


def test_nothing_stands_in_for_a_kernel_that_cannot_run() -> None:
    if mx.metal.is_available():
        assert metal_kernel_poc.build(CELL).work.attention_path is None
    else:
        with pytest.raises(RuntimeError, match="Metal"):
            mx.eval(metal_kernel_poc.attention_kernel(32)(*mx.zeros((3, 1, 1, 4, 32))))
