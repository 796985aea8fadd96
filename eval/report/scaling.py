"""How a training step scales over processes: what was measured beside the model's prediction, and other links."""

from collections.abc import Sequence
from typing import Any

from eval.report.text import NOTHING, Table, ends, number
from eval.rows import Row
from eval.suites import scaling

# What the constants of the model are called, by their names there.
_CONSTANTS = {
    "fixed": "a step without rows (ms)",
    "row": "each row (ms)",
    "crowding": "slower beside another process (share)",
    "latency": "latency of a turn (ms)",
    "per_byte": "each MB sent (ms)",
}
_FACTORS = {"fixed": 1e3, "row": 1e3, "crowding": 1.0, "latency": 1e3, "per_byte": 1e9}


def constants_table(rows: Sequence[Row]) -> Table:
    """The constants of the model of a step's time."""
    found = [each for each in scaling.summary(rows) if each["figure"] == "constant"]
    return Table(
        lines=[
            {
                "model": each["model"],
                "constant": _CONSTANTS[each["name"]],
                "value": _scaled(each, _FACTORS[each["name"]]),
            }
            for each in found
        ]
    )


def processes_table(rows: Sequence[Row]) -> Table:
    """Seconds of a step and of an exchange, measured and predicted."""
    found = [each for each in scaling.summary(rows) if each["figure"] == "seconds"]
    lines = [
        {
            "group": each["group"],
            "processes": each["variant"],
            "measured (ms)": number(1e3 * each["measured"]),
            "predicted (ms)": _scaled(each, 1e3),
            "measured / predicted": number(each["measured"] / each["value"]),
            "held out": "yes" if each["held_out"] else NOTHING,
        }
        for each in found
    ]
    return Table(lines=lines, note="Each process has one thread. Intervals are those of the rounds alone.")


def links_table(rows: Sequence[Row]) -> Table:
    """How many times as fast several machines would be, by the link between them."""
    found = [each for each in scaling.summary(rows) if "link" in each]
    machines = sorted({each["machines"] for each in found})
    speeds = {(each["model"], each["link"], each["machines"]): each for each in found}
    places = dict.fromkeys((each["model"], each["link"]) for each in found)
    columns = {each: f"{each} machines (× one)" for each in machines}
    return Table(
        lines=[
            {"model": model, "link": link}
            | {name: _scaled(speeds[model, link, each], 1.0) for each, name in columns.items()}
            for model, link in places
        ]
    )


def _scaled(found: dict[str, Any], factor: float) -> str:
    low, high = (factor * found[end] for end in ("low", "high"))
    return f"{number(factor * found['value'])}{ends(low, high)}"
