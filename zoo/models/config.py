"""What a model is made of: one frozen dataclass per family, from and to plain mappings."""

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from zoo.attention import LayerPattern, LayerShape, PositionKind, RotaryConfig, VariantConfig, variant_from_mapping
from zoo.attention.calibration import Phase
from zoo.config import MOST, UserError, from_mapping, require, require_within, to_mapping
from zoo.config.errors import shortened
from zoo.layers.positions import require_rope_scaling
from zoo.ops.activations import ActivationName

Family = Literal["gpt", "bert", "llama"]

# Twice the deepest Transformers (Wang et al., "DeepNet", https://arxiv.org/abs/2203.00555): every layer is traced
# for itself, at milliseconds each. And a hundred times the most heads, each of which has numbers of its own.
MOST_LAYERS, MOST_HEADS = 2_000, 65_536


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(abc.ABC):
    """What every family has.

    Attributes:
        attention: The variant of every layer, or a hybrid's pattern of variants.
        vocab_size: Rows of the token embedding.
        num_layers: Transformer blocks.
        hidden_size: Width of the residual stream.
        num_heads: Query heads.
        num_kv_heads: Key/value heads; None for as many as query heads. A variant may override it.
        head_dim: Width of a head; None for hidden_size / num_heads.
        intermediate_size: Width of the feed-forward layers; None for the family's usual multiple of hidden_size.
        max_seq_len: Longest sequence in tokens. A limit with learned positions; otherwise what the model is meant for.
        positions: Where token order comes from.
        activation: Of the feed-forward layers.
        tie_word_embeddings: Whether the output projection is the token embedding.
        norm_eps: Epsilon of every normalisation.
        dropout: Probability of dropping an element of the embeddings and of each residual branch, in training.
        init_std: Standard deviation of the initial weights.
        rope_theta: Base frequency of rotary positions.
        rope_traditional: Whether rotary positions turn adjacent pairs instead of the two halves of a head.
        rope_scaling: Scaling of rotary positions, one of `zoo.layers.positions.ROPE_SCALINGS`, or None.
    """

    family: ClassVar[Family]
    causal: ClassVar[bool]

    attention: VariantConfig | LayerPattern
    vocab_size: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_seq_len: int
    positions: PositionKind
    activation: ActivationName
    tie_word_embeddings: bool
    norm_eps: float
    dropout: float = 0.0
    init_std: float = 0.02
    rope_theta: float = 10_000.0
    rope_traditional: bool = False
    rope_scaling: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "max_seq_len", "num_kv_heads", "head_dim", "intermediate_size")
        require_within(self, 1, MOST, *sizes)
        require_within(self, 1, MOST_HEADS, "num_heads")
        require_within(self, 1, MOST_LAYERS, "num_layers")
        # What float32 tells from 0, and what leaves it room.
        require_within(self, 1e-30, 1.0, "norm_eps")
        require_within(self, 1e-30, 1e3, "init_std")
        require_within(self, 1.0, 1e15, "rope_theta")
        require(0 <= self.dropout < 1, "dropout", "be at least 0 and below 1", self.dropout)
        if self.head_dim is None:
            require(
                self.hidden_size % self.num_heads == 0,
                "num_heads",
                f"divide hidden_size {self.hidden_size}",
                self.num_heads,
                allowed=_divisors(self.hidden_size),
            )
        require(
            self.num_heads % self.resolved_num_kv_heads == 0,
            "num_kv_heads",
            f"divide num_heads {self.num_heads}",
            self.num_kv_heads,
            allowed=_divisors(self.num_heads),
        )
        inner = self.num_heads * self.resolved_head_dim
        require(inner <= MOST, "num_heads", f"give at most {MOST} channels together", self.num_heads)
        require_within(self, 1, MOST, "resolved_intermediate_size")
        if self.positions == "rotary":
            require(
                self.resolved_head_dim % 2 == 0, "head_dim", "be even with rotary positions", self.resolved_head_dim
            )
        if self.rope_scaling is not None:
            require_rope_scaling(self.rope_scaling, head_dim=self.resolved_head_dim)

    @property
    def resolved_num_kv_heads(self) -> int:
        """Key/value heads of the model itself."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def resolved_head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def resolved_intermediate_size(self) -> int:
        """Width of the feed-forward layers."""
        return 4 * self.hidden_size if self.intermediate_size is None else self.intermediate_size

    @property
    def classifies(self) -> bool:
        """Whether the model is a classifier of texts."""
        return False

    @property
    def position_limit(self) -> int | None:
        """Longest text in tokens that the model can process at all; None if positions set no limit."""
        return self.max_seq_len if self.positions == "learned" else None

    @property
    @abc.abstractmethod
    def layer_shape(self) -> LayerShape:
        """What the attention layers are told about the model."""

    def _layer_shape(self, *, qkv_bias: bool, output_bias: bool, qk_norm: bool = False) -> LayerShape:
        return LayerShape(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            num_kv_heads=self.resolved_num_kv_heads,
            head_dim=self.resolved_head_dim,
            causal=self.causal,
            max_seq_len=self.max_seq_len,
            positions=self.positions,
            rotary=RotaryConfig(theta=self.rope_theta, traditional=self.rope_traditional, scaling=self.rope_scaling),
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            qk_norm=qk_norm,
            norm_eps=self.norm_eps,
        )

    def implementations(self, *, phase: Phase, batch_size: int, length: int) -> str:
        """Those that compute the attention of a call here, joined by "+" where layers differ.

        Args:
            phase: Which call.
            batch_size: Sequences of a forward pass.
            length: Tokens of each.
        """
        rows = batch_size * self.num_heads
        found = self.attention.resolved(phase=phase, rows=rows, length=length, causal=self.causal)
        return "+".join(dict.fromkeys(each.implementation for each in found.variants()))

    def as_mapping(self) -> dict[str, Any]:
        """Plain, JSON-ready mapping from which `model_config_from_mapping` makes an equal config."""
        return {"family": self.family, **to_mapping(self), "attention": self.attention.as_mapping()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTConfig(TransformerConfig):
    """GPT-2's family: pre-norm LayerNorm and biases everywhere."""

    family: ClassVar[Family] = "gpt"
    causal: ClassVar[bool] = True

    positions: PositionKind = "learned"
    activation: ActivationName = "gelu_tanh"
    tie_word_embeddings: bool = True
    norm_eps: float = 1e-5

    @property
    def layer_shape(self) -> LayerShape:
        return self._layer_shape(qkv_bias=True, output_bias=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(TransformerConfig):
    """BERT's family: a post-norm encoder with a masked-token head and a classification head.

    Attributes:
        num_token_types: Rows of the token-type embedding (sentence A, sentence B).
        num_classes: Outputs of the classification head.
        masked_token_head: Whether it can score tokens.
        pooler: Whether it has the layer that the classification head reads the first token through.
        classification_head: Whether it can score classes.
        labels: Names of the classes; None where nobody has named them.
    """

    family: ClassVar[Family] = "bert"
    causal: ClassVar[bool] = False

    positions: PositionKind = "learned"
    activation: ActivationName = "gelu"
    tie_word_embeddings: bool = True
    norm_eps: float = 1e-12
    num_token_types: int = 2
    num_classes: int = 2
    masked_token_head: bool = True
    pooler: bool = True
    classification_head: bool = True
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "num_token_types", "num_classes")
        named = self.labels is None or len(self.labels) == self.num_classes
        require(named, "labels", f"name each of the {self.num_classes} classes", self.labels)
        tied = self.masked_token_head or self.tie_word_embeddings
        require(tied, "tie_word_embeddings", "be true without a masked-token head", self.tie_word_embeddings)
        whole = self.pooler or not self.classification_head
        require(whole, "pooler", "be true with a classification head", self.pooler)

    @property
    def layer_shape(self) -> LayerShape:
        return self._layer_shape(qkv_bias=True, output_bias=True)

    @property
    def classifies(self) -> bool:
        """Whether scores are those of classes, for want of any others."""
        return self.classification_head and not self.masked_token_head


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(TransformerConfig):
    """Llama's family: pre-norm RMSNorm, rotary positions, gated feed-forward layers, grouped heads.

    Attributes:
        qkv_bias: Whether q_proj, k_proj and v_proj have biases.
        output_bias: Whether o_proj has a bias.
        mlp_bias: Whether the feed-forward projections have biases.
        qk_norm: Whether queries and keys are RMS-normalised per head.
    """

    family: ClassVar[Family] = "llama"
    causal: ClassVar[bool] = True

    positions: PositionKind = "rotary"
    activation: ActivationName = "silu"
    tie_word_embeddings: bool = False
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def resolved_intermediate_size(self) -> int:
        # Llama's rule: 2/3 of 4 times the width, so that three projections cost what two did; rounded up to whole 64s.
        if self.intermediate_size is None:
            return 64 * math.ceil(8 * self.hidden_size / 3 / 64)
        return self.intermediate_size

    @property
    def layer_shape(self) -> LayerShape:
        return self._layer_shape(qkv_bias=self.qkv_bias, output_bias=self.output_bias, qk_norm=self.qk_norm)


