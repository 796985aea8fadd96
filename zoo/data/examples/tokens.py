"""Examples in tokens: made once, kept in the cache by all that decides them, read again by every later run."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from zoo.config import UserError
from zoo.config.files import read_json_mapping, read_text, typed_path
from zoo.data.cache import cached_folder, key_of
from zoo.data.corpora import Split
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.encoding import ExampleEncoder, Row
from zoo.data.examples.records import Records
from zoo.data.identity import DataIdentity, TextDigest, data_identity_from_mapping
from zoo.data.tokenizers import Tokenizer
from zoo.runtime.cache import default_cache_dir

logger = logging.getLogger(__name__)

# A change of which tokens examples become, or of how they are written, makes older folders stale.
_FORMAT = 1
_SUMMARY = "summary.json"
_SPLITS: tuple[Split, Split] = ("train", "validation")
# A program of a megabyte is none that renders messages.
_LONGEST_TEMPLATE = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExampleSplit:
    """The examples of a split, one behind another.

    Attributes:
        name: Of the split.
        tokens_T: int32.
        trained_T: bool: whether the token is learnt.
        ends_N: int64: index after each example's last token.
    """

    name: Split
    tokens_T: np.ndarray
    trained_T: np.ndarray
    ends_N: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.diff(self.ends_N, prepend=0)

    def example(self, number: int) -> Row:
        """Tokens of an example, and whether each is learnt."""
        place = slice(0 if number == 0 else int(self.ends_N[number - 1]), int(self.ends_N[number]))
        return self.tokens_T[place], self.trained_T[place]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExampleCorpus:
    """Examples in tokens.

    Attributes:
        train: To learn from.
        validation: Held out.
        tokenizer: What made the tokens, with the template that was used.
        identity: What the records are, by their content.
        fingerprint: Names records, tokenizer, template and what is learnt.
    """

    train: ExampleSplit
    validation: ExampleSplit
    tokenizer: Tokenizer
    identity: DataIdentity
    fingerprint: str


def prepare_examples(config: ExamplesConfig, tokenizer: Tokenizer, *, cache_dir: Path | None = None) -> ExampleCorpus:
    """Turns records into tokens, or finds them in the cache.

    Args:
        config: Which records, and what is learnt.
        tokenizer: The checkpoint's.
        cache_dir: Root of the cache; None for the config's, and without that the user's.

    Raises:
        UserError: If records cannot be read or rendered, or nothing is left to learn on a side.
    """
    root = cache_dir or (
        typed_path(config.cache_dir, what="data.cache_dir") if config.cache_dir else default_cache_dir()
    )
    if config.chat_template is not None:
        path = typed_path(config.chat_template, what="data.chat_template")
        tokenizer = tokenizer.with_chat_template(read_text(path, what="data.chat_template", limit=_LONGEST_TEMPLATE))
    records = Records(config)
    template = tokenizer.chat_template()
    source = hashlib.sha256(repr(None if template is None else template.source).encode()).hexdigest()
    meaning = (config.format, config.keys, sorted(config.roles.items()), config.loss_on)
    key = key_of("examples", _FORMAT, records.fingerprint, tokenizer.fingerprint, source, *meaning)
    folder = cached_folder(root, "examples", key, lambda partial: _write(partial, records, tokenizer, config))
    summary = read_json_mapping(folder / _SUMMARY, what="data.cache_dir")
    for note in summary["notes"]:
        logger.warning("data: %s", note)
    train, validation = (_open(folder, split) for split in _SPLITS)
    return ExampleCorpus(
        train=train,
        validation=validation,
        tokenizer=tokenizer,
        identity=data_identity_from_mapping(summary["identity"]),
        fingerprint=key,
    )


def _write(folder: Path, records: Records, tokenizer: Tokenizer, config: ExamplesConfig) -> None:
    template = tokenizer.chat_template()
    encoder = ExampleEncoder(tokenizer, template, config.loss_on)
    rows: dict[Split, list[Row]] = {split: [] for split in _SPLITS}
    digests: dict[Split, TextDigest] = {split: TextDigest() for split in _SPLITS}
    num_empty = num_records = 0
    try:
        for document, record in records.read():
            num_records += 1
            digests[document.split].add(document.text, complete=True)
            for tokens, trained in encoder.rows(record, document.source):
                # The first token of a row is never predicted.
                if trained[1:].any():
                    rows[document.split].append((tokens, trained))
                else:
                    num_empty += 1
    finally:
        if template is not None:
            template.close()
    notes = []
    if num_empty:
        notes.append(f"{num_empty} of {num_records} records are left out: nothing in them is to be learnt")
    if encoder.num_own_rows:
        notes.append(
            f"the chat template changes earlier turns once later ones are there; {encoder.num_own_rows} more rows have "
            "one turn each, as it was when it was answered"
        )
    for split in _SPLITS:
        if not rows[split]:
            raise UserError(f"data: the {split} split must hold something to learn; of its records nothing is left")
        np.save(folder / f"{split}.tokens.npy", np.concatenate([tokens for tokens, _ in rows[split]]))
        np.save(folder / f"{split}.trained.npy", np.concatenate([trained for _, trained in rows[split]]))
        np.save(folder / f"{split}.ends.npy", np.cumsum([len(tokens) for tokens, _ in rows[split]], dtype=np.int64))
    identity = {split: digest.hexdigest() for split, digest in digests.items()}
    (folder / _SUMMARY).write_text(json.dumps({"identity": identity, "notes": notes}), encoding="utf-8")


def _open(folder: Path, split: Split) -> ExampleSplit:
    parts = ("tokens", "trained", "ends")
    try:
        tokens_T, trained_T, ends_N = (
            np.load(folder / f"{split}.{part}.npy", mmap_mode="r", allow_pickle=False) for part in parts
        )
    except (OSError, ValueError) as error:
        raise UserError(f"data.cache_dir: {folder} must be whole; remove it, and it is made again ({error})") from None
    return ExampleSplit(name=split, tokens_T=tokens_T, trained_T=trained_T, ends_N=ends_N)
