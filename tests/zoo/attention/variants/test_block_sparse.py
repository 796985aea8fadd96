"""Parameters of block-sparse attention that cannot be are refused by name."""

import pytest

from zoo.attention import variant_from_mapping
from zoo.config import UserError


@pytest.mark.parametrize("block_size", [0, -3, 2**31, 10**12])
def test_a_block_of_an_impossible_size_is_refused(block_size: int) -> None:
    mapping = {"name": "x", "mechanism": "block_sparse", "block_size": block_size}
    with pytest.raises(
        UserError, match=rf"attention: block_size must be at (least 1|most 2147483647); got {block_size}"
    ):
        variant_from_mapping(mapping)
