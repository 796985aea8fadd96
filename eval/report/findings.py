"""What the rows of one device come to: findings in sentences, verdicts on claims, and what was measured and was not."""

import collections
import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from eval.claims import Finding
from eval.claims.claim import Verdict
from eval.query import by_device
from eval.report.layer_figures import controls
from eval.report.quality import OverSeeds, difference_words
from eval.report.text import NOTHING, Table, as_text, interval, num_bytes, number, open_interval, spreadsheet
from eval.report.trainings import exchanges
from eval.report.variants import VariantFacts, setting_of, variant_facts
from eval.rows import Machine, Row
from eval.rows.schema import Status
from zoo.attention.function import function_of

Value = str | int | float | bool | None
# The share of A/A intervals that must contain 1, as the intervals are of 95 %.
TRUSTED = 0.9
_SHORT_COMMIT = 10


def findings(rows: Sequence[Row], claims: Sequence[Finding]) -> list[str]:
    """One sentence for each finding: who is faster, at what cost in quality and memory, and how sure that is.

    Args:
        rows: Of one device.
        claims: Judged by them.
    """
    facts, setting = variant_facts(rows), setting_of(rows)
    reference = next((each for each in facts if each.name == setting.reference_name), None)
    device = next(iter(by_device(rows)))
    found = [] if reference is None else [*_faster(facts, reference, device), *_smaller(facts, reference)]
    if reference is not None and reference.recall is not None:
        found += _recall(facts, reference, reference.recall)
    return [*found, *_exchanged(rows), *_claimed(claims), *_trusted(rows)]


def _faster(facts: Sequence[VariantFacts], reference: VariantFacts, device: str) -> list[str]:
    """The fastest of all to train, and the fastest way to compute what the reference computes."""
    timed = [each for each in facts if each.speed is not None and each is not reference]
    same = [each for each in timed if _function(each) == _function(reference)]
    told = []
    for each in timed[:1]:
        assert each.speed is not None, "only timed variants are asked"
        how = "trains fastest" if each.speed.value > 1 else f"trains fastest but for {reference.name}"
        told.append(
            f"On {device}, {each.name} {how}: {interval(each.speed.value, each.speed.low, each.speed.high)} times the "
            f"speed of {reference.name}, at a peak of {num_bytes(each.peak_bytes)} against "
            f"{num_bytes(reference.peak_bytes)}; "
            f"bits per byte: {_against(each.quality, reference.quality)}; "
            f"recall: {_against(each.recall, reference.recall)}."
        )
    for each in same[:1]:
        assert each.speed is not None, "only timed variants are asked"
        ratio = interval(each.speed.value, each.speed.low, each.speed.high)
        verdict = "is faster" if each.speed.differs and each.speed.value > 1 else "is not faster"
        told.append(
            f"Of {len(same)} other ways to compute what {reference.name} computes, the fastest, {each.name}, {verdict} "
            f"in a training step: {ratio} times its speed."
        )
    return told


def _smaller(facts: Sequence[VariantFacts], reference: VariantFacts) -> list[str]:
    decoded = [each for each in facts if each.cache_bytes and each.decoding is not None]
    if not decoded or not reference.cache_bytes or reference.decoding is None:
        return []
    least = min(each.cache_bytes or 0 for each in decoded)
    best = max((each for each in decoded if each.cache_bytes == least), key=lambda each: each.decoding or (0.0,))
    if best is reference or best.decoding is None:
        return []
    return [
        f"The smallest decoding cache is that of {best.name}: {num_bytes(least)} against "
        f"{num_bytes(reference.cache_bytes)} of {reference.name}; it decodes {interval(*best.decoding)} tokens a "
        f"second against {interval(*reference.decoding)}."
    ]


def _recall(facts: Sequence[VariantFacts], reference: VariantFacts, whole: OverSeeds) -> list[str]:
    others = [each for each in facts if each.recall and each.recall.of is None and each is not reference]
    if not others:
        return []
    ordered = sorted(others, key=lambda each: -each.recall.mean if each.recall else 0)
    told = [f"{each.name} {_against(each.recall, whole)}" for each in (ordered[0], *ordered[1:][-1:])]
    return [f"At recall {reference.name} reaches {whole}; the best and the worst other differ: {'; '.join(told)}."]


def _against(own: OverSeeds | None, reference: OverSeeds | None) -> str:
    found = None if own is None else own.minus(reference)
    if own is None:
        return "not measured"
    return str(own) if found is None else difference_words(found)


