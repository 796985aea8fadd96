"""What `configs/data/examples.yaml` says: where examples are, what their records mean, and what is learnt of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from zoo.config import from_mapping, require, to_mapping

RecordFormat = Literal["auto", "text", "completion", "chat", "classification"]
LossOn = Literal["assistant", "last", "all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeysConfig:
    """The names that records give to what they hold.

    Attributes:
        text: A text.
        prompt: What a completion follows.
        completion: What follows a prompt.
        messages: A conversation: a list of objects with role and content.
        tools: Descriptions of tools beside a conversation.
        role: In a message: who speaks.
        content: In a message: what is said.
        text_pair: A second text, beside `text` and a label.
        label: What a text is to be classified as: a name, or a number from 0 on.
    """

    text: str = "text"
    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    tools: str = "tools"
    role: str = "role"
    content: str = "content"
    text_pair: str = "text_pair"
    label: str = "label"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """JSON lines to fine-tune on.

    Attributes:
        path: File, folder or glob, or a list of these; of a folder with a `train.jsonl` that file, and its
            `valid.jsonl` for validation. Has to be given.
        validation_path: The same for validation; None for a folder's `valid.jsonl`, or else to hold out a part.
        validation_fraction: Share of the records that is held out, chosen by hash.
        format: What a record is; "auto" tells by the keys of the first one.
        keys: The records' names.
        roles: Other words for roles, as {human: user, gpt: assistant}.
        loss_on: What is learnt of a conversation: "assistant" every turn of the assistant, "last" only the last turn,
            "all" everything. Of a prompt and its completion "all" is both and anything else the completion.
        chat_template: File with a template in Jinja, in place of the checkpoint's; None for that.
        pack: Whether rows hold several examples, kept apart, instead of one and padding; not of texts to classify.
        cache_dir: Folder for tokens; None for ZOO_CACHE or `~/.cache/attention_zoo`.
    """

    corpus: ClassVar[str] = "examples"

    path: str | tuple[str, ...] | None = None
    validation_path: str | tuple[str, ...] | None = None
    validation_fraction: float = 0.05
    format: RecordFormat = "auto"
    keys: KeysConfig = KeysConfig()
    roles: dict[str, Any] = dataclasses.field(default_factory=dict)
    loss_on: LossOn = "assistant"
    chat_template: str | None = None
    pack: bool = False
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        require(self.path is not None, "path", "name a file, folder or glob, or a list of these", self.path)
        fraction = self.validation_fraction
        require(0 < fraction < 1, "validation_fraction", "lie between 0 and 1", fraction)
        words = all(isinstance(each, str) for each in self.roles.values())
        require(words, "roles", "map words to roles", self.roles)
        for name, key in to_mapping(self.keys).items():
            require(key != "", f"keys.{name}", "name a key", key)

    def as_mapping(self) -> dict[str, Any]:
        """The plain mapping of `configs/data/examples.yaml`."""
        return {"corpus": self.corpus, **to_mapping(self)}


def examples_config_from_mapping(mapping: Mapping[str, Any], *, path: str = "data") -> ExamplesConfig:
    """Builds the config from what `configs/data/examples.yaml` or a checkpoint holds; `path` is for messages.

    Raises:
        UserError: On an unknown key or value.
    """
    return from_mapping(ExamplesConfig, {key: value for key, value in mapping.items() if key != "corpus"}, path=path)
