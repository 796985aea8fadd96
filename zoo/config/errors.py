"""The one error template: `<config path>: <field> must <condition>; got <value>`, then the allowed values."""

import itertools
from collections.abc import Iterable

# Characters of a value that a message shows, and choices that it lists.
SHOWN = 200
_SHOWN_CHOICES = 100
# Arrays are indexed by int32, and positions are int32.
MOST = 2**31 - 1
# Of a whole message; the longest list of choices has a third of it.
LONGEST_MESSAGE = 3000


class UserError(ValueError):
    """A mistake that the user can mend; its message is one line that names the mistake and the choices.

    Scripts turn it into `error: …` on stderr and exit code 2. Everything else is our own fault. What the message quotes
    may hold anything: `printable` says what becomes of it.
    """

    def __init__(self, message: str) -> None:
        """Takes the line; what nobody reads to its end is cut."""
        line = printable(message)
        super().__init__(line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…")


class FieldError(UserError):
    """A field of a configuration breaks its condition; the config path is put in front by `from_mapping`."""


def require(condition: bool, field: str, must: str, got: object, *, allowed: Iterable[object] | None = None) -> None:
    """Raises unless a field of a configuration meets its condition.

    Args:
        condition: What has to hold.
        field: Name of the field, as the user writes it.
        must: The condition in words, completing "<field> must …".
        got: The value found.
        allowed: The values to choose from, where they can be listed.

    Raises:
        FieldError: If the condition is false.
    """
    if condition:
        return
    choices = "" if allowed is None else f" (choices: {_listed(allowed)})"
    raise FieldError(f"{field} must {must}; got {shortened(got)}{choices}")


def require_within(config: object, low: float, high: float, *fields: str) -> None:
    """Raises unless numbers of a configuration lie in a range; None, where a type allows it, always does.

    Args:
        config: Holds the fields.
        low: Least value.
        high: Most: `MOST` for sizes; for what is computed with in float32, what does not overflow there.
        fields: Their names.

    Raises:
        FieldError: Names the first field that does not, and the bound that it breaks.
    """
    for field in fields:
        value = getattr(config, field)
        if value is not None:
            require(value >= low, field, f"be at least {low}", value)
            require(value <= high, field, f"be at most {high}", value)


def printable(text: str) -> str:
    """A text as one line of printable characters: it moves no cursor, changes no colour and turns no direction."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each.isspace() else each.encode("unicode_escape").decode()
        for each in text
    )


def shortened(value: object) -> str:
    """A value as messages show it, quoted: values from outside can be of any length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A whole number of more digits than Python prints, or a list that holds itself.
        return f"a {type(value).__name__} too large to print"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _listed(choices: Iterable[object]) -> str:
    """The choices in one line; a generator is asked for no more of them than are shown."""
    shown = [str(choice) for choice in itertools.islice(choices, _SHOWN_CHOICES + 1)]
    return ", ".join(shown if len(shown) <= _SHOWN_CHOICES else [*shown[:_SHOWN_CHOICES], "…"])
