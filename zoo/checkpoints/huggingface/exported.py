"""Models that left from here with a `model_file`: read by what their config says of them; that file is never run."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from zoo.checkpoints.huggingface.family import Family
from zoo.checkpoints.huggingface.table import Module
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.models import BertConfig, ModelConfig, model_config_from_mapping

# Where `config.json` says what the model is, in our words.
DESCRIPTION = "attention_zoo"
# And, of one under names of another library's, which of our arrays each tensor holds.
TENSORS = "attention_zoo_tensors"
_PREFIX, _HEAD = "model.", "lm_head."


class Exported(Family):
    """A language model under our own names, below `model.` as mlx-lm has them."""

    model_type: ClassVar[str] = "attention_zoo"
    architectures: ClassVar[tuple[str, ...]] = ("AttentionZooForCausalLM",)
    prefix: ClassVar[str] = _PREFIX
    heads: ClassVar[tuple[str, ...]] = (_HEAD,)
    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    harmless: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")

    def config(self, config: Mapping[str, Any], names: Collection[str], *, where: str) -> ModelConfig:
        described = config.get(DESCRIPTION)
        if not isinstance(described, Mapping):
            raise UserError(f"{where}: {DESCRIPTION} must describe the model; got {shortened(described)}")
        return model_config_from_mapping(described, path=f"{where}: {DESCRIPTION}")

    def is_tied(self, config: Mapping[str, Any], *, where: str) -> bool:
        return self.config(config, (), where=where).tie_word_embeddings

    def describe(self, config: ModelConfig) -> dict[str, Any] | None:
        if isinstance(config, BertConfig):
            return None
        return {
            "architectures": list(self.architectures),
            "model_type": self.model_type,
            # What tools look up of any model.
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.resolved_num_kv_heads,
            "head_dim": config.resolved_head_dim,
            "intermediate_size": config.resolved_intermediate_size,
            "max_position_embeddings": config.max_seq_len,
            "tie_word_embeddings": config.tie_word_embeddings,
            DESCRIPTION: config.as_mapping(),
        }

    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        return False

    def modules(self, config: ModelConfig, names: Collection[str]) -> Iterator[Module]:
        for theirs in sorted({name.rpartition(".")[0] for name in names}):
            yield Module(theirs=theirs, ours=(theirs.removeprefix(_PREFIX),))


def exported_names(ours: Iterable[str]) -> list[str]:
    """The names of our arrays in such a model."""
    return [name if name.startswith(_HEAD) else f"{_PREFIX}{name}" for name in ours]


def is_exported(config: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a checkpoint describes itself in our words, under our names."""
    return DESCRIPTION in config and Exported.embedding in names
