"""The tasks that a trained model can be asked: each file of this folder offers some, under `TASKS`, and is found here.

A task says which models and data it fits, and measures its figures. It asks about the held-out data of what is
evaluated, or brings questions of its own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from eval import declared
from eval.quality import Score
from zoo.config import UserError, require, require_within
from zoo.data import Batch, Data, SyntheticTask, TextData, Tokenizer
from zoo.training.predictions import Predictions, Predictor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """A trained model with what it is asked about.

    Attributes:
        model: Of `zoo.models`, in evaluation mode.
        data: Text or examples, of which the held-out part is asked about, or the synthetic task of the training.
        original: The model before its attention was exchanged, or None if it was not.
        surgery: What exchanging it did, JSON-ready, or None.
        sequence_length: Tokens of a row in training.
        batch_size: Rows at a time.
        max_batches: Most batches of one figure, or None for all there are.
        max_rows: Most rows of text of the trained length, whatever the size of a batch; None for no other limit.
        seed: Of whatever a task draws.
        dtype: Of the forward pass.
        compile: Whether graphs are compiled.
    """

    model: Any
    data: Data
    original: Any = None
    surgery: Mapping[str, Any] | None = None
    sequence_length: int
    batch_size: int
    max_batches: int | None = None
    max_rows: int | None = None
    seed: int = 0
    dtype: mx.Dtype = mx.float32
    compile: bool = True

    def __post_init__(self) -> None:
        require_within(self, 1, math.inf, "batch_size", "sequence_length", "max_batches")
        fits = not self.is_text or self.too_long(self.sequence_length) is None
        limit = f"be at most the model's max_seq_len {self.model.config.position_limit} with learned positions"
        require(fits, "sequence_length", limit, self.sequence_length)

    @property
    def is_text(self) -> bool:
        """Whether tokens stand for text."""
        return not isinstance(self.data, SyntheticTask)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model, which is one of text."""
        assert self.data.tokenizer is not None, "tasks that need it ask for text"
        return self.data.tokenizer

    def too_long(self, length: int) -> str | None:
        """Why the model cannot process a row of this length at all; None if it can."""
        limit = self.model.config.position_limit
        if limit is None or length <= limit:
            return None
        return f"learned positions end at max_seq_len {limit}, before {length} tokens"

    def predictor(self, model: Any = None) -> Predictor:
        """The model, or one made of it, ready to be asked."""
        chosen, lengths_V = self.model if model is None else model, self.token_byte_lengths()
        return Predictor(chosen, dtype=self.dtype, compiled=self.compile, token_byte_lengths_V=lengths_V)

    def token_byte_lengths(self) -> np.ndarray | None:
        """UTF-8 bytes of what the model predicts, int32; None where that stands for no text."""
        return self.tokenizer.token_byte_lengths() if self.is_text and not self.model.config.classifies else None

    @functools.cached_property
    def text_predictions(self) -> Predictions:
        """The predictions of `text_batches` in rows as long as in training: several tasks look at the same ones."""
        return self.predictor()(self.text_batches())

    def text_batches(self, *, shrink: int = 1) -> Iterator[Batch]:
        """Rows of the held-out text, with what to predict as in training.

        Args:
            shrink: Rows are this many times longer than in training, and so many fewer: the same amount of text.

        Raises:
            UserError: If the text is too short for one row.
        """
        num_rows, batch_size = self.num_text_rows(shrink), max(1, self.batch_size // shrink)
        for number, batch in enumerate(self._loader(shrink).validation_batches(-(-num_rows // batch_size))):
            wanted_B = np.arange(batch_size) < num_rows - number * batch_size
            yield dataclasses.replace(batch, weights_BL=batch.weights_BL * wanted_B[:, None].astype(np.float32))

    def num_text_rows(self, shrink: int = 1) -> int:
        """Rows that `text_batches` looks at."""
        limits = [] if self.max_batches is None else [self.max_batches * self.batch_size]
        limits += [] if self.max_rows is None else [self.max_rows]
        return min([self._loader(shrink).num_validation_rows, *(-(-limit // shrink) for limit in limits)])

    def _loader(self, shrink: int) -> Any:
        assert not isinstance(self.data, SyntheticTask), "text is asked for by tasks of text only"
        return self.data.loader(
            "validation",
            causal=self.model.config.causal,
            batch_size=max(1, self.batch_size // shrink),
            sequence_length=self.sequence_length * shrink,
            seed=self.seed,
        )


class Need(NamedTuple):
    """What a task asks of the model and its data, and what is said where that is missing, with {data} and {family}."""

    is_met: Callable[[Evaluated], bool]
    otherwise: str


# Any model of text; one that reads left to right; one whose text may be cut at will; one that writes.
TEXT = (Need(lambda it: it.is_text, "it asks for text; the model was trained on {data}, whose tokens are none"),)
LANGUAGE_MODEL = (
    *TEXT,
    Need(lambda it: it.model.config.causal, "it asks for the next token; a {family} model is an encoder"),
)
RUNNING_TEXT = (
    *LANGUAGE_MODEL,
    Need(
        lambda it: isinstance(it.data, TextData),
        "it asks for running text, and examples are rows of their own; choose one, as data=text",
    ),
)
DECODING = (
    *LANGUAGE_MODEL,
    Need(
        lambda it: all(layer.self_attn.capabilities.decode for layer in it.model.layers),
        "its attention cannot write token by token",
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityTask:
    """A task.

    Attributes:
        name: As in `tasks=[NAME]`.
        needs: What it asks of the model and its data, in the order in which what is missing is told.
        measure: The figures, the one that stands for the task first.
        on_request: Whether it is left out where no task is named.
    """

    name: str
    needs: Sequence[Need]
    measure: Callable[[Evaluated], Sequence[Score]]
    on_request: bool = False

    def unfit(self, evaluated: Evaluated) -> str | None:
        """Why the task does not fit what is evaluated; None if it does."""
        missing = next((need.otherwise for need in self.needs if not need.is_met(evaluated)), None)
        return missing and missing.format(data=evaluated.data.name, family=evaluated.model.config.family)


def all_tasks() -> Mapping[str, QualityTask]:
    """Every task by its name."""
    tasks = [task for each in declared("TASKS", (__name__,)) for task in each]
    found = {task.name: task for task in tasks}
    assert len(found) == len(tasks), "two tasks have the same name"
    return found


def require_known(names: Sequence[str]) -> None:
    """Refuses names of no task by a UserError that lists the tasks."""
    tasks = all_tasks()
    for name in names:
        if name not in tasks:
            raise UserError(f"tasks must be known ones; got {name!r} (choices: {', '.join(tasks)})")


def chosen_tasks(evaluated: Evaluated, names: Sequence[str] | None) -> list[QualityTask]:
    """The tasks of these names, which are known, or all that fit and need no request.

    Raises:
        UserError: If a named task does not fit; says why.
    """
    tasks = all_tasks()
    if names is None:
        return [task for task in tasks.values() if not task.on_request and task.unfit(evaluated) is None]
    for name in names:
        if (reason := tasks[name].unfit(evaluated)) is not None:
            raise UserError(f"tasks: {name} must fit the checkpoint; {reason}")
    return [tasks[name] for name in names]
