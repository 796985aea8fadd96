"""The tokenizer of a checkpoint: read by transformers through mlx-lm, and lossless for what a model learns from.

A checkpoint's tokenizer may do more than split a text: put a space before it, bring characters into a normal form,
take "</s>" for the end of a document wherever a text spells it. For documents these are switched off, so that tokens
stand for exactly the text's bytes. A prompt begins as the model was trained. Models from elsewhere get it encoded as
the tokenizer itself does it, with its start token if it sets one; models that were trained here get the end of a
document and the exact tokens, as in their training data. Which of the two holds is saved with the tokenizer.
"""

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.config import UserError, require
from zoo.config.errors import shortened
from zoo.config.files import read_json_mapping, typed_path
from zoo.data.corpora import Corpus
from zoo.data.tokenizers.chat_template import ChatTemplate, chosen_template
from zoo.data.tokenizers.exported import SPACES_BACK, after_end, write_tokenizer
from zoo.data.tokenizers.interface import (
    SPACE,
    TOKENIZER_FILE,
    Tokenizer,
    TokenizerConfig,
    encode_around_space,
    require_unicode,
)
from zoo.data.tokenizers.pieces import require_small_numbers, token_bytes, uses_metaspace, without_changes
from zoo.runtime.hub_reference import HubReference

# What decides how a tokenizer works, as patterns; weights are never fetched for it.
_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model", "chat_template*", "*config.json")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# Where a model says how it is to be asked.
_GENERATION = "generation_config.json"
# Runs of spaces, line ends, capitals, what normal forms merge, rare and unassigned characters, special tokens.
_PROBE = (
    "  a  B\t\r\n\n É e\u0301 \ufb01 \u212b \u2581 \x00\x07 \u00ad \u200b 漢字 🙂 \U000e0001 \ue000 <s></s> [MASK] "
)
_TEXT = "a"  # stands for any


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedConfig(TokenizerConfig):
    """The tokenizer of a checkpoint.

    Attributes:
        path: Folder of a checkpoint of ours or in Hugging Face's layout, or a name on the Hub; has to be given.
    """

    kind: ClassVar[str] = "pretrained"

    path: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.path), "path", "be a checkpoint's folder or a name on the Hub", self.path)

    def build(self, corpus: Corpus, *, cache_dir: Path) -> Tokenizer:
        # Late, because that module lists this one.
        from zoo.data.tokenizers import load_tokenizer

        assert self.path is not None, "the config requires a path"
        folder = typed_path(self.path, what="tokenizer.path")
        return load_tokenizer(folder if folder.is_dir() else _download(self.path)).for_a_new_model()


