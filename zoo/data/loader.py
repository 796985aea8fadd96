"""Batches: the one of step s is a pure function of (seed, s), whatever came before and however many processes share it.

Each epoch visits all rows in the order of a keyed permutation. Masked tokens are BERT's (Devlin et al.,
https://arxiv.org/abs/1810.04805): of the tokens to guess 80 % become the mask token, 10 % a random one, 10 % stay.
Where we deviate: each row hides exactly 15 % of its tokens, rounded and at least one, so that no row is for nothing;
training hides others each time a row comes by, validation always the same.

Letters: B rows of this process, L row length, V vocabulary.
"""

import abc
import dataclasses
from collections.abc import Iterator

import numpy as np

from zoo.config import UserError, require
from zoo.data.corpora.config import Packing
from zoo.data.randomness import key_from, mixed_bits, permuted
from zoo.data.rows import ROWS
from zoo.data.shards import TokenSplit

# What a key is for, so that no two uses of one seed share their numbers.
_ORDER, _VALIDATION_ORDER, _CHOICE, _VALIDATION_CHOICE, _FATE, _REPLACEMENT = range(6)
_MASKED_SHARE = 0.15
# Of 2^64 random bits: below the first a token is masked, below the second replaced.
_MASKED_BELOW, _REPLACED_BELOW = round(0.8 * 2**64), round(0.9 * 2**64)
_NAMED_SOURCES = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of tokens and what to predict at each position.

    Attributes:
        inputs_BL: int32.
        targets_BL: int32: the next token, or for masked tokens the token itself.
        weights_BL: float32: 1 where the target counts in the loss, else 0.
        segments_BL: int32: number of the document within the row, non-decreasing; None if documents are not kept
            apart. A document's end token starts the next segment, where it predicts the next document's first token.
        lengths_B: int32: tokens of the row that are no padding, at least 1; None if there is no padding.
        identity: Step, rows and source documents, for messages.
        token_types_BL: int32: 1 in the second text of a pair; None for an encoder's type 0 everywhere.
    """

    inputs_BL: np.ndarray
    targets_BL: np.ndarray
    weights_BL: np.ndarray
    segments_BL: np.ndarray | None
    lengths_B: np.ndarray | None
    identity: str
    token_types_BL: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessShare:
    """Which part of every batch this process takes.

    Attributes:
        rank: Number of this process.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        require(self.world_size >= 1, "world_size", "be at least 1", self.world_size)
        require(0 <= self.rank < self.world_size, "rank", f"lie in [0, {self.world_size})", self.rank)

    def places(self, batch_size: int) -> np.ndarray:
        """The places in a batch of all processes that are this one's, int64 [B].

        Raises:
            UserError: If the batch cannot be shared out.
        """
        divides = batch_size >= 1 and batch_size % self.world_size == 0
        require(divides, "batch_size", f"be a multiple of the {self.world_size} processes, at least 1", batch_size)
        part = batch_size // self.world_size
        return np.arange(self.rank * part, (self.rank + 1) * part)


