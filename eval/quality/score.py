"""A score: one figure of a task under one setting, before it is known whose it is."""

import dataclasses
import math

from eval.quality.means import Mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One figure.

    Attributes:
        metric: What it is, for example bits_per_byte.
        value: The figure; None if there is none.
        standard_error: Of the value, or None where it is unknown.
        count: What the value is an average of: tokens or examples.
        length: Tokens of the context, where the task varies it.
        num_pairs: Pairs to remember, where the task varies them.
        depth: Where in the context the answer lies, from 0 to 1, where the task varies it.
        position: First position of the bin, where figures go by position.
        surgery: What exchanging the attention did, as JSON, where the figure is of that.
        skipped: Why there is no value; None if there is one.
    """

    metric: str
    value: float | None = None
    standard_error: float | None = None
    count: int | None = None
    length: int | None = None
    num_pairs: int | None = None
    depth: float | None = None
    position: int | None = None
    surgery: str | None = None
    skipped: str | None = None


def score_of(metric: str, mean: Mean, *, count: int, length: int | None = None, position: int | None = None) -> Score:
    """The score that a mean over `count` tokens is; one that is no finite number says so instead of a value."""
    finite = mean.value is not None and math.isfinite(mean.value)
    nothing = "its targets stand for no bytes" if count else "nothing was counted"
    why = nothing if mean.value is None else f"it is {mean.value}"
    return Score(
        metric=metric,
        value=mean.value if finite else None,
        standard_error=mean.standard_error if finite else None,
        count=count,
        length=length,
        position=position,
        skipped=None if finite else f"{metric} must be a finite number; {why}",
    )
