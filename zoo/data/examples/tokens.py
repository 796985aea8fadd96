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
from zoo.data.corpora import SPLITS, Split
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.encoding import ExampleEncoder, Row
from zoo.data.examples.records import Labelled, Records
from zoo.data.identity import DataIdentity, TextDigest, data_identity_from_mapping
from zoo.data.tokenizers import Tokenizer
from zoo.runtime.cache import default_cache_dir

logger = logging.getLogger(__name__)

# A change of which tokens examples become, or of how they are written, makes older folders stale.
_FORMAT = 2
_SUMMARY = "summary.json"
# A program of a megabyte is none that renders messages.
_LONGEST_TEMPLATE = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExampleSplit:
    """The examples of a split, one behind another.

    Attributes:
        name: Of the split.
        tokens_T: int32.
        marks_T: bool: whether the token is learnt; of texts to classify, whether it belongs to a second text.
        ends_N: int64: index after each example's last token.
        labels_N: int64: of texts to classify, the place of each one's label among those of the corpus; otherwise None.
    """

    name: Split
    tokens_T: np.ndarray
    marks_T: np.ndarray
    ends_N: np.ndarray
    labels_N: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.diff(self.ends_N, prepend=0)

    def example(self, number: int) -> Row:
        """Tokens of an example, and their marks."""
        place = slice(0 if number == 0 else int(self.ends_N[number - 1]), int(self.ends_N[number]))
        return self.tokens_T[place], self.marks_T[place]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExampleCorpus:
    """Examples in tokens.

    Attributes:
        train: To learn from.
        validation: Held out.
        tokenizer: What made the tokens, with the template that was used.
        identity: What the records are, by their content.
        fingerprint: Names records, tokenizer, template and what is learnt.
        labels: Of texts to classify, what they are classified as, each once; otherwise empty.
    """

    train: ExampleSplit
    validation: ExampleSplit
    tokenizer: Tokenizer
    identity: DataIdentity
    fingerprint: str
    labels: tuple[str | int, ...] = ()


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
    # What stands around texts is no part of the tokenizer's fingerprint.
    around = (tokenizer.encode_prompt("a"), tokenizer.encode_pair("a", "b"))
    meaning = (config.format, config.keys, sorted(config.roles.items()), config.loss_on, around)
    key = key_of("examples", _FORMAT, records.fingerprint, tokenizer.fingerprint, source, *meaning)
    folder = cached_folder(root, "examples", key, lambda partial: _write(partial, records, tokenizer, config))
    summary = read_json_mapping(folder / _SUMMARY, what="data.cache_dir")
    for note in summary["notes"]:
        logger.warning("data: %s", note)
    labels = tuple(summary["labels"])
    train, validation = (_open(folder, split, labelled=bool(labels)) for split in SPLITS)
    return ExampleCorpus(
        train=train,
        validation=validation,
        tokenizer=tokenizer,
        identity=data_identity_from_mapping(summary["identity"]),
        fingerprint=key,
        labels=labels,
    )


def _write(folder: Path, records: Records, tokenizer: Tokenizer, config: ExamplesConfig) -> None:
    template = tokenizer.chat_template()
    encoder = ExampleEncoder(tokenizer, template, config.loss_on)
    rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    digests: dict[Split, TextDigest] = {split: TextDigest() for split in SPLITS}
    labels: dict[Split, list[str | int]] = {split: [] for split in SPLITS}
    num_empty = num_records = 0
    try:
        for document, record in records.read():
            num_records += 1
            digests[document.split].add(document.text, complete=True)
            for row in encoder.rows(record, document.source):
                # The first token of a row is never predicted.
                if isinstance(record, Labelled) or row[1][1:].any():
                    rows[document.split].append(row)
                else:
                    num_empty += 1
            if isinstance(record, Labelled):
                labels[document.split].append(record.label)
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
    for split in SPLITS:
        if not rows[split]:
            raise UserError(f"data: the {split} split must hold something to learn; of its records nothing is left")
        np.save(folder / f"{split}.tokens.npy", np.concatenate([tokens for tokens, _ in rows[split]]))
        np.save(folder / f"{split}.marks.npy", np.concatenate([marks for _, marks in rows[split]]))
        np.save(folder / f"{split}.ends.npy", np.cumsum([len(tokens) for tokens, _ in rows[split]], dtype=np.int64))
    # A class may be called "1" in one data set and be 1 in another.
    found = sorted({label for split in SPLITS for label in labels[split]}, key=lambda each: (str(type(each)), each))
    places = {label: place for place, label in enumerate(found)}
    for split in SPLITS:
        if found:
            np.save(
                folder / f"{split}.labels.npy", np.array([places[label] for label in labels[split]], dtype=np.int64)
            )
    identity = {split: digest.hexdigest() for split, digest in digests.items()}
    summary = {"identity": identity, "notes": notes, "labels": found}
    (folder / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")


def _open(folder: Path, split: Split, *, labelled: bool) -> ExampleSplit:
    parts = ("tokens", "marks", "ends", *(("labels",) if labelled else ()))
    try:
        tokens_T, marks_T, ends_N, *labels = (
            np.load(folder / f"{split}.{part}.npy", mmap_mode="r", allow_pickle=False) for part in parts
        )
    except (OSError, ValueError) as error:
        raise UserError(f"data.cache_dir: {folder} must be whole; remove it, and it is made again ({error})") from None
    labels_N = labels[0] if labels else None
    return ExampleSplit(name=split, tokens_T=tokens_T, marks_T=marks_T, ends_N=ends_N, labels_N=labels_N)