ModelConfig = GPTConfig | BertConfig | LlamaConfig

FAMILIES: dict[str, type[GPTConfig] | type[BertConfig] | type[LlamaConfig]] = {
    config.family: config for config in (GPTConfig, BertConfig, LlamaConfig)
}


def model_config_from_mapping(
    mapping: Mapping[str, Any], *, path: str = "model", tokenizer_vocab_size: int | None = None
) -> ModelConfig:
    """Builds a model's config from what the YAMLs or a checkpoint hold.

    Args:
        mapping: `family`, `attention` (a mapping as `variant_from_mapping` takes it) and the family's fields.
        path: Config path for messages.
        tokenizer_vocab_size: What a `vocab_size` of None stands for; a `vocab_size` given must be at least this.

    Returns:
        The config of the family.

    Raises:
        UserError: On an unknown family, key or value.
    """
    rest = dict(mapping)
    family = rest.pop("family", None)
    if not isinstance(family, str) or family not in FAMILIES:
        got = f"got {shortened(family)} (choices: {', '.join(FAMILIES)})"
        raise UserError(f"{path}: family must be one of the model families; {got}")
    attention = rest.pop("attention", None)
    if not isinstance(attention, Mapping):
        raise UserError(f"{path}: attention must be a variant; got {shortened(attention)}")
    if rest.get("vocab_size") is None:
        if tokenizer_vocab_size is None:
            raise UserError(f"{path}: vocab_size must be a whole number where no tokenizer says it; got None")
        rest["vocab_size"] = tokenizer_vocab_size
    config = from_mapping(FAMILIES[family], {**rest, "attention": variant_from_mapping(attention)}, path=path)
    if tokenizer_vocab_size is not None and config.vocab_size < tokenizer_vocab_size:
        raise UserError(
            f"{path}: vocab_size must be at least the tokenizer's {tokenizer_vocab_size}; got {config.vocab_size}"
        )
    return config


def _divisors(number: int) -> Iterator[int]:
    """In ascending order, found by trial up to the root: the number can have ten digits."""
    small = [candidate for candidate in range(1, math.isqrt(number) + 1) if number % candidate == 0]
    yield from small
    yield from (number // each for each in reversed(small) if each * each != number)