class Loader(abc.ABC):
    """Rows of a split in keyed order; what is predicted is up to the final classes."""

    def __init__(
        self,
        split: TokenSplit,
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        mask_documents: bool = False,
        packing: Packing = "stream",
        share: ProcessShare | None = None,
    ) -> None:
        """Cuts a split into rows.

        Args:
            split: Tokens.
            batch_size: Rows of a batch over all processes.
            sequence_length: L.
            seed: Of the order, and of whatever else is random in a training batch.
            mask_documents: Whether batches say which document of a packed row a token belongs to.
            packing: How documents become rows, see `DataConfig`.
            share: Part of each batch that this process takes; None for all of it.

        Raises:
            UserError: If a size does not fit.
        """
        require(sequence_length >= 1, "sequence_length", "be at least 1", sequence_length)
        # What is random about a row belongs to its place in the batch of all processes, or to the row itself.
        self._places_B = (share or ProcessShare()).places(batch_size)
        self.split = split
        self._batch_size, self._length, self._seed = batch_size, sequence_length, seed
        self._mask_documents = mask_documents and packing == "stream"
        self._rows = ROWS[packing](split, sequence_length)

    def batch(self, step: int) -> Batch:
        """The training batch of a step, counted from 0.

        Raises:
            UserError: If the split is too short for one row.
        """
        if self._rows.num_full_rows == 0:
            raise self._too_short()
        rows_B = self._training_rows(step)
        keys = key_from(self._seed, _CHOICE, step), self._places_B
        return self._assemble(rows_B, np.ones(len(rows_B), dtype=bool), keys, f"step {step}, seed {self._seed}")

    def validation_batches(self, limit: int | None = None) -> Iterator[Batch]:
        """All rows once, in a fixed order that depends on no seed: any first few are a fair sample.

        Args:
            limit: Most batches; None for all. Rows that fill up the last batch have weight 0.
        """
        num_rows = self.num_validation_rows
        if num_rows == 0:
            raise self._too_short()
        for number in range(-(-num_rows // self._batch_size))[:limit]:
            positions_B = number * self._batch_size + self._places_B
            counted_B = positions_B < num_rows
            rows_B = permuted(np.where(counted_B, positions_B, 0), num_rows, key_from(_VALIDATION_ORDER))
            keys = key_from(_VALIDATION_CHOICE), rows_B
            yield self._assemble(rows_B, counted_B, keys, f"validation batch {number}")

    @property
    def num_validation_rows(self) -> int:
        """Rows of all validation batches together."""
        return self._rows.num_rows

    def _too_short(self) -> UserError:
        return UserError(
            f"data: the {self.split.name} split must hold at least one row of {self._length} tokens; it has "
            f"{len(self.split.tokens_T) - 1}: choose a shorter training.sequence_length or more text"
        )

    def _training_rows(self, step: int) -> np.ndarray:
        size = self._rows.num_full_rows
        positions_B = step * self._batch_size + self._places_B
        epochs_B, rows_B = np.divmod(positions_B, size)
        for epoch in np.unique(epochs_B):
            here = epochs_B == epoch
            rows_B[here] = permuted(rows_B[here], size, key_from(self._seed, _ORDER, int(epoch)))
        return rows_B

    def _assemble(self, rows_B: np.ndarray, counted_B: np.ndarray, keys: tuple[int, np.ndarray], name: str) -> Batch:
        tokens, counts_B = self._rows.take(rows_B)
        valid_BL = np.arange(self._length) < counts_B[:, None]
        inputs_BL, targets_BL, weights_BL = self._predict(tokens, valid_BL, keys)
        # Counted in the tokens as they are, not where masking put other ones.
        segments_BL = np.cumsum(tokens[:, :-1] == self.split.tokenizer.eos_id, axis=1, dtype=np.int32)
        pad_id = np.int32(self.split.tokenizer.pad_id)
        return Batch(
            inputs_BL=np.where(valid_BL, inputs_BL, pad_id),
            targets_BL=np.where(valid_BL, targets_BL, pad_id),
            weights_BL=weights_BL * counted_B[:, None].astype(np.float32),
            segments_BL=segments_BL if self._mask_documents else None,
            lengths_B=counts_B if self._rows.is_padded else None,
            identity=f"{name}: {self._describe(rows_B)}",
        )

    @abc.abstractmethod
    def _predict(
        self, tokens: np.ndarray, valid_BL: np.ndarray, keys: tuple[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and weights of rows of L + 1 tokens.

        Args:
            tokens: int32 [B, L + 1].
            valid_BL: Which inputs (and which targets) are no padding.
            keys: A key and a number for each row, from which all that is random follows.
        """

    def _describe(self, rows_B: np.ndarray) -> str:
        documents = sorted({self.split.document_at(self._rows.bounds(int(row))[0] + 1) for row in rows_B})
        sources = ", ".join(self.split.source(document) for document in documents[:_NAMED_SOURCES])
        more = f" and {len(documents) - _NAMED_SOURCES} more" if len(documents) > _NAMED_SOURCES else ""
        rows = ", ".join(str(row) for row in rows_B)
        return f"{self.split.name} rows {rows} of {self._length} tokens, beginning in {sources}{more}"


class CausalLoader(Loader):
    """Every token predicts the next one."""

    def _predict(
        self, tokens: np.ndarray, valid_BL: np.ndarray, keys: tuple[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        del keys
        return tokens[:, :-1], tokens[:, 1:], valid_BL.astype(np.float32)


class MaskedTokenLoader(Loader):
    """Some tokens are hidden, and predicted from all others. Special tokens are neither hidden nor put in."""

    def __init__(
        self,
        split: TokenSplit,
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        mask_documents: bool = False,
        packing: Packing = "stream",
        share: ProcessShare | None = None,
    ) -> None:
        super().__init__(
            split,
            batch_size=batch_size,
            sequence_length=sequence_length,
            seed=seed,
            mask_documents=mask_documents,
            packing=packing,
            share=share,
        )
        if split.tokenizer.mask_id is None:
            raise UserError("tokenizer must have a mask token to hide tokens with; this one has none")
        self._mask_id = split.tokenizer.mask_id
        self._is_text_V = split.tokenizer.token_byte_lengths() > 0
        self._text_ids = np.flatnonzero(self._is_text_V).astype(np.int32)

    @property
    def num_validation_rows(self) -> int:
        # A model that looks both ways needs its padding described, which full rows have none of.
        return self._rows.num_full_rows

    def _predict(
        self, tokens: np.ndarray, valid_BL: np.ndarray, keys: tuple[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        key, numbers_B = keys
        targets_BL = tokens[:, :-1]
        numbers_BL = numbers_B[:, None] * self._length + np.arange(self._length)
        chosen_BL = self._choose(self._is_text_V[targets_BL] & valid_BL, mixed_bits(numbers_BL, key))
        fate_BL = mixed_bits(numbers_BL, key_from(key, _FATE))
        drawn_BL = mixed_bits(numbers_BL, key_from(key, _REPLACEMENT)) % np.uint64(len(self._text_ids))
        hidden_BL = np.where(fate_BL < np.uint64(_REPLACED_BELOW), self._text_ids[drawn_BL], targets_BL)
        hidden_BL = np.where(fate_BL < np.uint64(_MASKED_BELOW), np.int32(self._mask_id), hidden_BL)
        return np.where(chosen_BL, hidden_BL, targets_BL), targets_BL, chosen_BL.astype(np.float32)

    def _choose(self, eligible_BL: np.ndarray, draws_BL: np.ndarray) -> np.ndarray:
        """The eligible tokens with the smallest draws, the same share of each row."""
        eligible_B = eligible_BL.sum(axis=1)
        wanted_B = np.maximum(np.floor(_MASKED_SHARE * eligible_B + 0.5), eligible_B > 0)
        order_BL = np.argsort(np.where(eligible_BL, draws_BL, np.uint64(2**64 - 1)), axis=1, kind="stable")
        chosen_BL = np.zeros_like(eligible_BL)
        np.put_along_axis(chosen_BL, order_BL, np.arange(self._length) < wanted_B[:, None], axis=1)
        return chosen_BL
