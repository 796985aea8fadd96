"""What a published claim is, and what our rows say of it."""

import dataclasses
from typing import Literal

Verdict = Literal[
    "reproduced",
    "not reproduced",
    "different functions compared",
    "not measurable on this device",
    "not measured",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A published statement.

    Attributes:
        id: Names it, for good.
        source: Who states it.
        statement: What it says, in a sentence.
        published: Its figure, as printed.
        on_apple: Whether it is about Apple's GPU: False where it is of another device, or the same on any.
    """

    id: str
    source: str
    statement: str
    published: str
    on_apple: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the rows say of a claim.

    Attributes:
        verdict: Computed by the rules of `eval.claims.verdict`.
        ours: Our figures, in words.
        value: Our figure in the claim's own terms; None where there is none.
        low: Lower end of its 95 % interval.
        high: Upper end.
        reason: Why the verdict, and what else a reader must know.
        evidence: Identities of the rows used.
    """

    verdict: Verdict
    ours: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding(Judgement):
    """A claim and its judgement."""

    claim: Claim


class MissingRowsError(Exception):
    """The rows that a claim needs are not there, or hold no times; says which and why."""
