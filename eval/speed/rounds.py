"""Rounds: every cell once in each, in an order of its own, for as long as the time allows.

What slows the machine for a while slows all cells of a round, and cancels in their ratios. What favours one cell for
good, such as where its arrays happen to lie in memory, does not: so after each block of rounds everything is built
anew, in another order and elsewhere in memory, which makes that luck part of the noise that intervals speak of.
"""

import random
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from eval.speed.protocol import MIN_ROUNDS
from eval.speed.sampling import Clock

Name = TypeVar("Name", bound=Hashable)

# Rounds between two builds.
BLOCK = 5


def orders(names: Iterable[Name], *, seed: str) -> Iterator[list[Name]]:
    """The order of each round, without end; the same seed gives the same orders."""
    shuffled = random.Random(seed)
    order = list(names)
    while True:
        shuffled.shuffle(order)
        yield list(order)


class Pace:
    """Whether there is time for one more round."""

    def __init__(self, *, rounds: int, seconds: float | None, started: float, clock: Clock = time.perf_counter) -> None:
        """Begins with the rounds.

        Args:
            rounds: Most rounds.
            seconds: From `started` on, for everything; None for no limit.
            started: When this group's work began, by the clock.
            clock: For tests.
        """
        self._rounds, self._clock = rounds, clock
        self._deadline = None if seconds is None else started + seconds
        self._begun = clock()

    def allows(self, done: int) -> bool:
        """Whether another round may follow those that are done; the first `MIN_ROUNDS` always may."""
        if done >= self._rounds:
            return False
        if self._deadline is None or done < MIN_ROUNDS:
            return True
        now = self._clock()
        return now + (now - self._begun) / done <= self._deadline


def run_rounds(
    names: Callable[[], Iterable[Name]],
    take: Callable[[Name], None],
    *,
    pace: Pace,
    seed: str,
    between_blocks: Callable[[int], None],
) -> int:
    """Takes rounds of samples.

    Args:
        names: Those still in, asked before every round; a sample that fails takes its cell out.
        take: Takes one sample.
        pace: How many.
        seed: Of the orders.
        between_blocks: Called with the number of rounds done, after each block that another one follows.

    Returns:
        The number of rounds.
    """
    shuffled = orders(list(names()), seed=seed)
    done = 0
    while pace.allows(done):
        if done and done % BLOCK == 0:
            between_blocks(done)
        order = next(shuffled)
        present = set(names())
        if not present:
            break
        for name in order:
            if name in present:
                take(name)
        done += 1
    return done
