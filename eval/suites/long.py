"""Long texts: time and memory of one head, forward and backward, at lengths where L² tells.

A single head of 64, causal: eight take eight times as long and as much, at the same exponents. At the greatest length
only the forward pass is measured, of those whose memory grows with L, against one that is dense: seconds a call.
"""

from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Row
from eval.statistics.scaling import scaling_exponent
from eval.suites.findings import by_group, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.series import chosen_series
from eval.suites.suite import Suite, SuiteRequest, require_free
from zoo.config import require

NAME = "long"
LENGTHS, MODES = (1024, 2048, 4096, 8192), ("forward", "forward_backward")
VARIANTS = ("mha", "mha_manual", "mha_tiled", "swa", "swa_masked", "blocksparse", "linear", "gated_delta_chunked")
# Beyond, the dense ones take seconds a call and gigabytes.
_MAX_DENSE_LENGTH = 4096
_MIN_MEMORY_LENGTH = 2048
_DENSE = ("mha_manual", "swa_masked")
_MAX_ROUNDS = {2048: 10, 4096: 5}


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each mode and length; variants, lengths and modes are the user's choice.

    Raises:
        UserError: If the request sets anything else, or a mode that an op does not have.
    """
    require_free(request, NAME, ("variants", "lengths", "modes"))
    modes = request.modes or MODES
    require(set(modes) <= set(MODES), "modes", "suit this suite", modes, allowed=MODES)
    chosen = chosen_series(request.variants, VARIANTS)
    found = []
    for mode in modes:
        for length in request.lengths or LENGTHS:
            setting = {
                "suite": NAME,
                "group": f"{mode} L={length}",
                "builder": "op",
                "level": "op",
                "mode": mode,
                "length": length,
                "num_heads": 1,
            }
            cells = cells_of(chosen, setting)
            skipped = {}
            if length > _MAX_DENSE_LENGTH and request.variants is None:
                reason = f"{length}² scores a call, in time or memory; up to {_MAX_DENSE_LENGTH} show the growth"
                backward = mode == "forward_backward"
                skipped = {each.identity: reason for each in cells if backward or each.variant in _DENSE}
            found.append(
                Group(
                    cells=cells,
                    # A process for each cell: from where the scores outweigh all else.
                    memory=length >= _MIN_MEMORY_LENGTH,
                    control=length < _MAX_DENSE_LENGTH,
                    max_rounds=_max_rounds(length),
                    skipped=skipped,
                )
            )
    return found


def _max_rounds(length: int) -> int | None:
    return min((rounds for least, rounds in _MAX_ROUNDS.items() if length >= least), default=None)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Exponents of time and of memory of each variant."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    named = by_group(timed_rows(rows, NAME))
    for mode in MODES:
        chosen = {group: variants for group, variants in named.items() if group.startswith(f"{mode} ")}
        for name in dict.fromkeys(name for variants in chosen.values() for name in variants):
            found = [variants[name] for variants in chosen.values() if name in variants]
            if len(found) < 2:
                continue
            lengths = [each.cell.length for each in found]
            time = scaling_exponent(lengths, [each.samples for each in found])
            figure = {"figure": "exponent of time", "mode": mode, "variant": name, "value": time.slope}
            figures.append({**figure, "low": time.low, "high": time.high})
            peaks = [None if each.row.memory is None else each.row.memory.peak_bytes for each in found]
            known = [(length, [float(peak)]) for length, peak in zip(lengths, peaks, strict=True) if peak]
            if len(known) > 1:
                memory = scaling_exponent([length for length, _ in known], [peak for _, peak in known])
                figures.append({**figure, "figure": "exponent of peak memory", "value": memory.slope})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="Time and memory of long texts, forward and backward, lengths 1024 to 8192.",
    groups=groups,
    summary=summary,
)
