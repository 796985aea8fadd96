"""Published claims about attention on Apple Silicon, and from rows to a verdict on each of them.

The claims are YAMLs in `eval/replications/`, one for each source. A claim in a file has the fields of `Claim`; under
`judge` stand one of `RULES` and what that rule takes.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from eval.claims.claim import ELSEWHERE, KINDS, Claim, Finding, Judged, Reading, Rule, Verdict
from eval.claims.comparisons import Crossing, Mean, Ranking, Ratio
from eval.claims.measurements import Entry, Line, Measurements, MissingRowsError, Series
from eval.claims.quantities import Absolute
from eval.rows import Row
from eval.statistics import Crossover
from zoo.config import UserError
from zoo.config.errors import require, shortened
from zoo.config.files import read_yaml_mapping

FOLDER = Path(__file__).parents[1] / "replications"
RULES: Mapping[str, type[Rule]] = {each.__name__.lower(): each for each in (Ratio, Mean, Crossing, Ranking, Absolute)}
_DEVICES = {"metal": "Apple's GPU", "cpu": "a CPU"}
# Figures that a text lists one by one.
_MOST_LISTED = 8


class _File(Entry):
    """A file: who claims, of which cells unless a claim says otherwise, a printed table, series and claims by name.

    The table has its `lengths`, and `lines` of milliseconds; claims name those and the series. What claims share by
    YAML's anchors is `shared`.
    """

    source: str
    where: dict[str, Any] = Field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    lines: dict[str, list[float | None]] = Field(default_factory=dict)
    series: dict[str, dict[str, Any]] = Field(default_factory=dict)
    shared: Any = None
    claims: dict[str, dict[str, Any]]


@functools.cache
def all_claims() -> tuple[Claim, ...]:
    """Every published claim, source by source."""
    return tuple(claim for path in sorted(FOLDER.glob("*.yaml")) for claim in read_claims(path))


def read_claims(path: Path) -> list[Claim]:
    """The claims of one file.

    Raises:
        UserError: On an unknown rule, key or name, and on a wrong value; names the claim, and the choices.
    """
    content = read_yaml_mapping(path, what="claims")
    place, claims = "file", []
    try:
        file = _File.model_validate(content)
        context: dict[str, Any] = {"series": {}, "lines": printed_lines(content)}
        for name, fields in file.series.items():
            place = f"series {name}"
            context["series"][name] = Series.model_validate({"label": name, **fields})
        for name, fields in file.claims.items():
            place = f"claim {name}"
            require("id" not in fields, "id", "be the claim's key alone", fields.get("id"))
            judged_by: Any = fields.get("judge")
            require(isinstance(judged_by, dict), "judge", "be a mapping of a rule and what it takes", judged_by)
            rule = str(judged_by.get("rule"))
            require(rule in RULES, "rule", "be one", rule, allowed=RULES)
            where = judged_by.get("where", {})
            require(isinstance(where, dict), "where", "be a mapping of a cell's fields", where)
            takes = {key: value for key, value in judged_by.items() if key != "rule"} | {
                "where": {**file.where, **where}
            }
            made = RULES[rule].model_validate(takes, context=context)
            claims.append(Claim.model_validate({"id": name, "source": file.source, **fields, "judge": made}))
    except ValidationError as error:
        raise UserError(f"{path.name}: {place}: {_mistake(error)}") from None
    except (TypeError, ValueError) as problem:
        raise UserError(f"{path.name}: {place}: {problem}") from None
    return claims


def _mistake(error: ValidationError) -> str:
    """The first of them, in one line."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{field} {first['ctx']['error']}".strip()
    got = "" if first["type"] == "missing" else f"; got {shortened(first['input'])}"
    return f"{field}: {first['msg']}{got}"


def printed_lines(content: Mapping[str, Any]) -> dict[str, Line]:
    """Lines of a file's table, from milliseconds, without their gaps."""
    lengths = content.get("lengths", ())
    lines: dict[str, Line] = {}
    rule = "have a figure or null for each of the lengths"
    for name, milliseconds in content.get("lines", {}).items():
        require(len(milliseconds) == len(lengths), f"line {name}", rule, milliseconds)
        cells = zip(lengths, milliseconds, strict=True)
        lines[name] = {length: each / 1000 for length, each in cells if each is not None}
    return lines


