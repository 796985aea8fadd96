"""From rows to a verdict on every published claim; the claims are YAMLs in `eval/replications/`, one for each source.

A file has the `source`; `where`, which cells its claims are about unless they say otherwise; `series` and printed
`lines`, which claims name; and `claims`. Each claim says what is stated (`statement`, `published`, and where they are
others than the file's `source` and true, `source` and `on_apple`), and how it is judged (`judge`): by a `rule` of
`RULES`, and what that rule takes.
"""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.claims import facts, growth, means, ratios, trained
from eval.claims.claim import ELSEWHERE, Claim, Finding, Rule
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where
from eval.rows import Row
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import read_yaml_mapping

FOLDER = Path(__file__).parents[1] / "replications"
RULES: Mapping[str, type[Rule]] = {
    "ratio": ratios.Ratio,
    "all": ratios.All,
    "never_beaten": ratios.NeverBeaten,
    "significance": ratios.Significance,
    "slope": growth.Slope,
    "product": growth.Product,
    "crossing": growth.Crossing,
    "ranking": means.Ranking,
    "mean": means.Mean,
    "rate": means.Rate,
    "spread": means.Spread,
    "training": trained.Training,
    "caches": facts.Caches,
    "peak_saving": facts.PeakSaving,
    "quality": trained.Quality,
    "equal_outputs": facts.EqualOutputs,
    "exchange": trained.Exchange,
    "unsettled": facts.Unsettled,
    "synthetic": facts.Synthetic,
    "score_bytes": facts.ScoreBytes,
    "half_precision_elu": facts.HalfPrecisionElu,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A claim and how it is judged."""

    claim: Claim
    rule: Rule


@functools.cache
def published() -> Mapping[str, Published]:
    """All claims by their names, source by source."""
    return {name: each for path in sorted(FOLDER.glob("*.yaml")) for name, each in read_claims(path).items()}


def judge(rows: Sequence[Row], claims: Sequence[Claim] | None = None) -> list[Finding]:
    """A finding for every claim, in their order.

    Args:
        rows: Of any suites; where they are of several devices, those of the device with most speed rows are judged.
        claims: Some of the published ones; None for all.

    Returns:
        Verdicts computed from the rows; "not measured", with the reason, where rows are missing.
    """
    measurements = Measurements(rows)
    return [_finding(claim, measurements) for claim in (all_claims() if claims is None else claims)]


def all_claims() -> list[Claim]:
    """Every published claim, source by source."""
    return [each.claim for each in published().values()]


def _finding(claim: Claim, measurements: Measurements) -> Finding:
    try:
        found = published()[claim.id].rule.judge(claim, measurements)
    except MissingRowsError as missing:
        found = Finding(claim=claim, verdict="not measured", reason=f"{missing}")
    notes = [found.reason]
    settled = found.verdict not in ("not measured", ELSEWHERE)
    if found.evidence and claim.on_apple and settled and measurements.backend != "metal":
        notes.append(f"Published on Apple's GPU; the verdict is for {measurements.device}.")
    if found.evidence and measurements.other_devices:
        notes.append(f"Rows of {', '.join(measurements.other_devices)} are not in it.")
    return dataclasses.replace(found, reason=" ".join(note for note in notes if note))


def read_claims(path: Path) -> dict[str, Published]:
    """The claims of one file.

    Raises:
        UserError: On an unknown rule, key or series; names the claim.
    """
    content = read_yaml_mapping(path, what="claims")
    series = {name: Series(label=name, **fields) for name, fields in content.get("series", {}).items()}
    lines = printed_lines(content)
    found = {}
    for name, given in content["claims"].items():
        try:
            stated = {"source": content["source"], **given}
            fields = dict(stated.pop("judge"))
            rule = fields.pop("rule", None)
            if rule not in RULES:
                raise UserError(f"rule must be one; got {shortened(rule)} (choices: {', '.join(RULES)})")
            made = _made(RULES[rule], fields, content.get("where", {}), series, lines)
            found[name] = Published(claim=Claim(id=name, **stated), rule=typing.cast(Rule, made))
        except (KeyError, TypeError, ValueError, UserError) as problem:
            raise UserError(f"{path.name}: claim {name}: {problem}") from None
    return found


def printed_lines(content: Mapping[str, Any]) -> dict[str, growth.Line]:
    """Lines of a file's table, without their gaps: `lengths`, and `seconds`, from milliseconds."""
    lines: dict[str, growth.Line] = {}
    for name, milliseconds in content.get("lines", {}).items():
        cells = [each for each in zip(content["lengths"], milliseconds, strict=True) if each[1] is not None]
        lines[name] = {"lengths": [length for length, _ in cells], "seconds": [ms / 1000 for _, ms in cells]}
    return lines


def _made(
    cls: type[Any],
    fields: Mapping[str, Any],
    where: Mapping[str, Any],
    series: Mapping[str, Series],
    lines: Mapping[str, growth.Line],
) -> Any:
    """A dataclass from what a file has, with what is named in place of names."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise UserError(f"there is no {unknown[0]!r} (choices: {', '.join(sorted(hints))})")
    made: dict[str, Any] = {"where": Where(**where)} if "where" in hints and where else {}
    for key, value in fields.items():
        hint = str(hints[key])
        if key == "where":
            made[key] = Where(**{**where, **value})
        elif nested := [each for each in (ratios.Beside, ratios.Ratio) if each.__name__ in hint.replace("'", "")]:
            parts = [
                _made(nested[0], each, where, series, lines) for each in (value if isinstance(value, list) else [value])
            ]
            made[key] = tuple(parts) if isinstance(value, list) else parts[0]
        elif "Mapping" in hint:
            made[key] = _named(value, lines, key)
        else:
            # A pair of a variant's name and a series holds a text that names nothing.
            every_one = "Series" in hint and not any(each in hint for each in ("str", "int"))
            made[key] = _named(value, series, key) if every_one else _known(value, series if "Series" in hint else {})
    return cls(**made)


def _known(value: Any, things: Mapping[str, Any]) -> Any:
    """A value with what its texts name, where they name something; lists become tuples."""
    if isinstance(value, list):
        return tuple(_known(each, things) for each in value)
    return things.get(value, value) if isinstance(value, str) else value


def _named(value: Any, things: Mapping[str, Any], key: str) -> Any:
    """The same, where every text has to name something."""
    if isinstance(value, list):
        return tuple(_named(each, things, key) for each in value)
    if isinstance(value, str) and value not in things:
        raise UserError(f"{key} must name what the file has; got {value!r} (choices: {', '.join(things)})")
    return things[value] if isinstance(value, str) else value
