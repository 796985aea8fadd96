"""Llama 1, 2 and 3 (TinyLlama, SmolLM2), and what its relatives share with it: Mistral, Qwen2 and Qwen3."""

import abc
import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from zoo.attention import LayerPattern, VariantConfig
from zoo.attention.catalog import variant
from zoo.checkpoints.huggingface.family import (
    Family,
    activation_name,
    pick,
    refuse_unless,
    stock_attention,
    their_activation,
)
from zoo.checkpoints.huggingface.rotary import describe_rotary, rotary_positions
from zoo.checkpoints.huggingface.table import Module
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.models import LlamaConfig, ModelConfig, model_config_from_mapping

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """What every relative's `config.json` has, with transformers' defaults where it may be silent."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    use_sliding_window: bool = False
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = None


class LlamaLike(Family):
    """Llama and its relatives; each says how its attention layers differ."""

    prefix: ClassVar[str] = "model."
    heads: ClassVar[tuple[str, ...]] = ("lm_head.",)
    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    harmless: ClassVar[re.Pattern[str]] = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
    defaults: ClassVar[Mapping[str, Any]] = {}

    def config(self, config: Mapping[str, Any], names: Collection[str], *, where: str) -> ModelConfig:
        fields = pick(Fields, {**self.defaults, **config}, where=where)
        rotary = rotary_positions(config, max_seq_len=fields.max_position_embeddings, where=where)
        mapping = {
            "family": LlamaConfig.family,
            "attention": self.attention(fields, where=where).as_mapping(),
            "vocab_size": fields.vocab_size,
            "num_layers": fields.num_hidden_layers,
            "hidden_size": fields.hidden_size,
            "num_heads": fields.num_attention_heads,
            "num_kv_heads": fields.num_key_value_heads,
            "head_dim": fields.head_dim,
            "intermediate_size": fields.intermediate_size,
            "max_seq_len": fields.max_position_embeddings,
            "activation": activation_name(fields.hidden_act, field="hidden_act", where=where),
            "norm_eps": fields.rms_norm_eps,
            "init_std": fields.initializer_range,
            "tie_word_embeddings": self.is_tied(config, where=where),
            **self.layer(fields),
            **rotary,
        }
        return model_config_from_mapping(mapping, path=where)

    def describe(self, config: ModelConfig) -> dict[str, Any] | None:
        stock = stock_attention(config)
        if not isinstance(config, LlamaConfig) or config.positions != "rotary" or config.rope_traditional or not stock:
            return None
        own = self.differs(config, stock[1])
        if own is None:
            return None
        return {
            "architectures": [self.architectures[0]],
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.resolved_intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": stock[0],
            "head_dim": config.resolved_head_dim,
            "hidden_act": their_activation(config.activation, tanh="gelu_pytorch_tanh"),
            "max_position_embeddings": config.max_seq_len,
            "initializer_range": config.init_std,
            "rms_norm_eps": config.norm_eps,
            "tie_word_embeddings": config.tie_word_embeddings,
            **describe_rotary(config.rope_theta, config.rope_scaling),
            **own,
        }

    @abc.abstractmethod
    def differs(self, config: LlamaConfig, windows: tuple[int | None, ...]) -> dict[str, Any] | None:
        """The fields of this relative's own; None if it is not what the config says."""

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        # Its rotary positions of the other kinds differ, and it ignores windows.
        kind = described["rope_parameters"]["rope_type"]
        windowed = described.get("sliding_window") is not None
        return kind in ("default", "linear", "llama3") and described["hidden_act"] == "silu" and not windowed

    def layer(self, fields: Fields) -> dict[str, bool]:
        """Our fields that say where biases and norms are."""
        return {"qkv_bias": fields.attention_bias, "output_bias": fields.attention_bias, "mlp_bias": fields.mlp_bias}

    def attention(self, fields: Fields, *, where: str) -> VariantConfig | LayerPattern:
        """The variant of every layer, or a pattern of variants."""
        return variant("mha")

    def modules(self, config: ModelConfig, names: Collection[str]) -> Iterator[Module]:
        yield Module(theirs="model.embed_tokens", ours=("embed_tokens",))
        for index in range(config.num_layers):
            for name in (
                *("input_layernorm", "post_attention_layernorm"),
                *(f"self_attn.{each}" for each in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
                *(f"mlp.{each}" for each in ("gate_proj", "up_proj", "down_proj")),
            ):
                yield Module(theirs=f"model.layers.{index}.{name}", ours=(f"layers.{index}.{name}",))
        yield Module(theirs="model.norm", ours=("norm",))
        yield Module(theirs="lm_head", ours=("lm_head",))


class Llama(LlamaLike):
    """Llama itself: full attention."""

    model_type: ClassVar[str] = "llama"
    architectures: ClassVar[tuple[str, ...]] = ("LlamaForCausalLM", "LlamaModel")

    def differs(self, config: LlamaConfig, windows: tuple[int | None, ...]) -> dict[str, Any] | None:
        if any(windows) or config.qk_norm or config.qkv_bias != config.output_bias:
            return None
        return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


class Mistral(LlamaLike):
    """Mistral: a sliding window in every layer, unless the config says null."""

    model_type: ClassVar[str] = "mistral"
    architectures: ClassVar[tuple[str, ...]] = ("MistralForCausalLM", "MistralModel")
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    }

    def differs(self, config: LlamaConfig, windows: tuple[int | None, ...]) -> dict[str, Any] | None:
        plain = not (config.qkv_bias or config.output_bias or config.mlp_bias or config.qk_norm)
        return {"sliding_window": windows[0]} if plain and len(set(windows)) == 1 else None

    def layer(self, fields: Fields) -> dict[str, bool]:
        return {}

    def attention(self, fields: Fields, *, where: str) -> VariantConfig | LayerPattern:
        # Transformers reads such a model by another class.
        refuse_unless(fields.layer_types is None, "layer_types", "not be given", fields.layer_types, where=where)
        return variant("mha") if fields.sliding_window is None else sliding(fields.sliding_window, where=where)


