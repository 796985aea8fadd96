"""What the rows of one device come to: findings in sentences, verdicts on claims, and what was measured and was not."""

import collections
import csv
import io
from collections.abc import Iterator, Sequence
from typing import get_args

from eval.claims.claim import Finding, Verdict
from eval.query import by_device, grouped
from eval.report.layer_figures import controls
from eval.report.quality import OverSeeds, computed_by
from eval.report.text import NOTHING, Table, as_text, ends, flat, interval, num_bytes, number, spreadsheet
from eval.report.trainings import exchanges, share_words
from eval.report.variants import VariantFacts, Variants
from eval.rows import Row
from eval.rows.schema import Status

# The share of A/A intervals that must contain 1, as the intervals are of 95 %.
TRUSTED = 0.9
_SHORT_COMMIT = 10


def findings(rows: Sequence[Row], claims: Sequence[Finding]) -> list[str]:
    """One sentence for each finding: who is faster, at what cost in quality and memory, and how sure that is.

    Args:
        rows: Of one device.
        claims: Judged by them.
    """
    variants = Variants(rows)
    reference, others = variants.reference, [each for each in variants.facts if each is not variants.reference]
    found = []
    if reference is not None:
        device = next(iter(by_device(rows)))
        found = [*_faster(others, reference, device), *_smaller(variants.facts, reference), *_recall(others, reference)]
    verdicts = ", ".join(f"{len(own)} {verdict}" for verdict, own in _by_verdict(claims).items())
    return [*found, *_exchanged(rows), f"Of {len(claims)} published claims: {verdicts}.", *_trusted(rows)]


def _faster(others: Sequence[VariantFacts], reference: VariantFacts, device: str) -> Iterator[str]:
    """The fastest of all to train, and the fastest way to compute what the reference computes."""
    timed = [(each, each.speed) for each in others if each.speed is not None]
    same = [each for each in timed if computed_by(each[0].attention) == computed_by(reference.attention)]
    for each, speed in timed[:1]:
        how = "trains fastest" if speed.value > 1 else f"trains fastest but for {reference.name}"
        yield (
            f"On {device}, {each.name} {how}: {interval(speed)} times the speed of {reference.name}, at a peak of "
            f"{num_bytes(each.peak_bytes)} against {num_bytes(reference.peak_bytes)}; "
            f"bits per byte: {_against(each.quality, reference.quality)}; "
            f"recall: {_against(each.recall, reference.recall)}."
        )
    for each, speed in same[:1]:
        verdict = "is faster" if speed.low is not None and speed.low > 1 else "is not faster"
        yield (
            f"Of {len(same)} other ways to compute what {reference.name} computes, the fastest, {each.name}, {verdict} "
            f"in a training step: {interval(speed)} times its speed."
        )


def _against(own: OverSeeds | None, reference: OverSeeds | None) -> str:
    return "not measured" if own is None else own.against(reference) or str(own)


def _smaller(facts: Sequence[VariantFacts], reference: VariantFacts) -> Iterator[str]:
    decoded = [(each.cache_bytes, -each.decoding.value, each) for each in facts if each.cache_bytes and each.decoding]
    least, _, best = min(decoded, key=lambda each: each[:2], default=(0, 0.0, reference))
    if best is not reference and reference.cache_bytes and reference.decoding:
        yield (
            f"The smallest decoding cache is that of {best.name}: {num_bytes(least)} against "
            f"{num_bytes(reference.cache_bytes)} of {reference.name}; it decodes {interval(best.decoding)} tokens a "
            f"second against {interval(reference.decoding)}."
        )


def _recall(others: Sequence[VariantFacts], reference: VariantFacts) -> Iterator[str]:
    own = [(each.recall, each.name) for each in others if each.recall and each.recall.of is None]
    if own and reference.recall:
        best, *rest = sorted(own, key=lambda each: -each[0].mean)
        differ = [f"{name} {reached.against(reference.recall) or reached}" for reached, name in (best, *rest[-1:])]
        yield (
            f"At recall {reference.name} reaches {reference.recall}; the best and the worst other differ: "
            f"{'; '.join(differ)}."
        )


def _exchanged(rows: Sequence[Row]) -> Iterator[str]:
    """Of each checkpoint the exchange that broke most, and the way of mending that brought back most."""
    broken = [line for line in exchanges(rows) if "damage" in line]
    broken = [line for line in broken if line["damage"]["bits_per_byte_after"] is not None]
    for checkpoint, own in grouped(broken, lambda line: line["checkpoint"]).items():
        worst = max(own, key=lambda line: float(line["damage"]["bits_per_byte_after"]))
        before, after = (number(worst["damage"][f"bits_per_byte_{when}"], 4) for when in ("before", "after"))
        text = f"Exchanging the attention of {checkpoint} breaks most with {worst['variant']}: "
        text += f"{before} bits per byte become {after}"
        mended = [line for line in own if line.get("arm") != "scratch" and line.get("recovered_share") is not None]
        if mended:
            best = max(mended, key=lambda line: float(line["recovered_share"]))
            text += f"; most comes back with {best['variant']} ({best['arm']}): {share_words(best)} of what was lost"
        yield f"{text}."