class PretrainedTokenizer(Tokenizer):
    """A checkpoint's tokenizer; `wrapper` is mlx-lm's, with chat template and the model's own end tokens."""

    def __init__(self, folder: Path, *, trained_here: bool = False) -> None:
        """Reads the tokenizer of a checkpoint in Hugging Face's layout.

        Args:
            folder: The checkpoint's.
            trained_here: Whether its model learnt to begin a text after the end of a document.

        Raises:
            UserError: If the folder has none, or one that cannot be read without executing the checkpoint's code.
        """
        self.trained_here = trained_here
        _require_readable(folder)
        with _reading(folder):
            self.wrapper = _read(folder)
            self.eos_id = _end_id(self.wrapper, folder)
            self._own_end_ids = frozenset({self.eos_id, *_model_end_ids(folder)})
            pad_id = self.wrapper.pad_token_id
            self.pad_id = self.eos_id if pad_id is None else pad_id
            self.mask_id = self.wrapper.mask_token_id
            self.mask_text = self.wrapper.mask_token or self.mask_text
            backend = json.loads(self.wrapper.backend_tokenizer.to_str())
            self._exact_json = json.dumps(without_changes(backend), sort_keys=True)
            self._exact = type(self.wrapper.backend_tokenizer).from_str(self._exact_json)
            self.token_bytes_V = token_bytes(self.wrapper, backend)
            self._space_ids = [self.wrapper.convert_tokens_to_ids(f"<0x{value:02X}>") for value in SPACE.encode()]
            self._escapes_space = uses_metaspace(backend) and None not in self._space_ids
            self.lossless = self._gives_back(_PROBE)
            before, behind = self.around_a_text()
            # Where its prompts begin with nothing, something has to stand before the first token all the same.
            starts = (*before, self.wrapper.bos_token_id, self.eos_id)
            self._own_start_id = next(int(token) for token in starts if token is not None)
            # An encoder's separator stays: it is part of what that reads.
            self._num_behind = len(behind) if self.wrapper.eos_token_id in behind else 0
            # Settings that no one could encode a prompt with show here and not later.
            self.wrapper.decode(self.wrapper.encode(_PROBE, verbose=False), skip_special_tokens=True)

    @property
    def fingerprint(self) -> str:
        content = repr((self._exact_json, self.eos_id, self.pad_id, self.mask_id, self.vocab_size))
        return f"pretrained-{hashlib.sha256(content.encode()).hexdigest()}"

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        if self._escapes_space:
            return encode_around_space(text, self._encode_exactly, self._space_ids)
        return self._encode_exactly(text)

    def encode_batch(self, texts: Sequence[str], *, num_threads: int) -> list[np.ndarray]:
        plain = [text for text in texts if SPACE not in text]
        encoded = iter(self._exact.encode_batch_fast(plain, add_special_tokens=False))
        lists = (self.encode(text) if SPACE in text else next(encoded).ids for text in texts)
        return [np.array(ids, dtype=np.int32) for ids in lists]

    @property
    def end_ids(self) -> frozenset[int]:
        return super().end_ids if self.trained_here else self._own_end_ids

    @property
    def start_id(self) -> int:
        return self.eos_id if self.trained_here else self._own_start_id

    def encode_prompt(self, text: str) -> list[int]:
        if self.trained_here:
            return super().encode_prompt(text)
        require_unicode(text)
        ids = list(self.wrapper.encode(text))
        # What it puts behind a text says that nothing follows, and what is asked for is what follows.
        return ids[: len(ids) - self._num_behind]

    def encode_masked(self, text: str) -> list[int]:
        if self.trained_here:
            return super().encode_masked(text)
        # It knows its own mask, which may take the space before it along.
        require_unicode(text)
        return list(self.wrapper.encode(text))

    def encode_pair(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        if self.trained_here:
            return super().encode_pair(text, pair)
        for each in (text, pair or ""):
            require_unicode(each)
        encoded = self.wrapper._tokenizer(text, pair, return_token_type_ids=True, verbose=False)
        return list(encoded["input_ids"]), list(encoded["token_type_ids"])

    def encode_marked_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        require_unicode(text)
        encoded = self.wrapper.backend_tokenizer.encode(text, add_special_tokens=False)
        return list(encoded.ids), [start for start, _ in encoded.offsets]

    def chat_template(self) -> ChatTemplate | None:
        source = self.wrapper.chat_template if self.chat_source is None else self.chat_source
        return chosen_template(source, self.wrapper.special_tokens_map)

    def for_a_new_model(self) -> Tokenizer:
        tokenizer = copy.copy(self)
        tokenizer.trained_here = True
        return tokenizer

    def decode(self, ids: Iterable[int]) -> str:
        # A tokenizer that loses text has its own rules for where spaces may have been.
        return super().decode(ids) if self.lossless else self.wrapper.decode(list(ids), skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        try:
            self.wrapper.save_pretrained(folder)
            self._save_chat_template(folder)
            description = {"kind": PretrainedConfig.kind, "trained_here": self.trained_here}
            if not self.trained_here:
                (folder / _GENERATION).write_text(json.dumps({"eos_token_id": sorted(self.end_ids)}), encoding="utf-8")
            (folder / TOKENIZER_FILE).write_text(json.dumps(description), encoding="utf-8")
        # The part in Rust has no type of its own for a full disk.
        except Exception as error:
            raise UserError(f"tokenizer: {folder} must be writable; {' '.join(str(error).split())}") from error

    def export(self, folder: Path) -> None:
        try:
            self.wrapper.save_pretrained(folder)
        # The part in Rust has no type of its own for a full disk.
        except Exception as error:
            raise UserError(f"tokenizer: {folder} must be writable; {' '.join(str(error).split())}") from error
        if not self.trained_here:
            self._save_chat_template(folder)
            return
        # What its model learnt from: no text changed, each begun after the end of a document.
        whole = json.loads(self.wrapper.backend_tokenizer.to_str())
        name = self.wrapper.convert_ids_to_tokens(self.eos_id)
        description = {
            **json.loads(self._exact_json),
            "added_tokens": whole["added_tokens"],
            "post_processor": after_end(name, self.eos_id),
            # No space stands before a text that would have to go again.
            "decoder": SPACES_BACK if uses_metaspace(whole) else whole["decoder"],
        }
        settings = read_json_mapping(folder / "tokenizer_config.json", what="tokenizer")
        write_tokenizer(folder, description, settings, chat_source=self.chat_source)

    def around_a_text(self) -> tuple[list[int], list[int]]:
        """The tokens that it puts before and behind every text."""
        bare = self.wrapper.encode(_TEXT, add_special_tokens=False)
        whole = self.wrapper.encode(_TEXT)
        places = range(len(whole) - len(bare) + 1)
        place = next((each for each in places if bare and whole[each : each + len(bare)] == bare), None)
        # A text that becomes nothing does not show where it would stand.
        return (whole, []) if place is None else (whole[:place], whole[place + len(bare) :])

    def _encode_exactly(self, text: str) -> list[int]:
        return list(self._exact.encode(text, add_special_tokens=False).ids)

    def _gives_back(self, text: str) -> bool:
        return b"".join(self.token_bytes_V[token] for token in self.encode(text)) == text.encode()


def _require_readable(folder: Path) -> None:
    """Refuses what transformers would stumble over, hang at or look for elsewhere."""
    for file in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        if not file.is_file() and not file.is_dir():
            raise UserError(f"tokenizer: {file} must be a regular file; it is a pipe, a device or a broken link")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UserError(f"tokenizer: {folder} must hold a tokenizer; it has none of {', '.join(VOCABULARIES)}")
    for file in sorted({*folder.glob("*token*.json"), *folder.glob("vocab*.json"), *folder.glob("config.json")}):
        content = read_json_mapping(file, what="tokenizer")
        # mlx-lm imports a module of its own by these names.
        for key in ("chat_template_type", "tool_parser_type"):
            name = content.get(key)
            if name is not None and not (isinstance(name, str) and name.isidentifier()):
                raise UserError(f"tokenizer: {file}: {key} must be a name; got {shortened(name)}")
        require_small_numbers(file, content)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns whatever a foreign reader makes of a malformed file into one line."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # Rust's panics are no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = shortened(" ".join(f"{type(error).__name__}: {error}".split()))
        raise UserError(f"tokenizer: {folder} must hold a tokenizer that can be read; {reason}") from error


def _read(folder: Path) -> Any:
    from mlx_lm import tokenizer_utils
    from transformers import PreTrainedTokenizerFast

    extra = {"trust_remote_code": False, "config": _named_config(folder)}
    wrapper = tokenizer_utils.load(folder, tokenizer_config_extra=extra)
    if not isinstance(wrapper._tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"tokenizer: {folder} must hold a tokenizer.json, or files that one can be made of")
    return wrapper


def _named_config(folder: Path) -> Any:
    """What the tokenizer's class is found by: two names of the model's config. The rest can be anything.

    Given the file itself, transformers would judge the model's sizes, and number as many labels as it claims.
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig

    path = folder / "config.json"
    given = read_json_mapping(path, what="tokenizer") if path.is_file() else {}
    kind, tokenizer_class = given.get("model_type"), given.get("tokenizer_class")
    known = isinstance(kind, str) and kind in CONFIG_MAPPING
    config = (CONFIG_MAPPING[kind] if known else PretrainedConfig)()
    config.tokenizer_class = tokenizer_class if isinstance(tokenizer_class, str) else None
    config._name_or_path = str(folder)
    return config


def _download(name: str) -> Path:
    # It imports huggingface_hub.
    from zoo.runtime.hub import download, list_files

    reference = HubReference.parse(name)
    if reference is None or reference.file is not None:
        raise UserError(f"tokenizer.path must be a folder or a name on the Hub; got {shortened(name)}")
    return download(
        list_files(reference, what="tokenizer.path"), patterns=(*_FILES, TOKENIZER_FILE), what="tokenizer.path"
    )


def _end_id(wrapper: Any, folder: Path) -> int:
    """The token that ends a document; encoders end a text with a separator."""
    for token in (wrapper.eos_token_id, wrapper.sep_token_id):
        if token is not None:
            return int(token)
    raise UserError(f"tokenizer: {folder} must define a token that ends a text; it has neither eos nor sep")


def _model_end_ids(folder: Path) -> list[int]:
    """The tokens that the model says its texts end with, which can be more than the tokenizer knows."""
    for name in (_GENERATION, "config.json"):
        path = folder / name
        found = read_json_mapping(path, what="tokenizer").get("eos_token_id") if path.is_file() else None
        if found is not None:
            ids = found if isinstance(found, list) else [found]
            if not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
                raise UserError(
                    f"tokenizer: {path}: eos_token_id must be a token or a list of them; got {shortened(found)}"
                )
            return ids
    return []