class Qwen2(LlamaLike):
    """Qwen2: biases on queries, keys and values; sliding windows in some layers."""

    model_type: ClassVar[str] = "qwen2"
    architectures: ClassVar[tuple[str, ...]] = ("Qwen2ForCausalLM", "Qwen2Model")
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 32,
        "max_position_embeddings": 32_768,
        "sliding_window": 4096,
    }

    def differs(self, config: LlamaConfig, windows: tuple[int | None, ...]) -> dict[str, Any] | None:
        biased = config.qkv_bias and not (config.output_bias or config.mlp_bias or config.qk_norm)
        return _window_fields(windows) if biased else None

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        usual = described["head_dim"] * described["num_attention_heads"] == described["hidden_size"]
        return super().in_mlx_lm(described) and usual

    def layer(self, fields: Fields) -> dict[str, bool]:
        return {"qkv_bias": True}

    def attention(self, fields: Fields, *, where: str) -> VariantConfig | LayerPattern:
        count = fields.num_hidden_layers
        window = fields.sliding_window if fields.use_sliding_window else None
        kinds = fields.layer_types
        if kinds is None:
            kinds = tuple(
                FULL if window is None or index < fields.max_window_layers else SLIDING for index in range(count)
            )
        refuse_unless(len(kinds) == count, "layer_types", f"name {count} layers", kinds, where=where)
        unknown = [kind for kind in kinds if kind not in (FULL, SLIDING)]
        refuse_unless(not unknown, "layer_types", f"be {FULL} or {SLIDING}", unknown[:1], where=where)
        if SLIDING not in kinds:
            return variant("mha")
        refuse_unless(
            window is not None,
            "sliding_window",
            f"be given, with use_sliding_window, for {SLIDING}",
            window,
            where=where,
        )
        assert window is not None
        by_kind = {FULL: _one("mha"), SLIDING: sliding(window, where=where)}
        if FULL not in kinds:
            return by_kind[SLIDING]
        return LayerPattern(name="hybrid_swa", layer_pattern=tuple(by_kind[kind] for kind in kinds))


class Qwen3(Qwen2):
    """Qwen3: RMS-normalised queries and keys, heads of a width of their own."""

    model_type: ClassVar[str] = "qwen3"
    architectures: ClassVar[tuple[str, ...]] = ("Qwen3ForCausalLM", "Qwen3Model")
    defaults: ClassVar[Mapping[str, Any]] = {**Qwen2.defaults, "head_dim": 128}

    def differs(self, config: LlamaConfig, windows: tuple[int | None, ...]) -> dict[str, Any] | None:
        if not config.qk_norm or config.qkv_bias != config.output_bias or config.mlp_bias:
            return None
        own = _window_fields(windows)
        return None if own is None else {"attention_bias": config.qkv_bias, **own}

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        return LlamaLike.in_mlx_lm(self, described) and not described["attention_bias"]

    def layer(self, fields: Fields) -> dict[str, bool]:
        return {"qkv_bias": fields.attention_bias, "output_bias": fields.attention_bias, "qk_norm": True}


def _window_fields(windows: tuple[int | None, ...]) -> dict[str, Any] | None:
    """What Qwen's config says of windows, which all have one size; None if they have several."""
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        return None
    return {
        "use_sliding_window": bool(sizes),
        "sliding_window": sizes.pop() if sizes else None,
        # Older versions count, and know no other order than full layers first.
        "max_window_layers": next((index for index, window in enumerate(windows) if window is not None), len(windows)),
        "layer_types": [FULL if window is None else SLIDING for window in windows],
    }


def sliding(window_size: int, *, where: str) -> VariantConfig:
    """The variant `swa` with another window, which counts the query itself in transformers as it does here."""
    shipped = _one("swa")
    try:
        parameters = dataclasses.replace(shipped.parameters, window_size=window_size)
    except UserError:
        raise UserError(f"{where}: sliding_window must be at least 1, or null; got {shortened(window_size)}") from None
    return dataclasses.replace(shipped, parameters=parameters)


def _one(name: str) -> VariantConfig:
    found = variant(name)
    assert isinstance(found, VariantConfig)
    return found