def _trusted(rows: Sequence[Row]) -> Iterator[str]:
    found = controls(rows)
    inside = sum(not each.differs for each in found)
    sure = "so the intervals can be trusted" if inside >= TRUSTED * len(found) else "so no interval deserves trust"
    if found:
        yield (
            f"How sure: of {len(found)} things that were timed against themselves, {inside} have a 95 % interval that "
            f"contains 1 ({inside / len(found):.0%}), {sure}."
        )


def _by_verdict(claims: Sequence[Finding]) -> dict[Verdict, list[Finding]]:
    """The verdicts in their own order."""
    found = grouped(claims, lambda each: each.verdict)
    return {verdict: found[verdict] for verdict in get_args(Verdict) if verdict in found}


def claim_lines(claims: Sequence[Finding]) -> dict[Verdict, list[dict[str, str]]]:
    """The claims by verdict, the verdicts in their own order: statement, figure and ours, and what else to know."""
    return {verdict: list(map(_claim, own)) for verdict, own in _by_verdict(claims).items()}


def _claim(finding: Finding) -> dict[str, str]:
    # Either end may be open or missing, and so may the value: those of a crossover are.
    value, interval_ends = finding.value, ends(finding.low, finding.high)
    told = number(value) if value is not None else "none" if interval_ends else NOTHING
    return {
        **{name: getattr(finding.claim, name) for name in ("id", "statement", "source", "published")},
        "verdict": finding.verdict,
        "value": f"{told}{interval_ends}",
        "ours": finding.ours or NOTHING,
        "reason": finding.reason or NOTHING,
    }


def _section(row: Row) -> str:
    """The suite of a speed row, or the task of a quality row."""
    if row.quality is not None:
        return f"quality: {row.quality.task}"
    return "" if row.cell is None else row.cell.suite


def coverage_table(rows: Sequence[Row]) -> Table:
    """How many rows of each suite and task there are of each status, so that none goes missing unseen; and of all."""
    counts = {name: collections.Counter(row.status for row in own) for name, own in grouped(rows, _section).items()}
    counts["all"] = collections.Counter(row.status for row in rows)
    statuses = [status for status in get_args(Status) if counts["all"][status]]
    lines = []
    for name, own in counts.items():
        told = {status.replace("_", " "): f"{own[status]}" for status in statuses}
        lines.append({"suite": name, "rows": f"{own.total()}", **told})
    return Table(lines)


def reasons_table(rows: Sequence[Row]) -> Table:
    """Why rows are not ok, the most frequent reason first."""
    reasons = collections.Counter(
        (row.status.replace("_", " "), row.reason or "no reason given") for row in rows if row.status != "ok"
    )
    found = reasons.most_common()
    return Table([{"status": status, "rows": f"{count}", "reason": reason} for (status, reason), count in found])


def machines_table(rows: Sequence[Row]) -> Table:
    """A line for each set of versions and commit of a device: what tells them apart; what they share is the note."""
    groups = grouped(rows, lambda row: row.machine)
    told = [{**machine.model_dump(), "commit": (machine.commit or "")[:_SHORT_COMMIT]} for machine in groups]
    facts = [{name.replace("_", " "): as_text(value) for name, value in each.items()} for each in told]
    shared = [name for name in facts[0] if len({each[name] for each in facts}) == 1]
    lines = []
    for each, own in zip(facts, groups.values(), strict=True):
        times = [row.recorded_at[:16] for row in own]
        apart = {name: value for name, value in each.items() if name not in shared}
        lines.append({**apart, "rows": f"{len(own)}", "first row": min(times), "last row": max(times)})
    return Table(lines, note="; ".join(f"{name}: {facts[0][name]}" for name in shared) + ".")


def commits(rows: Sequence[Row]) -> str:
    """The commits of rows, shortened; says where the checkout had changes of its own."""
    found = dict.fromkeys((row.machine.commit, bool(row.machine.uncommitted_changes)) for row in rows)
    return ", ".join(f"{(commit or 'unknown')[:_SHORT_COMMIT]}{' + changes' * changed}" for commit, changed in found)


def rows_csv(rows: Sequence[Row]) -> str:
    """All rows as CSV, a column for every value that any row has; lists (raw samples, curves) are left to the JSON."""
    lines = []
    for row in rows:
        values = {**flat(row.model_dump()), "flags": " ".join(row.flags)}
        lines.append({name: spreadsheet(value) for name, value in values.items() if not isinstance(value, list)})
    columns = list(dict.fromkeys(name for line in lines for name, value in line.items() if value is not None))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
