"""Prompt caches: what a model has read, kept in a file, so that the next text goes on from there.

The files are mlx-lm's (`save_prompt_cache`), which reads those of caches that it knows. Besides the arrays they say
which model read what, for keys and values mean nothing to any other model. A file can come from anybody: its header,
names, shapes and counts are verified before an array is read.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import save_prompt_cache

from zoo.checkpoints.tensors import TensorFile, open_tensors, require_finite, require_names
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import open_regular, parse_json, sync
from zoo.data.tokenizers import Tokenizer
from zoo.generation.context import Context
from zoo.generation.model import LanguageModel
from zoo.generation.quantizing import CacheQuantization
from zoo.layers.caches import KVCache, QuantizedKVCache, RotatingKVCache

_WHAT = "prompt_cache"
# mlx-lm writes three parts into the metadata: what its caller says, the classes of the caches, and which entries are
# no arrays but numbers.
_SAID, _CLASSES = "0.", "1."
_FORMAT = "attention_zoo"
# Counts and sizes of a cache's state, which follow its arrays.
_WHOLE = (mx.int32, mx.int64)


def save_context(
    path: Path,
    context: Context,
    *,
    model: LanguageModel,
    tokenizer: Tokenizer,
    pending: Sequence[int] = (),
    messages: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Writes a context beside its place and renames it.

    Args:
        path: The file.
        context: What was read; at least one token.
        model: Who read it.
        tokenizer: Its tokenizer.
        pending: Tokens that come next and were not read.
        messages: Of a chat, what was said.

    Raises:
        UserError: If there is nothing to write, or it cannot be written.
    """
    if not context.tokens:
        raise UserError(f"save_{_WHAT}: the prompt must have at least 2 tokens to be kept; it has fewer")
    said = {
        "format": _FORMAT,
        **_identity(model, tokenizer),
        "tokens": json.dumps(context.tokens),
        "pending": json.dumps(list(pending)),
        "messages": json.dumps(None if messages is None else list(messages)),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            # It takes whatever MLX can write to.
            save_prompt_cache(stream, context.cache, said)
        sync(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"save_{_WHAT}: {path} must be writable; {' '.join(str(error).split())}") from None


def require_replaceable(path: Path) -> None:
    """Refuses to write over anything but a prompt cache, or where no file can be.

    Raises:
        UserError: Names the file.
    """
    what = f"save_{_WHAT}"
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"{what} must name a file in a folder that exists; got {shortened(str(path))}")
    if os.path.lexists(path):
        try:
            with open_regular(path, what=what) as stream:
                _said(open_tensors(stream, path, what=what))
        except UserError:
            raise UserError(f"{what}: {path} must be a prompt cache or not exist; it is another file") from None


class SavedContext:
    """What a prompt cache holds.

    Attributes:
        context: Its tokens and caches.
        pending: Tokens that come next and were not read.
        messages: Of a chat, what was said; else None.
    """

    def __init__(
        self,
        path: Path,
        *,
        model: LanguageModel,
        tokenizer: Tokenizer,
        quantization: CacheQuantization | None = None,
    ) -> None:
        """Reads the file.

        Args:
            path: The file.
            model: Has to be the one that read it.
            tokenizer: Has to be its tokenizer.
            quantization: How keys and values have to be kept there, if not as they are.

        Raises:
            UserError: If the file is malformed, or of another model or attention.
        """
        with open_regular(path, what=_WHAT) as stream:
            file = open_tensors(stream, path, what=_WHAT)
            said = _said(file)
            _require_same(file.where, said, model, tokenizer)
            vocab_size = model.config.vocab_size
            tokens = _tokens(file.where, said, "tokens", vocab_size)
            self.pending = _tokens(file.where, said, "pending", vocab_size)
            self.messages = _messages(file.where, said)
            if not tokens:
                raise UserError(f"{file.where} must hold at least one token; it holds none")
            self.context = Context(model, returns=True, quantization=quantization)
            self.context.cache = _caches(file, self.context, len(tokens))
            self.context.tokens = tokens


def _said(file: TensorFile) -> dict[str, str]:
    """What we said of the file when we wrote it."""
    said = {name.removeprefix(_SAID): text for name, text in file.metadata.items() if name.startswith(_SAID)}
    if said.get("format") != _FORMAT:
        raise UserError(f"{file.where} must be written by save_{_WHAT}=; it does not say which model it belongs to")
    return said


