"""The one error template: `<config path>: <field> must <condition>; got <value>`, then the allowed values."""

from collections.abc import Iterable

# Characters of a value that a message shows.
SHOWN = 200


class UserError(ValueError):
    """A mistake that the user can mend; its message is one line that names the mistake and the choices.

    Scripts turn it into `error: …` on stderr and exit code 2. Everything else is our own fault.
    """


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
    choices = "" if allowed is None else f" (choices: {', '.join(str(choice) for choice in allowed)})"
    raise FieldError(f"{field} must {must}; got {shortened(got)}{choices}")


def shortened(value: object) -> str:
    """A value as messages show it, quoted: values from outside can be of any length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A whole number of more digits than Python prints, or a list that holds itself.
        return f"a {type(value).__name__} too large to print"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
