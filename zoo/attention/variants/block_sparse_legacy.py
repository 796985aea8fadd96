"""Block-sparse attention as AttnBench published it, kept so that its claims can be measured again.

    y_i = 1/2 * (softmax over the own block) + 1/2 * (softmax over the first num_global_tokens keys)

Not the block-sparse attention of Zaheer et al., "Big Bird", https://arxiv.org/abs/2007.14062: it averages two
softmaxes instead of taking one over all keys, has no neighbouring blocks, and sees the future inside a block and in
the global tokens. Language models must not use it, and packed documents have no global tokens of their own.
`block_sparse` is the sound form.
"""

import dataclasses
from typing import Any

import mlx.core as mx

from zoo.attention.interface import Cache, Capabilities, LayerShape, Mixer
from zoo.attention.mechanism import HeadGrouping, Mechanism, sample_qkv
from zoo.config import MOST, require_within
from zoo.ops import block_sparse_legacy
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern, count_scores

REFUSAL = (
    "block_sparse_legacy averages two softmaxes, one over the token's own block and one over the global tokens, "
    "and both leak the future; use attention=blocksparse"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSparseLegacyConfig(HeadGrouping):
    """Parameters of the published block-sparse attention.

    Attributes:
        block_size: Tokens of a block.
        num_global_tokens: First tokens of the text, which every query sees; 1 in the published measurements.
    """

    block_size: int = 32
    num_global_tokens: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "block_size", "num_global_tokens")


def allowed(query_index: Any, key_index: Any, config: BlockSparseLegacyConfig) -> Any:
    """Which tokens mix at all: the own block, and the global keys."""
    local = block_sparse_legacy.same_block(query_index, key_index, config.block_size)
    return local | block_sparse_legacy.is_global(query_index, key_index, config.num_global_tokens)


class BlockSparseLegacyMixer(Mixer):
    """The published op."""

    def __init__(self, config: BlockSparseLegacyConfig, implementation: str, shape: LayerShape) -> None:
        """Keeps the parameters."""
        super().__init__(_capabilities(config, implementation), shape)
        self._config = config

    def __call__(self, *inputs: mx.array, mask: MaskSpec, cache: Cache | None, training: bool) -> mx.array:
        assert cache is None, "refused by the mask check"
        spec = _make_spec(self._config, mask, self.shape.head_dim, None)
        q_BNLH, k_BKLH, v_BKLH = inputs
        return block_sparse_legacy.blocked(q_BNLH, k_BKLH, v_BKLH, spec)

    def flops(self, *, query_length: int, key_length: int) -> int:
        local = BoundPattern(block_sparse_legacy.same_block, self._config.block_size)
        shared = BoundPattern(block_sparse_legacy.is_global, self._config.num_global_tokens)
        scores = sum(
            count_scores(pattern, causal=False, query_length=query_length, key_length=key_length)
            for pattern in (local, shared)
        )
        return 4 * self.shape.num_heads * self.shape.head_dim * scores

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        scores = min(length, self._config.block_size) + min(length, self._config.num_global_tokens)
        return batch_size * length * self.shape.num_heads * (self.shape.head_dim + scores)


def _capabilities(config: BlockSparseLegacyConfig, implementation: str) -> Capabilities:
    return Capabilities(
        causal=False,
        bidirectional=True,
        decode=False,
        exact_class="block_sparse_legacy",
        trimmable=False,
        segments=False,
        alibi=False,
        refusal=REFUSAL,
    )


def _make_spec(
    config: BlockSparseLegacyConfig, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None = None
) -> block_sparse_legacy.LegacySpec:
    assert slopes_N is None, "ALiBi is refused by the capabilities"
    return block_sparse_legacy.LegacySpec(
        scale=head_dim**-0.5, mask=mask, block_size=config.block_size, num_global_tokens=config.num_global_tokens
    )


MECHANISM = Mechanism(
    name="block_sparse_legacy",
    config=BlockSparseLegacyConfig,
    implementations={"blocked": lambda _: block_sparse_legacy.blocked},
    capabilities=_capabilities,
    mixer=BlockSparseLegacyMixer,
    make_spec=_make_spec,
    reference=block_sparse_legacy.reference,
    sample_inputs=sample_qkv,
    pattern=allowed,
)