def _exchanged(rows: Sequence[Row]) -> list[str]:
    """Of each checkpoint the exchange that broke most, and the way of mending that brought back most."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for line in exchanges(rows):
        if "damage" in line and line["damage"]["bits_per_byte_after"] is not None:
            lines.setdefault(line["checkpoint"], []).append(line)
    told = []
    for checkpoint, own in lines.items():
        worst = max(own, key=lambda line: float(line["damage"]["bits_per_byte_after"]))
        before, after = (number(worst["damage"][f"bits_per_byte_{when}"], 4) for when in ("before", "after"))
        text = f"Exchanging the attention of {checkpoint} breaks most with {worst['variant']}: "
        text += f"{before} bits per byte become {after}"
        mended = [line for line in own if line.get("recovered_share") is not None and line["arm"] != "scratch"]
        if mended:
            best = max(mended, key=lambda line: float(line["recovered_share"]))
            share = interval(*(best[f"recovered_share{end}"] for end in ("", "_low", "_high")))
            text += f"; most comes back with {best['variant']} ({best['arm']}): {share} of what was lost"
        told.append(f"{text}.")
    return told


def _claimed(claims: Sequence[Finding]) -> list[str]:
    counts = collections.Counter(each.verdict for each in claims)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if counts[verdict])
    return [f"Of {len(claims)} published claims: {told}."]


def _trusted(rows: Sequence[Row]) -> list[str]:
    found = controls(rows)
    if not found:
        return []
    inside = sum(low <= 1 <= high for _, low, high in found)
    sure = "so the intervals can be trusted" if inside >= TRUSTED * len(found) else "so no interval deserves trust"
    return [
        f"How sure: of {len(found)} things that were timed against themselves, {inside} have a 95 % interval that "
        f"contains 1 ({inside / len(found):.0%}), {sure}."
    ]


def _function(facts: VariantFacts) -> str | None:
    return None if facts.attention is None else function_of(json.loads(facts.attention))


def claim_lines(claims: Sequence[Finding]) -> dict[str, list[dict[str, str]]]:
    """The claims by verdict, the verdicts in their own order: statement, figure and ours, and what else to know."""
    lines = {verdict: [_claim(each) for each in claims if each.verdict == verdict] for verdict in get_args(Verdict)}
    return {verdict: own for verdict, own in lines.items() if own}


def _claim(finding: Finding) -> dict[str, str]:
    value, low, high, claim = finding.value, finding.low, finding.high, finding.claim
    # Either end may be open or missing, and so may the value: those of a crossover are.
    ends = open_interval(low, high, ".3g")
    told = interval(value, low, high) if None not in (low, high) else f"{number(value)} {ends}".strip()
    if value is None:
        told = f"none {ends}" if ends else NOTHING
    return {
        **{name: getattr(claim, name) for name in ("id", "statement", "source", "published")},
        "verdict": finding.verdict,
        "value": told,
        "ours": finding.ours or NOTHING,
        "reason": finding.reason or NOTHING,
    }


def section_of(row: Row) -> str:
    """The suite of a speed row, or the task of a quality row."""
    if row.cell is not None:
        return row.cell.suite
    return "quality" if row.quality is None else f"quality: {row.quality.task}"


def coverage_table(rows: Sequence[Row]) -> Table:
    """How many rows of each suite and task there are of each status, so that none goes missing unseen; and of all."""
    counts: dict[str, collections.Counter[str]] = {}
    for row in rows:
        counts.setdefault(section_of(row), collections.Counter())[row.status] += 1
    statuses = [status for status in get_args(Status) if any(each[status] for each in counts.values())]
    totals = {**counts, "all": sum(counts.values(), collections.Counter())}
    lines = [(name, f"{each.total()}", *(f"{each[status]}" for status in statuses)) for name, each in totals.items()]
    columns = ("suite", "rows", *(status.replace("_", " ") for status in statuses))
    return Table(columns=columns, rows=tuple(lines))


def reasons_table(rows: Sequence[Row]) -> Table:
    """Why rows are not ok, the most frequent reason first."""
    reasons = collections.Counter(
        (row.status.replace("_", " "), row.reason or "no reason given") for row in rows if row.status != "ok"
    )
    lines = [(status, f"{count}", reason) for (status, reason), count in reasons.most_common()]
    return Table(columns=("status", "rows", "reason"), rows=tuple(lines))


def machines_table(rows: Sequence[Row]) -> Table:
    """A line for each set of versions and commit of a device: what tells them apart; what they share is the note."""
    groups: dict[Machine, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.machine, []).append(row)
    facts = [_machine_facts(machine) for machine in groups]
    shared = [name for name in facts[0] if len({each[name] for each in facts}) == 1]
    own = [name for name in facts[0] if name not in shared]
    times = [sorted(row.recorded_at[:16] for row in found) for found in groups.values()]
    return Table(
        columns=(*own, "rows", "first row", "last row"),
        rows=tuple(
            (*(each[name] for name in own), f"{len(told)}", told[0], told[-1])
            for each, told in zip(facts, times, strict=True)
        ),
        note="; ".join(f"{name}: {facts[0][name]}" for name in shared) + ".",
    )


def _machine_facts(machine: Machine) -> dict[str, str]:
    facts = {**machine.model_dump(), "commit": (machine.commit or "")[:_SHORT_COMMIT]}
    return {name.replace("_", " "): as_text(value) for name, value in facts.items()}


def commits(rows: Sequence[Row]) -> str:
    """The commits of rows, shortened; says where the checkout had changes of its own."""
    found = dict.fromkeys((row.machine.commit, bool(row.machine.uncommitted_changes)) for row in rows)
    return ", ".join(f"{(commit or 'unknown')[:_SHORT_COMMIT]}{' + changes' * changed}" for commit, changed in found)


def rows_csv(rows: Sequence[Row]) -> str:
    """All rows as CSV, a column for every value that any row has; lists (raw samples, curves) are left to the JSON."""
    lines = [_flat(row.model_dump()) for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name, value in line.items() if value is not None))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found[f"{prefix}{key}"] = value
        elif key == "flags":
            found[f"{prefix}{key}"] = " ".join(value)
    return found
