"""Keeps documents true to the rows: writes the parts that they mark for results, and nothing else.

A part lies between `<!-- results:NAME -->` and `<!-- /results:NAME -->`. Without rows, every part is empty.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eval.query import by_device
from eval.report import TABLES
from eval.report.findings import commits
from eval.report.model_figures import pareto
from eval.report.text import NOTHING, Table, ends, label, markdown, number, plain_rows
from eval.report.trainings import SURGERY, exchanges
from eval.rows import Row
from eval.suites import scaling
from zoo.config import UserError
from zoo.config.files import read_text, replace_file

PARTS = ("variants", "figure", "coverage", "exchanges", "constants", "processes", "links")
# What the constants of the model are called, by their names there.
_CONSTANTS = {
    "fixed": "a step without rows (ms)",
    "row": "each row (ms)",
    "crowding": "slower beside another process (share)",
    "latency": "latency of a turn (ms)",
    "per_byte": "each MB sent (ms)",
}
_FACTORS = {"fixed": 1e3, "row": 1e3, "crowding": 1.0, "latency": 1e3, "per_byte": 1e9}
_PART = re.compile(
    r"(?P<begin><!-- results:(?P<name>[\w-]+) -->\n)(?P<text>.*?)(?P<end><!-- /results:(?P=name) -->)", re.DOTALL
)
_MARK = re.compile(r"<!-- /?results:[\w-]+ -->")


def regenerated(document: str, rows: Sequence[Row], *, report: str) -> str:
    """The document with its marked parts made from rows.

    Args:
        document: Markdown.
        rows: Of the report; none empties the parts.
        report: The report's folder, as a link from the document.

    Raises:
        UserError: If a mark has no partner, or a part is unknown; lists those there are.
    """
    shown = plain_rows(rows)

    def written(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in PARTS:
            raise UserError(f"results:{name} must be a known part (choices: {', '.join(PARTS)})")
        devices = list(by_device(shown).values())
        # Exchanges may have been made on several devices, and elsewhere than what is timed.
        told = [own for own in devices if exchanges(own)]
        if name != "exchanges":
            told = [[row for row in own if row.quality is None or row.quality.task != SURGERY] for own in devices[:1]]
        text = "\n".join(_part(name, own, report) for own in told)
        return f"{found['begin']}{text}{found['end']}"

    alone = _MARK.findall(_PART.sub("", document))
    if alone:
        raise UserError(f"every mark of results must have its partner, each on a line of its own; got {alone[0]} alone")
    return _PART.sub(written, document)


def regenerate(page: Path, rows: Sequence[Row], report: Path) -> bool:
    """Writes a document's marked parts from rows; tells whether it changed.

    Raises:
        UserError: If the document cannot be read or written, or its marks are wrong.
    """
    before = read_text(page, what="pages")
    link = Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix()
    after = regenerated(before, rows, report=link)
    try:
        if after != before:
            # A link stays one.
            replace_file(page.resolve(), after)
    except OSError as error:
        raise UserError(f"pages must be documents that can be written; got {str(page)!r} ({error.strerror})") from None
    return after != before


def _part(name: str, rows: Sequence[Row], report: str) -> str:
    measured = f"Measured on {next(iter(by_device(rows)))}, commit {commits(rows)}."
    if name == "figure":
        drawing = pareto.drawn(plain_rows(rows, label))
        if isinstance(drawing, str):
            return f"No figure: {drawing}.\n"
        picture = f"![{pareto.title}]({quote(report)}/figures/{pareto.name}.svg)"
        return f"{picture}\n\n{markdown(f'{pareto.caption} {measured}')}\n"
    of_scaling = {"constants": _constants, "processes": _processes, "links": _links}
    table = {**TABLES, **of_scaling}[name](rows)
    return f"{table.markdown()}\n\n{markdown(f'{measured} {table.note}'.strip())}\n" if table.lines else ""


def _constants(rows: Sequence[Row]) -> Table:
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


def _processes(rows: Sequence[Row]) -> Table:
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


def _links(rows: Sequence[Row]) -> Table:
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
