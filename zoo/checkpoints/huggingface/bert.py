"""BERT: an encoder, with or without its pooler, its masked-token head and a classification head."""

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
from zoo.models import BertConfig, ModelConfig, model_config_from_mapping

_TRANSFORM, _POOLER, _CLASSIFIER = (
    "cls.predictions.transform.dense.weight",
    "bert.pooler.dense.weight",
    "classifier.weight",
)
_DECODER_BIAS, _BIAS = "cls.predictions.decoder.bias", "cls.predictions.bias"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fields:
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    add_cross_attention: bool = False
    id2label: dict[str, Any] | None = None


def _labels(fields: _Fields) -> list[str] | None:
    """Names of the classes, if the config gives each one a name."""
    named = {str(key): name for key, name in (fields.id2label or {}).items()}
    labels = [named.get(str(index)) for index in range(len(named))]
    return [str(label) for label in labels] if labels and all(isinstance(each, str) for each in labels) else None


class Bert(Family):
    """BERT."""

    model_type: ClassVar[str] = "bert"
    architectures: ClassVar[tuple[str, ...]] = (
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    )
    prefix: ClassVar[str] = "bert."
    heads: ClassVar[tuple[str, ...]] = ("cls.", "classifier.")
    embedding: ClassVar[str] = "bert.embeddings.word_embeddings.weight"
    head: ClassVar[str] = "cls.predictions.decoder.weight"
    harmless: ClassVar[re.Pattern[str]] = re.compile(
        r"bert\.embeddings\.position_ids|bert\.embeddings\.token_type_ids|cls\.seq_relationship\.(weight|bias)"
        r"|cls\.predictions\.(decoder\.)?bias"
    )
    tied_unless_said: ClassVar[bool] = True

    def config(self, config: Mapping[str, Any], names: Collection[str], *, where: str) -> ModelConfig:
        fields = pick(_Fields, config, where=where)
        kind = fields.position_embedding_type
        refuse_unless(kind == "absolute", "position_embedding_type", "be absolute", kind, where=where)
        for name in ("is_decoder", "add_cross_attention"):
            refuse_unless(not getattr(fields, name), name, "be false", True, where=where)
        # Without a head there is nothing to tie.
        has_head = _TRANSFORM in names
        mapping = {
            "family": BertConfig.family,
            "attention": variant("mha").as_mapping(),
            "vocab_size": fields.vocab_size,
            "num_layers": fields.num_hidden_layers,
            "hidden_size": fields.hidden_size,
            "num_heads": fields.num_attention_heads,
            "intermediate_size": fields.intermediate_size,
            "max_seq_len": fields.max_position_embeddings,
            "activation": activation_name(fields.hidden_act, field="hidden_act", where=where),
            "norm_eps": fields.layer_norm_eps,
            "init_std": fields.initializer_range,
            "num_token_types": fields.type_vocab_size,
            "num_classes": len(fields.id2label or ()) or 2,
            "labels": _labels(fields) if _CLASSIFIER in names else None,
            "tie_word_embeddings": not has_head or self.is_tied(config, where=where),
            "masked_token_head": has_head,
            "pooler": _POOLER in names,
            "classification_head": _CLASSIFIER in names,
        }
        return model_config_from_mapping(mapping, path=where)

    def describe(self, config: ModelConfig) -> dict[str, Any] | None:
        if not isinstance(config, BertConfig) or config.positions != "learned":
            return None
        whole = config.num_heads * config.resolved_head_dim == config.hidden_size
        if stock_attention(config) != (config.num_heads, (None,) * config.num_layers) or not whole:
            return None
        # Of several heads the one that somebody has named the classes of.
        named = config.classification_head and (config.labels is not None or not config.masked_token_head)
        kind = "BertForMaskedLM" if config.masked_token_head else "BertModel"
        labels = config.labels or [f"LABEL_{index}" for index in range(config.num_classes)]
        return {
            "architectures": ["BertForSequenceClassification" if named else kind],
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "intermediate_size": config.resolved_intermediate_size,
            "hidden_act": their_activation(config.activation, tanh="gelu_new"),
            "max_position_embeddings": config.max_seq_len,
            "type_vocab_size": config.num_token_types,
            "initializer_range": config.init_std,
            "layer_norm_eps": config.norm_eps,
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
            "tie_word_embeddings": config.tie_word_embeddings,
        }

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        # It has no encoders.
        return False

    def canonical(self, names: Collection[str]) -> dict[str, str]:
        # The oldest checkpoints name a norm's arrays by the letters of the paper.
        letters = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
        renamed = {}
        for name, known in super().canonical(names).items():
            old = next((letter for letter in letters if known.endswith(letter)), None)
            renamed[name] = known if old is None else known.removesuffix(old) + letters[old]
        return renamed

    def modules(self, config: ModelConfig, names: Collection[str]) -> Iterator[Module]:
        embeddings = {
            "word_embeddings": "embed_tokens",
            "position_embeddings": "embed_positions",
            "token_type_embeddings": "embed_token_types",
            "LayerNorm": "embed_norm",
        }
        for theirs, ours in embeddings.items():
            yield Module(theirs=f"bert.embeddings.{theirs}", ours=(ours,))
        layer = {
            "attention.self.query": "self_attn.q_proj",
            "attention.self.key": "self_attn.k_proj",
            "attention.self.value": "self_attn.v_proj",
            "attention.output.dense": "self_attn.o_proj",
            "attention.output.LayerNorm": "attention_layernorm",
            "intermediate.dense": "mlp.up_proj",
            "output.dense": "mlp.down_proj",
            "output.LayerNorm": "output_layernorm",
        }
        for index in range(config.num_layers):
            for theirs, ours in layer.items():
                yield Module(theirs=f"bert.encoder.layer.{index}.{theirs}", ours=(f"layers.{index}.{ours}",))
        yield Module(theirs="bert.pooler.dense", ours=("pooler",))
        yield Module(theirs="classifier", ours=("classifier",))
        yield Module(theirs="cls.predictions.transform.dense", ours=("masked_token_transform.dense",))
        yield Module(theirs="cls.predictions.transform.LayerNorm", ours=("masked_token_transform.norm",))
        yield Module(theirs="cls.predictions.decoder", ours=("lm_head",))
        # Both name one array; where a file has both, the decoder's is the one that transformers adds.
        biases = [_DECODER_BIAS if _DECODER_BIAS in names else _BIAS]
        if not names and not config.tie_word_embeddings:
            # transformers ties the two with the embeddings only.
            biases = [_DECODER_BIAS, _BIAS]
        for theirs in biases:
            yield Module(theirs=theirs, ours=("masked_token_bias",))
