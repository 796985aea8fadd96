"""What a family of models in Hugging Face's layout has to say of itself."""

import abc
import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from zoo.attention.function import stock_layers
from zoo.checkpoints.huggingface.table import Module
from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened
from zoo.models import ModelConfig
from zoo.ops.activations import ActivationName

FieldsT = TypeVar("FieldsT")

_ACTIVATIONS: dict[str, ActivationName] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
}


class Family(abc.ABC):
    """Models of one `model_type`.

    Attributes:
        model_type: As `config.json` names it.
        architectures: Classes of transformers whose checkpoints are read.
        prefix: What the names of all tensors but the heads' begin with; bare models are saved without it.
        heads: What the names of heads' tensors begin with.
        embedding: The tensor of the token embedding, with its prefix.
        head: The tensor of the output projection, which is the same where embeddings are tied.
        harmless: Tensors that are passed over: buffers of older versions that can be computed, and heads that nothing
            here has a use for.
    """

    model_type: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    prefix: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ()
    embedding: ClassVar[str]
    head: ClassVar[str]
    harmless: ClassVar[re.Pattern[str]]

    @abc.abstractmethod
    def config(self, config: Mapping[str, Any], names: Collection[str], *, where: str) -> ModelConfig:
        """Our config.

        Args:
            config: The whole `config.json`.
            names: The tensors that the checkpoint has, as `canonical` spells them.
            where: What to call the file in messages.

        Raises:
            UserError: If it asks for something that is not read here.
        """

    @abc.abstractmethod
    def modules(self, config: ModelConfig, names: Collection[str]) -> Iterator[Module]:
        """The modules of a checkpoint of this config, whose tensors are these; without any, of one to be written."""

    @abc.abstractmethod
    def describe(self, config: ModelConfig) -> dict[str, Any] | None:
        """The `config.json` from which `config` makes a model of the same function.

        Versions 4 and 5 of transformers read it. None if models of this family cannot be such.
        """

    @abc.abstractmethod
    def in_mlx_lm(self, described: Mapping[str, Any]) -> bool:
        """Whether mlx-lm's own model of this family computes what `describe` describes."""

    def is_tied(self, config: Mapping[str, Any], *, where: str) -> bool:
        """Whether the config says that the output projection is the token embedding."""
        return pick(_Tied, {"tie_word_embeddings": self.tied_unless_said, **config}, where=where).tie_word_embeddings

    tied_unless_said: ClassVar[bool] = False

    def canonical(self, names: Collection[str]) -> dict[str, str]:
        """The tensors' names in a file -> the names by which `modules` knows them."""
        if any(name.startswith(self.prefix) for name in names):
            return {name: name for name in names}
        return {name: name if name.startswith(self.heads) else f"{self.prefix}{name}" for name in names}


def their_activation(name: ActivationName, *, tanh: str) -> str:
    """An activation as transformers names it, the approximation by tanh as this family does."""
    return tanh if name == "gelu_tanh" else name


def stock_attention(config: ModelConfig) -> tuple[int, tuple[int | None, ...]] | None:
    """Key/value heads and windows as `zoo.attention.function.stock_layers` gives them."""
    return stock_layers(
        config.attention,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.resolved_num_kv_heads,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tied:
    tie_word_embeddings: bool


def pick(cls: type[FieldsT], config: Mapping[str, Any], *, where: str) -> FieldsT:
    """The fields of a dataclass from a `config.json`, which holds much besides.

    Raises:
        UserError: If one is missing or mistyped.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return from_mapping(cls, {name: config[name] for name in names if name in config}, path=where)


def activation_name(name: str, *, field: str, where: str) -> ActivationName:
    """Our name of an activation function.

    Raises:
        UserError: If it is not one of ours.
    """
    if name not in _ACTIVATIONS:
        choices = ", ".join(_ACTIVATIONS)
        raise UserError(f"{where}: {field} must be a known activation; got {shortened(name)} (choices: {choices})")
    return _ACTIVATIONS[name]


def refuse_unless(condition: bool, field: str, must: str, got: object, *, where: str) -> None:
    """Refuses a config that asks for something that is not read here.

    Raises:
        UserError: Unless the condition holds.
    """
    if not condition:
        raise UserError(f"{where}: {field} must {must}; got {shortened(got)}")
