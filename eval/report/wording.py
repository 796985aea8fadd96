"""How numbers are written in tables: few digits, a unit, and an interval wherever there is one."""

import math

NOTHING = "–"
_KIBI = 1024
_SECONDS_PER_UNIT = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, and never an exponent below a billion."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A number and its interval; the number alone where there is none."""
    if low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def open_interval(low: float | None, high: float | None, form: str) -> str:
    """An interval of which an end may be beyond all that was measured; empty if both are.

    Args:
        low: Lower end, or None.
        high: Upper end, or None.
        form: How a number is formatted.
    """
    if low is None and high is None:
        return ""
    ends = ("…" if end is None else format(end, form) for end in (low, high))
    return f"[{', '.join(ends)}]"


def seconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A time in the unit that suits it, and its interval."""
    if value is None:
        return NOTHING
    scale, unit = next(((scale, unit) for scale, unit in _SECONDS_PER_UNIT if value >= scale), _SECONDS_PER_UNIT[-1])
    ends = (None if low is None else low / scale, None if high is None else high / scale)
    return f"{interval(value / scale, *ends)} {unit}"


def num_bytes(value: float | None) -> str:
    """A size in the binary unit that suits it."""
    if value is None:
        return NOTHING
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while abs(value) >= _KIBI and power < len(units) - 1:
        value /= _KIBI
        power += 1
    return f"{value:.0f} {units[power]}" if power == 0 else f"{number(value)} {units[power]}"


def percent(value: float | None) -> str:
    """A share."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def plain(value: object) -> str:
    """Anything, for tables whose columns are not known beforehand."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return str(value)