def judge(rows: Sequence[Row], claims: Sequence[Claim] | None = None) -> list[Finding]:
    """A finding for every claim, in their order.

    Args:
        rows: Of any suites; where they are of several devices, those of the device with most speed rows are judged.
        claims: Some of the published ones; None for all.

    Returns:
        Verdicts computed from the rows; "not measured", with the reason, where rows are missing.
    """
    measurements, found = Measurements(rows), []
    for claim in all_claims() if claims is None else claims:
        try:
            found.append(_finding(claim, measurements))
        except MissingRowsError as missing:
            found.append(Finding(claim=claim, verdict="not measured", reason=f"{missing}"))
    return found


def _finding(claim: Claim, measurements: Measurements) -> Finding:
    rule = claim.judge
    reading = rule.read(measurements)
    judged = rule.judge(reading)
    shown = rule.shown(judged)
    held, reasons = _outcome(rule, reading, judged, shown)
    verdict = _verdict(held)
    elsewhere = rule.only_on not in ("", measurements.backend)
    if rule.defect and isinstance(held, bool):
        reasons = [rule.defect, "" if elsewhere else f"Like for like: {verdict}.", *reasons]
        verdict = "different functions compared"
    if elsewhere:
        device = f"The claim is about {_DEVICES[rule.only_on]}; these rows are of {measurements.device}."
        here = f"On this device: {verdict}." if isinstance(held, bool) and not rule.defect else ""
        reasons = [device, here, *reasons]
        verdict = ELSEWHERE
    settled = reading.rows and verdict not in ("not measured", ELSEWHERE)
    if settled and claim.on_apple and measurements.backend != "metal":
        reasons.append(f"Published on Apple's GPU; the verdict is for {measurements.device}.")
    figure = reading.own or (shown.figure if shown else None)
    return Finding(
        claim=claim,
        verdict=verdict,
        ours="; ".join([*_listed(judged, shown, rule, reading), *reading.beside]),
        value=figure.length if isinstance(figure, Crossover) else figure.value if figure else None,
        low=figure.low if figure else None,
        high=figure.high if figure else None,
        reason=" ".join(each for each in reasons if each),
        identities=tuple(dict.fromkeys(row.identity for row in reading.rows)),
    )


def _outcome(
    rule: Rule, reading: Reading, judged: Sequence[Judged], shown: Judged | None
) -> tuple[bool | Verdict, list[str]]:
    """Whether the claim holds, or a verdict that no figure gives; and the reasons."""
    held: bool | Verdict = reading.holds
    reasons = [_claimed(rule, reading), reading.reason, rule.note]
    failing = [each for each in judged if not each.holds and (rule.judged != "shown" or each is shown)]
    if failing and held is True:
        held, decided = False, [each for each in failing if not each.is_open]
        if len(judged) > 1 and rule.judged == "each":
            named = "; ".join(each.words for each in (decided or failing)[:_MOST_LISTED])
            reasons.append(f"Not so in {len(failing)} of {len(judged)}: {named}.")
        if not decided:
            reasons.append("Undecided: an interval holds what is claimed, and what is not.")
    if rule.explains:
        absent = "" if held else " What is to be explained is not there."
        reasons.insert(0, f"A time does not show what it was spent on.{absent}")
        held = ELSEWHERE if held is True else held
    return held, reasons


def _verdict(held: bool | Verdict) -> Verdict:
    if isinstance(held, bool):
        return "reproduced" if held else "not reproduced"
    return held


def _listed(judged: Sequence[Judged], shown: Judged | None, rule: Rule, reading: Reading) -> list[str]:
    """The figures one by one; of many, from where to where they go, and the one that is shown."""
    if len(judged) <= _MOST_LISTED or shown is None:
        return [each.words for each in judged]
    values = [each.figure.value for each in judged]
    ends = f"{reading.form.format(min(values))} to {reading.form.format(max(values))}"
    return [f"{ends} over {len(judged)} cells", f"{rule.show} {shown.words}"]


def _claimed(rule: Rule, reading: Reading) -> str:
    """What is claimed; where several figures are published of one of ours, also which of them hold."""
    published = [reading.form.format(figure) for figure in rule.figures or (1.0,)]
    if rule.kind == ("figure",) and len(reading.figures) == 1 < len(published):
        alone = [rule.model_copy(update={"figures": (figure,)}).judge(reading)[0] for figure in rule.figures]
        published = [f"{text} ({_verdict(each.holds)})" for text, each in zip(published, alone, strict=True)]
    joined = (" to " if KINDS[rule.kind[0]].needs == 2 else ", ").join(published)
    words = ", ".join(KINDS[kind].words.format(joined) for kind in rule.kind)
    most = " Most are more than half." if rule.judged == "most" else ""
    return f"{reading.of}, {words}.{most}" if words and reading.of else ""
