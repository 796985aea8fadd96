"""What a builder makes of a cell: something to call, a check that comes before the clock, and how much work it is."""

import dataclasses
from collections.abc import Callable

import mlx.core as mx

from eval.rows import Correctness, Work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A cell, built and ready.

    Attributes:
        call: One call; returns arrays that the timer evaluates before the clock stops. Compiled if the cell says so.
        check: Compares with a reference; run once, before any timing, in the same process.
        work: Useful FLOPs, tokens and graph nodes; peak and utilisation are filled in by the runner.
        analytic_bytes: Peak bytes by formula, or None.
        cache_bytes: Measured bytes of the decoding cache after some calls, or None where there is no cache.
        analytic_cache_bytes: The same by formula.
        exact_class: Name of the function computed; only equal ones are compared on speed alone.
    """

    call: Callable[[], object]
    check: Callable[[], Correctness]
    work: Work
    exact_class: str
    analytic_bytes: int | None = None
    cache_bytes: Callable[[], int] | None = None
    analytic_cache_bytes: int | None = None


Arrays = list[mx.array]
