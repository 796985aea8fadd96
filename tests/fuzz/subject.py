"""What a kind of hostile input is: made ready once, then given one input after the other."""

import abc
import random
from pathlib import Path
from typing import ClassVar

from zoo.config import UserError


class MustRefuseError(AssertionError):
    """Something was accepted that is known to be wrong."""


class Subject(abc.ABC):
    """One kind of input.

    Attributes:
        name: Names it on the command line.
        share: Its part of a campaign's inputs.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1.0

    def __init__(self, folder: Path) -> None:
        """Makes ready what all inputs share, inside an empty folder."""
        self.folder = folder

    @abc.abstractmethod
    def attempt(self, rng: random.Random, folder: Path) -> None:
        """Tries one input inside an empty folder.

        Raises:
            UserError: The input is refused, as it may be.
            MustRefuseError: It was accepted although it is wrong.
            Exception: Any other is a fault.
        """


def require_refusal(what: str) -> None:
    """For inputs that are wrong for certain: only a refusal may come before this."""
    raise MustRefuseError(f"{what} was accepted")


def one_line(error: UserError) -> str:
    """The message of a refusal.

    Raises:
        MustRefuseError: If it is no line that a terminal can show, or says nothing.
    """
    message = str(error)
    if not message.strip() or "\n" in message:
        raise MustRefuseError(f"the refusal is no single line: {message[:200]!r}")
    if len(message) > 5000:
        raise MustRefuseError(f"the refusal has {len(message)} characters: {message[:200]!r}")
    return message
