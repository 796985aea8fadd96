"""Batches of examples: rows of about one length, or rows packed with several; each a pure function of (seed, step).

Without packing a row is one example. An epoch's order is a keyed permutation; within stretches of it, rows are sorted
by length and cut into batches, and the batches are permuted again: little padding, and other batches in each epoch.
With packing, examples are put into as few rows as best fit decreasing finds, and a token attends inside its example.
The class of a text is what its first token predicts.

Letters: B rows, L row length, N examples.
"""

import bisect
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from zoo.config import UserError, require
from zoo.data.examples.tokens import ExampleSplit
from zoo.data.loader import Batch, ProcessShare
from zoo.data.randomness import key_from, permuted
from zoo.data.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

# What a key is for.
_ORDER, _BATCHES, _VALIDATION = 16, 17, 18
# Batches of an epoch among which rows are sorted by length: of docstrings, four rows a batch, 16 % of the tokens are
# then padding, where 32 batches left 19 % and sorting all of them leaves 15 %. And what lengths are rounded up to, so
# that few shapes are compiled, which is mlx-lm's.
_SORTED_BATCHES, _MULTIPLE = 128, 32
# A start, a separator behind each of two texts, and a token of one of them.
_SHORTEST_PAIR = 4


class ExampleLoader:
    """Batches of one split."""

    def __init__(  # noqa: PLR0913 - what every loader takes, and what examples add
        self,
        split: ExampleSplit,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        pack: bool = False,
        classes: Sequence[int] = (),
        share: ProcessShare | None = None,
    ) -> None:
        """Cuts what is too long, says how much, and lays out the rows.

        Args:
            split: Examples.
            tokenizer: Theirs.
            batch_size: Rows of a batch over all processes.
            sequence_length: Most tokens of a row.
            seed: Of the order.
            pack: Whether rows hold several examples.
            classes: Of texts to classify, the class of each label of the corpus.
            share: Part of each batch that this process takes; None for all of it.

        Raises:
            UserError: If the batch cannot be shared out, or nothing that is to be learnt is short enough.
        """
        require(sequence_length >= 1, "sequence_length", "be at least 1", sequence_length)
        self._places_B = (share or ProcessShare()).places(batch_size)
        self._split, self._tokenizer, self._seed = split, tokenizer, seed
        self._batch_size, self._length = batch_size, sequence_length
        self._classes = np.array(classes, dtype=np.int32)
        # Inputs of each example: the last token of a text to continue is only predicted.
        self._whole_N = split.lengths - (1 if split.labels_N is None else 0)
        self._counts_N = np.minimum(self._whole_N, sequence_length)
        kept = self._kept()
        self._rows = _packed(self._counts_N, kept, sequence_length) if pack else [[number] for number in kept]
        self._packs = pack
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return len(self._rows)

    @property
    def num_validation_rows(self) -> int:
        """Rows of all validation batches, without what fills up the last one."""
        return len(self._rows)

    def batch(self, step: int) -> Batch:
        """The training batch of a step, counted from 0."""
        per_epoch = -(-len(self._rows) // self._batch_size)
        epoch, number = divmod(step, per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches_of(epoch))
        rows_B = self._epoch[1][number][self._places_B]
        return self._assemble(rows_B, np.ones(len(rows_B), dtype=bool), f"step {step}, seed {self._seed}")

    def validation_batches(self, limit: int | None = None) -> Iterator[Batch]:
        """All rows once, in a fixed order of batches that depends on no seed.

        Args:
            limit: Most batches; None for all. Rows that fill up the last batch have weight 0.
        """
        order = self._by_length(np.arange(len(self._rows)))
        size = -(-len(order) // self._batch_size)
        numbers = permuted(np.arange(size), size, key_from(_VALIDATION))
        for number in numbers[:limit]:
            rows_B = order[number * self._batch_size : (number + 1) * self._batch_size]
            counted_B = np.arange(self._batch_size) < len(rows_B)
            filled_B = np.concatenate([rows_B, np.full(self._batch_size - len(rows_B), rows_B[0])])
            own_B, counted_B = filled_B[self._places_B], counted_B[self._places_B]
            yield self._assemble(own_B, counted_B, f"validation batch {number}")

    def _kept(self) -> list[int]:
        split, length = self._split, self._length
        cut = np.flatnonzero(self._whole_N > length)
        learnt_N = np.ones(len(split.ends_N), dtype=bool)
        for number in cut if split.labels_N is None else ():
            learnt_N[number] = split.example(int(number))[1][1 : length + 1].any()
        if len(cut):
            lost = int((~learnt_N).sum())
            left_out = f"; {lost} of them have nothing to learn in what is left, and are left out" if lost else ""
            logger.warning(
                "data: %d of %d %s examples are cut to training.sequence_length %d; the longest has %d%s",
                *(len(cut), len(learnt_N), split.name, length, self._whole_N.max(), left_out),
            )
        if not learnt_N.any():
            raise UserError(
                f"training.sequence_length must reach something to learn in the {split.name} examples; got {length}"
            )
        return np.flatnonzero(learnt_N).tolist()

    def _by_length(self, rows: np.ndarray) -> np.ndarray:
        widths = np.array([self._width(self._rows[row]) for row in rows])
        return rows[np.argsort(widths, kind="stable")]

    def _width(self, row: Sequence[int]) -> int:
        return int(sum(self._counts_N[number] for number in row))

    def _batches_of(self, epoch: int) -> list[np.ndarray]:
        """Rows of each batch of an epoch; the last batch begins the order anew where rows are left over."""
        num_rows, size = len(self._rows), self._batch_size
        order = permuted(np.arange(num_rows), num_rows, key_from(self._seed, _ORDER, epoch))
        num_batches = -(-num_rows // size)
        order = np.resize(order, num_batches * size)
        stretch = size * _SORTED_BATCHES
        sorted_rows = [self._by_length(order[start : start + stretch]) for start in range(0, len(order), stretch)]
        batches = np.concatenate(sorted_rows).reshape(num_batches, size)
        places = permuted(np.arange(num_batches), num_batches, key_from(self._seed, _BATCHES, epoch))
        return list(batches[places])

    def _assemble(self, rows_B: np.ndarray, counted_B: np.ndarray, name: str) -> Batch:
        rows = [self._rows[row] for row in rows_B]
        lengths_B = np.array([self._width(row) for row in rows], dtype=np.int32)
        width = min(-(-int(lengths_B.max()) // _MULTIPLE) * _MULTIPLE, self._length)
        shape = (len(rows), width)
        inputs_BL = np.full(shape, self._tokenizer.pad_id, dtype=np.int32)
        targets_BL, weights_BL = inputs_BL.copy(), np.zeros(shape, dtype=np.float32)
        types_BL = np.zeros(shape, dtype=np.int32)
        segments_BL = np.zeros(shape, dtype=np.int32)
        for place, row in enumerate(rows):
            start = 0
            for segment, number in enumerate(row):
                tokens, marks = self._split.example(number)
                count = int(self._counts_N[number])
                inside = slice(start, start + count)
                segments_BL[place, inside] = segment
                start += count
                if self._split.labels_N is not None:
                    kept = kept_of_texts(marks, count)
                    inputs_BL[place, :count], types_BL[place, :count] = tokens[kept], marks[kept]
                    targets_BL[place, 0] = self._classes[self._split.labels_N[number]]
                    weights_BL[place, 0] = 1
                    continue
                inputs_BL[place, inside] = tokens[:count]
                targets_BL[place, inside] = tokens[1 : count + 1]
                weights_BL[place, inside] = marks[1 : count + 1]
            # Padding is no part of the last example.
            segments_BL[place, start:] = len(row)
        return Batch(
            inputs_BL=inputs_BL,
            targets_BL=targets_BL,
            weights_BL=weights_BL * counted_B[:, None].astype(np.float32),
            segments_BL=segments_BL if self._packs else None,
            lengths_B=lengths_B,
            identity=f"{name}: {self._split.name} examples {', '.join(str(number) for row in rows for number in row)}",
            token_types_BL=types_BL if self._split.labels_N is not None else None,
        )


def kept_of_texts(seconds: np.ndarray, count: int) -> np.ndarray:
    """Which tokens of a text, or of two, are kept where only `count` fit: the longer text loses its last ones.

    The token behind each text, a separator, stays: without it an encoder sees a text without an end.
    """
    surplus, num_second = len(seconds) - count, int(seconds.sum())
    num_first = len(seconds) - num_second
    if count < _SHORTEST_PAIR:
        return np.arange(count)
    # First the longer one, down to the other's length; then both.
    from_longer = min(surplus, abs(num_first - num_second))
    from_shorter = (surplus - from_longer) // 2 if num_second else 0
    lost = (surplus - from_shorter, from_shorter)
    kept = np.ones(len(seconds), dtype=bool)
    for end, num_lost in zip((num_first, len(seconds)), lost if num_first >= num_second else lost[::-1], strict=True):
        kept[end - 1 - num_lost : end - 1] = False
    return np.flatnonzero(kept)


def _packed(counts_N: np.ndarray, kept: Sequence[int], length: int) -> list[list[int]]:
    """Rows of at most `length` tokens: the longest first, each into the fullest row that has room."""
    rows: list[list[int]] = []
    # Rows by the room that they have left; `rooms` are the keys in order.
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for number in sorted(kept, key=lambda each: (-int(counts_N[each]), each)):
        count = int(counts_N[number])
        place = bisect.bisect_left(rooms, count)
        if place == len(rooms):
            room, row = length, len(rows)
            rows.append([])
        else:
            room = rooms[place]
            row = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[place]
        rows[row].append(number)
        left = room - count
        if left not in by_room:
            by_room[left] = []
            bisect.insort(rooms, left)
        by_room[left].append(row)
    return rows