def _identity(model: LanguageModel, tokenizer: Tokenizer) -> dict[str, str]:
    """Everything that decides what the caches of a text are."""
    digest = hashlib.sha256()
    described = model.config.as_mapping()
    attention = described.pop("attention")
    digest.update(json.dumps(described, sort_keys=True).encode())
    # Of its own kind, for NumPy has no bfloat16.
    weights = dict(tree_flatten(model.parameters()))
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.array(array.reshape(-1).view(mx.uint8)).data)
    return {
        "attention": json.dumps(attention, sort_keys=True),
        "model": digest.hexdigest(),
        "tokenizer": tokenizer.fingerprint,
    }


def _require_same(where: str, said: Mapping[str, str], model: LanguageModel, tokenizer: Tokenizer) -> None:
    identity = _identity(model, tokenizer)
    if said.get("attention") != identity["attention"]:
        described = parse_json(said.get("attention", "null"), where=f"{where}: attention")
        name = described.get("name") if isinstance(described, dict) else None
        own = model.config.attention.name
        other = "other parameters of it" if name == own else shortened(name)
        raise UserError(f"{where} must be of attention {own!r}, as the model is; it is of {other}")
    if said.get("model") != identity["model"]:
        raise UserError(f"{where} must be of this model, in this dtype; it is of another, or of other weights")
    if said.get("tokenizer") != identity["tokenizer"]:
        raise UserError(f"{where} must be of this model's tokenizer; it is of another")


def _tokens(where: str, said: Mapping[str, str], name: str, vocab_size: int) -> list[int]:
    tokens = parse_json(said.get(name, "null"), where=f"{where}: {name}")
    known = isinstance(tokens, list) and all(type(each) is int and 0 <= each < vocab_size for each in tokens)
    if not known:
        raise UserError(f"{where}: {name} must be tokens of the model; got {shortened(tokens)}")
    return list(tokens)


def _messages(where: str, said: Mapping[str, str]) -> list[dict[str, Any]] | None:
    messages = parse_json(said.get("messages", "null"), where=f"{where}: messages")
    if messages is None:
        return None
    if not isinstance(messages, list) or not all(
        isinstance(each, dict) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str)
        for each in messages
    ):
        raise UserError(f"{where}: messages must be a list with role and content; got {shortened(messages)}")
    return messages


def _caches(file: TensorFile, context: Context, num_tokens: int) -> list[Any]:
    """The caches, each as the model would have made it."""
    # What the state of its caches looks like is seen after one token.
    made = context.make_cache()
    mx.eval(context.model(mx.zeros((1, 1), dtype=mx.int32), cache=made), [layer.state for layer in made])
    classes = [type(layer).__name__ for layer in made]
    found = [file.metadata.get(f"{_CLASSES}{index}") for index in range(len(made))]
    if found != classes:
        raise UserError(f"{file.where} must hold caches of {classes}; got {shortened(found)}")
    wanted = dict(tree_flatten([layer.state for layer in made]))
    require_names(file.entries, wanted, f"{file.where} must hold exactly the caches of the model")
    for name, seen in wanted.items():
        if not isinstance(seen, mx.array):
            file.require(name, (), _WHOLE)
            continue
        shape = list(seen.shape)
        entry = file.entries[name].shape
        if isinstance(made[int(name.partition(".")[0])], KVCache | RotatingKVCache) and len(entry) == len(shape):
            # As many slots as it needed.
            shape[2] = entry[2]
        file.require(name, tuple(shape), (seen.dtype,))
    arrays = file.load()
    require_finite(arrays, file.where)
    state: Any = tree_unflatten(
        [(name, arrays[name] if isinstance(seen, mx.array) else arrays[name].item()) for name, seen in wanted.items()]
    )
    for layer, fresh, its_state in zip(made, context.make_cache(), state, strict=True):
        layer.state = its_state
        if layer.offset != num_tokens or not _is_sound(layer, fresh):
            raise UserError(f"{file.where} must hold caches of its {num_tokens} tokens; it holds others")
    return made


def _is_sound(cache: Any, fresh: Any) -> bool:
    """Whether the counts of a cache fit its arrays."""
    if isinstance(cache, QuantizedKVCache):
        slots = {array.shape[2] for array in (*cache.keys, *cache.values)}
        same = (cache.bits, cache.group_size) == (fresh.bits, fresh.group_size)
        return same and len(slots) == 1 and min(slots) >= cache.offset
    if isinstance(cache, KVCache):
        return cache.keys.shape[2] == cache.values.shape[2] >= cache.offset
    if not isinstance(cache, RotatingKVCache):
        return True
    slots, filled = cache.keys.shape[2], min(cache.offset, cache.max_size)
    if (cache.keep, cache.max_size) != (fresh.keep, fresh.max_size) or cache.values.shape[2] != slots:
        return False
    return (
        cache._idx == cache.offset if cache.offset <= slots else filled <= slots and cache.keep <= cache._idx <= slots
    )
