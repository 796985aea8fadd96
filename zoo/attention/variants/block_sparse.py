"""Block-sparse attention: every query sees some global tokens, its own block of tokens and its neighbour blocks.

    allowed(i, j) = j < num_global_tokens  or  |block(i) - block(j)| <= num_previous_blocks
    block(i)      = i // block_size

Zaheer et al., "Big Bird", https://arxiv.org/abs/2007.14062; Beltagy et al., "Longformer",
https://arxiv.org/abs/2004.05150. One softmax runs over all allowed keys. We deviate from both papers: global tokens
are read by all, but their own queries are as local as any other (there, global queries read the whole text); and
there are no random blocks (Big Bird). A causal model sees the future of no block; a bidirectional one also sees
`num_previous_blocks` blocks after its own.
"""

import dataclasses
import functools
from typing import Any

from zoo.attention.pattern import CacheBound, PatternConfig, pattern_mechanism
from zoo.config import MOST, require_within
from zoo.ops import block_sparse


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSparseConfig(PatternConfig):
    """Parameters of block-sparse attention.

    Attributes:
        block_size: Tokens of a block.
        num_global_tokens: First tokens of the text, which every later query sees.
        num_previous_blocks: Blocks before its own that a query sees; a bidirectional one sees as many after it.
    """

    block_size: int = 32
    num_global_tokens: int = 4
    num_previous_blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "block_size")
        require_within(self, 0, MOST, "num_global_tokens", "num_previous_blocks")


def allowed(query_index: Any, key_index: Any, config: BlockSparseConfig) -> Any:
    """Global keys, and keys of the own and the neighbouring blocks."""
    distance = abs(query_index // config.block_size - key_index // config.block_size)
    return (key_index < config.num_global_tokens) | (distance <= config.num_previous_blocks)


def cache_bound(config: BlockSparseConfig) -> CacheBound:
    """The global tokens and, at the end of a block, that whole block and those before it that it sees."""
    local = (1 + config.num_previous_blocks) * config.block_size
    return CacheBound(max_size=config.num_global_tokens + local, keep=config.num_global_tokens)


def _blocked(config: BlockSparseConfig) -> Any:
    return functools.partial(
        block_sparse.blocked,
        block_size=config.block_size,
        num_global_tokens=config.num_global_tokens,
        num_previous_blocks=config.num_previous_blocks,
    )


MECHANISM = pattern_mechanism(
    name="block_sparse",
    allowed=allowed,
    config=BlockSparseConfig,
    implementations={"blocked": _blocked},
    cache_bound=cache_bound,
)
