"""GPT-2, whose weights are inputs by outputs, with queries, keys and values in one; mlx-lm saves them turned."""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from zoo.attention.catalog import variant
from zoo.checkpoints.huggingface.family import (
    Family,
    activation_name,
    pick,
    refuse_unless,
    stock_attention,
    their_activation,
)
from zoo.checkpoints.huggingface.table import Module
from zoo.models import GPTConfig, ModelConfig, model_config_from_mapping

# What names begin with in files that mlx-lm has saved, whose weights are outputs by inputs.
MLX_PREFIX = "model."


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fields:
    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int = 1024
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False


class GPT2(Family):
    """GPT-2."""

    model_type: ClassVar[str] = "gpt2"
    architectures: ClassVar[tuple[str, ...]] = ("GPT2LMHeadModel", "GPT2Model")
    prefix: ClassVar[str] = "transformer."
    heads: ClassVar[tuple[str, ...]] = ("lm_head.",)
    embedding: ClassVar[str] = "transformer.wte.weight"
    head: ClassVar[str] = "lm_head.weight"
    harmless: ClassVar[re.Pattern[str]] = re.compile(r"(transformer|model)\.h\.\d+\.attn\.(bias|masked_bias)")
    tied_unless_said: ClassVar[bool] = True

    def config(self, config: Mapping[str, Any], names: Collection[str], *, where: str) -> ModelConfig:
        fields = pick(_Fields, config, where=where)
        for name, value in (
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("add_cross_attention", False),
        ):
            got = getattr(fields, name)
            refuse_unless(got == value, name, f"be {str(value).lower()}", got, where=where)
        mapping = {
            "family": GPTConfig.family,
            "attention": variant("mha").as_mapping(),
            "vocab_size": fields.vocab_size,
            "num_layers": fields.n_layer,
            "hidden_size": fields.n_embd,
            "num_heads": fields.n_head,
            "intermediate_size": fields.n_inner,
            "max_seq_len": fields.n_positions,
            "activation": activation_name(fields.activation_function, field="activation_function", where=where),
            "norm_eps": fields.layer_norm_epsilon,
            "init_std": fields.initializer_range,
            "tie_word_embeddings": self.is_tied(config, where=where),
        }
        return model_config_from_mapping(mapping, path=where)

    def describe(self, config: ModelConfig) -> dict[str, Any] | None:
        if not isinstance(config, GPTConfig) or config.positions != "learned":
            return None
        whole = config.num_heads * config.resolved_head_dim == config.hidden_size
        if stock_attention(config) != (config.num_heads, (None,) * config.num_layers) or not whole:
            return None
        tied = config.tie_word_embeddings
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "n_embd": config.hidden_size,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": config.resolved_intermediate_size,
            "n_positions": config.max_seq_len,
            # What mlx-lm asks for.
            "n_ctx": config.max_seq_len,
            "activation_function": their_activation(config.activation, tanh="gelu_new"),
            "layer_norm_epsilon": config.norm_eps,
            "initializer_range": config.init_std,
            "tie_word_embeddings": tied,
        }

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        usual = described["activation_function"] == "gelu_new" and described["tie_word_embeddings"]
        return usual and described["n_inner"] == 4 * described["n_embd"]

    def canonical(self, names: Collection[str]) -> dict[str, str]:
        return {name: name for name in names} if _is_mlx(names) else super().canonical(names)

    def modules(self, config: ModelConfig, names: Collection[str]) -> Iterator[Module]:
        base, turned = (MLX_PREFIX, False) if _is_mlx(names) else (self.prefix, True)
        for theirs, ours in (("wte", "embed_tokens"), ("wpe", "embed_positions"), ("ln_f", "norm")):
            yield Module(theirs=f"{base}{theirs}", ours=(ours,))
        for index in range(config.num_layers):
            theirs, ours = f"{base}h.{index}", f"layers.{index}"
            projections = tuple(f"{ours}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj"))
            yield Module(theirs=f"{theirs}.ln_1", ours=(f"{ours}.input_layernorm",))
            yield Module(theirs=f"{theirs}.attn.c_attn", ours=projections, transposed=turned)
            yield Module(theirs=f"{theirs}.attn.c_proj", ours=(f"{ours}.self_attn.o_proj",), transposed=turned)
            yield Module(theirs=f"{theirs}.ln_2", ours=(f"{ours}.post_attention_layernorm",))
            yield Module(theirs=f"{theirs}.mlp.c_fc", ours=(f"{ours}.mlp.up_proj",), transposed=turned)
            yield Module(theirs=f"{theirs}.mlp.c_proj", ours=(f"{ours}.mlp.down_proj",), transposed=turned)
        yield Module(theirs="lm_head", ours=("lm_head",))


def _is_mlx(names: Collection[str]) -> bool:
    return any(name.startswith(MLX_PREFIX) for name in names)
