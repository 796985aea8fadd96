"""Keeps documents true to the rows: writes the parts that they mark for results, and nothing else.

A part lies between `<!-- results:NAME -->` and `<!-- /results:NAME -->`. Without rows, every part is empty.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eval.query import by_device
from eval.report.exchanges import SURGERY, exchanges
from eval.report.figures import pareto
from eval.report.figures.kind import Absent
from eval.report.plain import code, label, markdown, plain_rows
from eval.report.qualities import QualityBook
from eval.report.tables.coverage import commits, coverage_table
from eval.report.tables.table import Table
from eval.report.tables.variants import VariantFacts, setting_of, variant_facts
from eval.report.wording import NOTHING, interval, num_bytes, number
from eval.rows import Row
from zoo.config import UserError
from zoo.config.files import read_text, replace_file

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
        text = "\n".join(PARTS[name](own, report) for own in told)
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
    after = regenerated(before, rows, report=report_link(page, report))
    try:
        if after != before:
            # A link stays one.
            replace_file(page.resolve(), after)
    except OSError as error:
        raise UserError(f"pages must be documents that can be written; got {str(page)!r} ({error.strerror})") from None
    return after != before


def report_link(page: Path, report: Path) -> str:
    """The report's folder as a link from a document."""
    return Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix()


def _variants(rows: Sequence[Row], _: str) -> str:
    setting = setting_of(rows)
    table = Table(
        columns=(
            "variant",
            f"training speed over {setting.reference_name} (×)",
            "training peak",
            "decoding tokens/s",
            "cache",
            "bits per byte",
            "recall",
        ),
        rows=tuple(_line(facts) for facts in variant_facts(rows)),
    )
    words = markdown(
        f"Measured on {_device(rows)}. {setting.words} Speeds above 1 are faster; 95 % intervals of paired ratios. "
        "Bits per byte at equal tokens (less is better) and accuracy of multi-query recall are means over n seeds ± "
        f"standard deviation. {QualityBook(rows).words(setting.model)}"
    )
    return f"{table.markdown()}\n\n{words}\n"


def _line(facts: VariantFacts) -> tuple[str, ...]:
    speed = facts.speed
    return (
        code(facts.name),
        facts.untimed if speed is None else interval(speed.ratio, speed.low, speed.high),
        num_bytes(facts.peak_bytes),
        NOTHING if facts.decoding is None else interval(*facts.decoding),
        num_bytes(facts.cache_bytes),
        str(facts.quality or NOTHING),
        str(facts.recall or NOTHING),
    )


def _exchanges(rows: Sequence[Row], _: str) -> str:
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for line in exchanges(rows):
        if "damage" in line:
            lines.setdefault((line["checkpoint"], line["variant"]), {})[line.get("arm", "")] = line
    if not lines:
        return ""
    table = Table(
        columns=(
            *("model", "variant", "KL nats/token", "bits per byte before", "after"),
            *("healed", "share that came back", "fine-tuned", "from nothing"),
        ),
        rows=tuple(_exchange(*names, arms) for names, arms in lines.items()),
    )
    words = markdown(
        f"Measured on {_device(rows)}. The attention of a trained model is exchanged, then mended with one budget of "
        "tokens: by learning from the original, by plain fine-tuning, or not at all but by a model of that variant "
        "from nothing. Means over seeds, with Student's 95 % interval of the share."
    )
    return f"{table.markdown()}\n\n{words}\n"


def _exchange(model: str, variant: str, arms: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    damage, heal = next(iter(arms.values()))["damage"], arms.get("heal", {})
    return (
        model,
        code(variant),
        number(damage["kl_nats_per_token"]),
        *(number(damage[f"bits_per_byte_{when}"], 4) for when in ("before", "after")),
        number(heal.get("mean_bits_per_byte"), 4),
        interval(heal.get("recovered_share"), heal.get("recovered_share_low"), heal.get("recovered_share_high")),
        *(number(arms.get(arm, {}).get("mean_bits_per_byte"), 4) for arm in ("finetune", "scratch")),
    )


def _figure(rows: Sequence[Row], report: str) -> str:
    kind = pareto.KIND
    drawing = kind.drawn(plain_rows(rows, label))
    if isinstance(drawing, Absent):
        return f"No figure: {drawing.reason}.\n"
    words = markdown(f"{kind.caption} Measured on {_device(rows)}.")
    return f"![{kind.title}]({quote(report)}/figures/{kind.name}.svg)\n\n{words}\n"


def _coverage(rows: Sequence[Row], _: str) -> str:
    return f"{coverage_table(rows).markdown()}\n\n{markdown(f'Measured on {_device(rows)}.')}\n"


def _device(rows: Sequence[Row]) -> str:
    return f"{next(iter(by_device(rows)))}, commit {commits(rows)}"


PARTS: Mapping[str, Callable[[Sequence[Row], str], str]] = {
    "variants": _variants,
    "figure": _figure,
    "coverage": _coverage,
    "exchanges": _exchanges,
}
