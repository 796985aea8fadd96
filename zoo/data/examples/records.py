"""Records of JSON lines: which files, which of them are held out, and what each record holds."""

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import parse_json, typed_path
from zoo.data.corpora.document import Document, hash_of
from zoo.data.corpora.file_corpus import FileCorpus, FilesConfig, SplitOf
from zoo.data.corpora.files import SourceFile, read_whole_lines
from zoo.data.examples.config import ExamplesConfig, KeysConfig

logger = logging.getLogger(__name__)

_TRAIN, _VALIDATION, _TEST = "train.jsonl", "valid.jsonl", "test.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """Messages that a template renders.

    Attributes:
        messages: Each with `role`, `content` and whatever else the record gives it.
        tools: Descriptions of tools, or None.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """A prompt, and what follows it."""

    prompt: str
    completion: str

    def as_conversation(self) -> Conversation:
        """A question and its answer."""
        question, answer = {"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion}
        return Conversation(messages=(question, answer))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text to classify, or two that belong together, and what it is: a name, or the number of a class."""

    text: str
    text_pair: str | None
    label: str | int


Record = str | Completion | Conversation | Labelled


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinesConfig(FilesConfig):
    """Files of lines."""

    corpus: ClassVar[str] = "examples"

    def open(self) -> "_LinesCorpus":
        return _LinesCorpus(self, suffix=".jsonl")


class _LinesCorpus(FileCorpus[_LinesConfig]):
    """Each line that is not blank, as it stands."""

    def settings(self) -> tuple[object, ...]:
        return ()

    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        for number, line in read_whole_lines(file):
            text = line.strip()
            if text:
                yield Document(text=text, source=f"{file.path}:{number}", split=split(text))


class Records:
    """The records of a config, in order."""

    def __init__(self, config: ExamplesConfig) -> None:
        """Finds the files.

        Raises:
            UserError: If there are none.
        """
        path, validation_path = _places(config)
        fields = {"path": path, "validation_path": validation_path, "validation_fraction": config.validation_fraction}
        self._config = config
        self._corpus = _LinesConfig(**fields).open()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the files' content and what of it is held out."""
        return self._corpus.fingerprint()

    def documents(self) -> list[Document]:
        """The lines, some of them held out.

        Raises:
            UserError: If nothing could be held out, or nothing is there.
        """
        documents = list(self._corpus.documents())
        sides = {document.split for document in documents}
        if not documents:
            raise UserError("data.path must hold records; it is empty")
        if self._corpus.validation_field is None and sides != {"train", "validation"}:
            # Of a few records a small share by hash can be none.
            chosen = min((document.text for document in documents), key=hash_of)
            if all(document.text == chosen for document in documents):
                raise UserError("data.path must hold two different records at least, one to validate on")
            documents = [
                dataclasses.replace(document, split="validation" if document.text == chosen else "train")
                for document in documents
            ]
        elif sides != {"train", "validation"}:
            empty = "data.path" if sides == {"validation"} else self._corpus.validation_field
            raise UserError(f"{empty} must hold records; it is empty")
        return documents

    def read(self) -> Iterator[tuple[Document, Record]]:
        """The lines and what they hold, which is the same kind of thing in all.

        Raises:
            UserError: On a line that holds something else; names file and line.
        """
        kind: str = self._config.format
        for document in self.documents():
            fields = parse_json(document.text, where=f"data: {document.source}")
            if not isinstance(fields, dict):
                raise UserError(f"{document.source}: must be a JSON object; got {type(fields).__name__}")
            if kind == "auto":
                kind = _format_of(fields, self._config.keys, document.source)
            yield document, _record(kind, fields, self._config, document.source)


def _places(config: ExamplesConfig) -> tuple[Any, Any]:
    """Path and validation path; of a folder as mlx-lm's users have it, the files that these are."""
    path, validation_path = config.path, config.validation_path
    folder = typed_path(path, what="data.path") if isinstance(path, str) else None
    if folder is None or not (folder / _TRAIN).is_file():
        return path, validation_path
    if (folder / _TEST).is_file():
        logger.info("data.path: %s is left for evaluations", folder / _TEST)
    if validation_path is None and (folder / _VALIDATION).is_file():
        validation_path = str(folder / _VALIDATION)
    return str(folder / _TRAIN), validation_path


def _format_of(fields: Mapping[str, Any], keys: KeysConfig, where: str) -> str:
    if keys.messages in fields:
        return "chat"
    if keys.prompt in fields and keys.completion in fields:
        return "completion"
    if keys.text in fields:
        return "classification" if keys.label in fields else "text"
    raise UserError(
        f"{where}: must have the key {keys.messages!r}, or {keys.prompt!r} and {keys.completion!r}, or {keys.text!r}, "
        f"or {keys.text!r} and {keys.label!r}; "
        f"got {shortened(sorted(fields))} (data.keys names other ones, as in data.keys.text=story)"
    )


def _record(kind: str, fields: Mapping[str, Any], config: ExamplesConfig, where: str) -> Record:
    keys = config.keys
    if kind == "text":
        return _text(fields, keys.text, where)
    if kind == "completion":
        return Completion(prompt=_text(fields, keys.prompt, where), completion=_text(fields, keys.completion, where))
    if kind == "classification":
        return _labelled(fields, keys, where)
    messages = fields.get(keys.messages)
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise UserError(f"{where}: {keys.messages!r} must be a list of messages; got {shortened(messages)}")
    tools = fields.get(keys.tools)
    if tools is not None and not (isinstance(tools, list) and all(isinstance(each, dict) for each in tools)):
        raise UserError(f"{where}: {keys.tools!r} must be a list of objects; got {shortened(tools)}")
    named = tuple(_message(each, config, f"{where}: message {number}") for number, each in enumerate(messages, start=1))
    return Conversation(messages=named, tools=None if tools is None else tuple(tools))


def _labelled(fields: Mapping[str, Any], keys: KeysConfig, where: str) -> Labelled:
    text, pair = _text(fields, keys.text, where), None
    if fields.get(keys.text_pair) is not None:
        pair = _text(fields, keys.text_pair, where)
    label = fields.get(keys.label)
    if isinstance(label, bool) or not isinstance(label, int):
        label = _text(fields, keys.label, where, what="a name or a whole number")
    return Labelled(text=text, text_pair=pair, label=label)


def _message(fields: Mapping[str, Any], config: ExamplesConfig, where: str) -> Mapping[str, Any]:
    keys = config.keys
    role = _text(fields, keys.role, where)
    rest = {key: value for key, value in fields.items() if key not in (keys.role, keys.content)}
    # A call of a tool says nothing.
    content = fields.get(keys.content)
    if isinstance(content, str):
        content = _text(fields, keys.content, where)
    elif keys.content not in fields and not rest:
        raise UserError(f"{where} must have {keys.content!r}; got {shortened(sorted(fields))}")
    return {"role": config.roles.get(role, role), "content": content, **rest}


def _text(fields: Mapping[str, Any], key: str, where: str, *, what: str = "a text") -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: {key!r} must be {what}; got {shortened(value)} (its keys: {shortened(sorted(fields))})"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {key!r} must be Unicode; got a lone surrogate at {error.start + 1}") from None
    return value
