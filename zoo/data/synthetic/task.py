"""What every synthetic task is: rows of tokens drawn from keys, and which of their tokens are answers.

A row is a plain sequence in which each token is followed by the next one; only answers count in the loss. Training,
validation and test rows come from streams of their own, whose keys never meet:

    training    (seed, row)    the batch of step s holds rows s·B … s·B + B - 1
    validation  (row)          always the same, whatever the seed
    test        (row)          always the same, whatever the seed and the setting

Letters: B rows, L row length, T = L + 1 tokens of a row.
"""

import abc
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.data.cache import key_of
from zoo.data.corpora.document import Split
from zoo.data.identity import DataIdentity
from zoo.data.loader import Batch, ProcessShare
from zoo.data.randomness import key_from
from zoo.data.synthetic.draws import RowDraws

# A change of what rows look like makes older runs incomparable.
_FORMAT = 1
_TRAINING, _VALIDATION, _TEST = range(3)
# Every task's tokens begin with these.
BLANK, MARK = 0, 1
FIRST_SYMBOL = 2

Setting = Mapping[str, int | float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticTask(abc.ABC):
    """A task with a vocabulary of its own.

    Attributes:
        name: As in `configs/data/<name>.yaml`.
        length: L, tokens that the model reads of a row.
        shorter_lengths: Rows of training and validation take these lengths in turn with `length`, padded with blanks
            that count nowhere.
        vocab_size: Tokens of the task.
        validation_rows: Rows that validation looks at.
    """

    name: ClassVar[str]

    length: int
    shorter_lengths: tuple[int, ...] = ()
    vocab_size: int
    validation_rows: int = 512

    def __post_init__(self) -> None:
        require(self.validation_rows >= 1, "validation_rows", "be at least 1", self.validation_rows)
        require(self.length >= 1, "length", "be at least 1", self.length)
        shorter = list(self.shorter_lengths)
        between = all(1 <= length < self.length for length in shorter) and len(set(shorter)) == len(shorter)
        require(between, "shorter_lengths", f"be different lengths in [1, {self.length})", shorter)

    @property
    @abc.abstractmethod
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        """What the difficulty depends on, by the name of the field: values worth testing."""

    @abc.abstractmethod
    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one length.

        Args:
            draws: Their random numbers.
            length: One of the task's lengths.

        Returns:
            int32 [B, length + 1]: tokens; bool of the same shape: which of them are answers, never the first.
        """

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of rows, shortest first."""
        return (*sorted(self.shorter_lengths), self.length)

    @property
    def fingerprint(self) -> str:
        """Names the task and its parameters; equal fingerprints mean equal rows."""
        return key_of("synthetic", _FORMAT, self.as_mapping())

    @property
    def identity(self) -> DataIdentity:
        """What the rows are: digests of all that decides them, since no row is stored."""
        rows = {key: value for key, value in self.as_mapping().items() if key != "validation_rows"}
        splits = {"train": rows, "validation": self.as_mapping()}
        digests = {
            split: hashlib.sha256(repr(("synthetic", split, _FORMAT, sorted(what.items()))).encode()).hexdigest()
            for split, what in splits.items()
        }
        return DataIdentity(**digests)

    @property
    def tokenizer(self) -> None:
        """None: its tokens stand for no text."""
        return None

    def loader(
        self,
        split: Split,
        *,
        causal: bool,
        batch_size: int,
        sequence_length: int,
        seed: int,
        share: ProcessShare | None = None,
    ) -> "SyntheticLoader":
        """Batches, as `zoo.data.TextData.loader` has them; one loader has those of both splits."""
        assert causal, f"{split} rows are read left to right"
        assert sequence_length == self.length, f"{split} rows are read whole"
        return SyntheticLoader(self, batch_size=batch_size, seed=seed, share=share)

    def as_mapping(self) -> dict[str, Any]:
        """The plain mapping from which `synthetic_task_from_mapping` builds an equal task."""
        return {"corpus": self.name, **to_mapping(self)}

    def settings(self) -> list[dict[str, int | float]]:
        """Every combination of the axes' values, each fit for `at` and `test_batches`."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def at(self, setting: Setting) -> Self:
        """The task at one point of its axes; axes that are not mentioned stay mixed.

        Raises:
            UserError: If there is no such axis, or the task is impossible there.
        """
        changes: dict[str, Any] = {}
        for name, value in setting.items():
            if name not in self.axes:
                raise UserError(f"{self.name}: no axis is called {name!r} (choices: {', '.join(self.axes)})")
            changes[name] = [value] if isinstance(getattr(self, name), tuple) else value
        if "length" in changes:
            changes["shorter_lengths"] = []
        return from_mapping(type(self), {**to_mapping(self), **changes}, path=self.name)

    def test_batches(self, setting: Setting, *, batch_size: int, num_batches: int) -> Iterator[Batch]:
        """Batches of the test stream.

        Args:
            setting: Value by axis.
            batch_size: B.
            num_batches: How many.

        Raises:
            UserError: If the setting does not suit the task.
        """
        task = self.at(setting)
        for number in range(num_batches):
            rows_B = np.arange(number * batch_size, (number + 1) * batch_size)
            yield task._batch((_TEST,), rows_B, f"test batch {number}")

    def training_batch(self, seed: int, rows_B: np.ndarray, name: str) -> Batch:
        """Rows of the training stream of a seed."""
        return self._batch((_TRAINING, seed), rows_B, name)

    def validation_batch(self, rows_B: np.ndarray, name: str) -> Batch:
        """Rows of the validation stream; those from `validation_rows` on have weight 0."""
        batch = self._batch((_VALIDATION,), rows_B, name)
        counted_B1 = (rows_B < self.validation_rows)[:, None]
        return dataclasses.replace(batch, weights_BL=batch.weights_BL * counted_B1.astype(np.float32))

    def _batch(self, stream: tuple[int, ...], rows_B: np.ndarray, name: str) -> Batch:
        tokens_BT = np.full((len(rows_B), self.length + 1), BLANK, dtype=np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        draws = RowDraws(key=key_from(*stream), rows_B=rows_B)
        for index, length in enumerate(self.lengths):
            kept_B = rows_B % len(self.lengths) == index
            if kept_B.any():
                tokens_BT[kept_B, : length + 1], answers_BT[kept_B, : length + 1] = self._draw(
                    draws.only(kept_B), length
                )
        return Batch(
            inputs_BL=tokens_BT[:, :-1],
            targets_BL=tokens_BT[:, 1:],
            weights_BL=answers_BT[:, 1:].astype(np.float32),
            segments_BL=None,
            lengths_B=None,
            identity=f"{name}: {self.name} rows {', '.join(str(row) for row in rows_B)}",
        )


class SyntheticLoader:
    """Batches of a task; what a loop trains on and evaluates with."""

    def __init__(self, task: SyntheticTask, *, batch_size: int, seed: int, share: ProcessShare | None = None) -> None:
        """Binds a task to the size of its batches.

        Args:
            task: The task.
            batch_size: Rows of a batch over all processes.
            seed: Of the training stream.
            share: Part of each batch that this process takes; None for all of it.

        Raises:
            UserError: If the size does not fit.
        """
        self.task = task
        self._batch_size, self._seed = batch_size, seed
        self._places_B = (share or ProcessShare()).places(batch_size)

    def batch(self, step: int) -> Batch:
        """The training batch of a step, counted from 0."""
        rows_B = step * self._batch_size + self._places_B
        return self.task.training_batch(self._seed, rows_B, f"step {step}, seed {self._seed}")

    def validation_batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The validation rows, always the same ones.

        Args:
            limit: Most batches; None for all. Rows that fill up the last batch have weight 0.
        """
        for number in range(-(-self.task.validation_rows // self._batch_size))[:limit]:
            rows_B = number * self._batch_size + self._places_B
            yield self.task.validation_batch(rows_B, f"validation batch {number}")
