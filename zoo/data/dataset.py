"""From a corpus to tokens on disk: made once, named by their content, read again by every later run."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import numpy as np

from zoo.config import UserError
from zoo.config.files import read_json_mapping, typed_path
from zoo.data.cache import cached_folder, key_of
from zoo.data.corpora import SPLITS, Corpus, DataConfig, Document, Split, documents_of
from zoo.data.identity import DataIdentity, TextDigest, data_identity_from_mapping
from zoo.data.shards import ShardWriter, TokenSplit, open_split, token_dtype
from zoo.data.tokenizers import Tokenizer, TokenizerConfig
from zoo.runtime.cache import default_cache_dir
from zoo.runtime.threads import usable_cores

# A change of how a folder of shards is written makes older ones stale.
_FORMAT = 3
# A change of which tokens a corpus becomes makes older runs incomparable.
_MEANING = 1
_SUMMARY = "summary.json"
# Text encoded at a time, in characters: bounds memory, and keeps every thread busy.
_BATCH_LENGTH = 4 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenCorpus:
    """A corpus in tokens.

    Attributes:
        train: Tokens to learn from.
        validation: Tokens held out.
        tokenizer: What made them.
        identity: What the documents are, by their content.
        fingerprint: Names corpus, splits and tokenizer; equal fingerprints mean equal tokens, but equal tokens under
            other names of files have another one.
    """

    train: TokenSplit
    validation: TokenSplit
    tokenizer: Tokenizer
    identity: DataIdentity
    fingerprint: str


def prepare(
    data_config: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    *,
    cache_dir: Path | None = None,
    exact: bool = True,
) -> TokenCorpus:
    """Turns a corpus into tokens, or finds them in the cache.

    Args:
        data_config: The corpus.
        tokenizer: How to make a tokenizer, or a ready one, such as that of a checkpoint.
        cache_dir: Root of the cache; None for the config's, and without that the user's.
        exact: Whether tokens must give back every text. Those of a model from elsewhere that was taught without
            capitals and accents cannot, and nothing of it can be measured in bits per byte.

    Returns:
        Tokens of both splits, memory-mapped. They are written in a stream: neither corpus nor tokens need to fit
        into memory.

    Raises:
        UserError: If the corpus or the tokenizer cannot be read, or a split would be empty.
    """
    chosen = data_config.cache_dir
    root = cache_dir or (typed_path(chosen, what="data.cache_dir") if chosen else default_cache_dir())
    corpus = data_config.open()
    built = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.build(corpus, cache_dir=root)
    if exact and not built.lossless:
        raise UserError(
            "tokenizer must give every text back exactly, since models learn from its tokens and are measured in bits "
            "per byte; this one changes or drops characters"
        )
    what = (corpus.fingerprint(), built.fingerprint)
    key = key_of("shards", _FORMAT, *what)
    folder = cached_folder(root, "tokens", key, lambda partial: _write(partial, corpus, built))
    summary = read_json_mapping(folder / _SUMMARY, what="data.cache_dir")
    train, validation = (open_split(folder, split, built, num_tokens=summary[split]["tokens"]) for split in SPLITS)
    return TokenCorpus(
        train=train,
        validation=validation,
        tokenizer=built,
        identity=data_identity_from_mapping(summary["identity"]),
        fingerprint=key_of("tokens", _MEANING, *what),
    )


def held_out_sample(data_config: DataConfig, tokenizer: Tokenizer, *, num_tokens: int) -> TokenSplit:
    """The first held-out documents of a corpus in memory; no more of it is turned into tokens, and nothing is kept.

    Args:
        data_config: The corpus.
        tokenizer: A lossless one.
        num_tokens: How many are wanted; there may be fewer.

    Raises:
        UserError: If the corpus cannot be read, or the tokenizer drops characters.
    """
    tokens, sources = [tokenizer.eos_id], b""
    ends: list[int] = []
    source_ends: list[int] = []
    lengths_V = tokenizer.token_byte_lengths()
    for document in documents_of(data_config.open()):
        if document.split == "validation":
            ids = tokenizer.encode(document.text)
            _require_exact(document, int(lengths_V[ids].sum()))
            tokens += ids
            if document.complete:
                tokens.append(tokenizer.eos_id)
                sources += document.source.encode("utf-8", errors="backslashreplace")
                ends.append(len(tokens))
                source_ends.append(len(sources))
        if len(tokens) > num_tokens and ends:
            break
    return TokenSplit(
        name="validation",
        tokens_T=np.array(tokens, dtype=token_dtype(tokenizer.vocab_size)),
        document_ends_N=np.array(ends),
        tokenizer=tokenizer,
        _sources=np.frombuffer(sources, dtype=np.uint8),
        _source_ends_N=np.array(source_ends),
    )


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    token_byte_lengths_V = tokenizer.token_byte_lengths()
    num_threads = usable_cores()
    digests: dict[Split, TextDigest] = {split: TextDigest() for split in SPLITS}
    with_text: set[Split] = set()
    with ShardWriter(folder, "train", tokenizer) as train, ShardWriter(folder, "validation", tokenizer) as validation:
        writers: dict[Split, ShardWriter] = {"train": train, "validation": validation}
        for documents in _batches(documents_of(corpus)):
            tokens = tokenizer.encode_batch([document.text for document in documents], num_threads=num_threads)
            for document, ids in zip(documents, tokens, strict=True):
                if tokenizer.lossless:
                    _require_exact(document, int(token_byte_lengths_V[ids].sum()))
                if document.split not in with_text and document.text.strip():
                    with_text.add(document.split)
                digests[document.split].add(document.text, complete=document.complete)
                writers[document.split].add(ids, document.source, complete=document.complete)
        _require_text(corpus, with_text, num_documents=train.num_documents + validation.num_documents)
        summary: dict[str, dict[str, int | str]] = {
            split: {"tokens": writer.num_tokens, "documents": writer.num_documents} for split, writer in writers.items()
        }
        summary["identity"] = {split: digest.hexdigest() for split, digest in digests.items()}
    (folder / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while batch := _take(remaining):
        yield batch


def _take(documents: Iterator[Document]) -> list[Document]:
    batch: list[Document] = []
    length = 0
    for document in documents:
        batch.append(document)
        length += len(document.text)
        if length >= _BATCH_LENGTH:
            break
    return batch


def _require_exact(document: Document, num_bytes: int) -> None:
    expected = len(document.text.encode())
    if num_bytes != expected:
        raise UserError(
            f"tokenizer must give every text back exactly; of the {expected} bytes of {document.source} its tokens "
            f"stand for {num_bytes}"
        )


def _require_text(corpus: Corpus, with_text: Set[Split], *, num_documents: int) -> None:
    """Refuses a corpus without text on both sides, with what would help."""
    if len(with_text) == len(SPLITS):
        return
    field = corpus.validation_field
    if not with_text:
        raise UserError("data.path must hold documents with text; the corpus is empty")
    if field is not None and "train" in with_text:
        raise UserError(f"{field} must hold documents with text; it is empty")
    if field is not None:
        raise UserError(f"data.path must hold documents with text beside those of {field}; it is empty")
    if num_documents == 1:
        raise UserError(
            f"data.path must hold more text; a share of {corpus.validation_fraction} of its only document is less than "
            "a character (a larger data.validation_fraction may do as well)"
        )
    share, side = ("smaller", "train on") if "validation" in with_text else ("larger", "validate on")
    raise UserError(
        f"data.validation_fraction must leave text to {side}; of {num_documents} documents none is left: choose a "
        f"{share} one than {corpus.validation_fraction}"
    )
