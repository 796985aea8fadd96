"""The grid of AttnBench, done right: one attention layer, B=1, D=512, 8 heads of 64, float32, no causal mask.

The published eight mechanisms, with every parameter setting a series of its own, against an unfused MHA as published;
MLX's fused attention is one of the candidates. Forward at lengths 128 to 1024, and at 2048 for one setting of each
mechanism; forward and backward up to 512, at 1024 for MHA, the sliding windows and the published rivals in a crossover,
and at 2048 for the sliding windows alone. What is causal is compared with the same mechanism without its mask, in the
same rounds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import Measured, pairs_of
from eval.rows import Row
from eval.statistics.scaling import crossover, scaling_exponent
from eval.suites.findings import by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.series import Series, published_series
from eval.suites.suite import Suite, SuiteRequest, require_free
from zoo.config import require

NAME = "attnbench"
LENGTHS = (128, 256, 512, 1024, 2048)
MODES = ("forward", "forward_backward")
BASELINE, FUSED, MASKED = "mha_manual", "mha", "swa_masked(window_size=64)"
WINDOWS = ("swa(window_size=64)", "swa_gather_slices(window_size=64)", "swa_gather_index(window_size=64)")
# Their rivals in the published crossovers.
CROSSING = ("blocksparse(block_size=32, num_global_tokens=1)", "linear")
SHARED = ("gqa(num_kv_heads=4)", "mqa")
LEGACY = "blocksparse_legacy(block_size=32)"

# A backward pass of the slices adds up one array as large as k for each of them: 5 s and 4.8 GB at 1024 on a CPU.
_SLICES_BACKWARD_LENGTH = 512
# Beyond, dense attention takes half a second a call, and two in a backward pass of 2048, whatever its parameters: then
# fewer series are measured, those of the first length that is not exceeded.
_SERIES_UP_TO: Mapping[str, Mapping[int, frozenset[str]]] = {
    "forward": {2048: frozenset({BASELINE, FUSED, "mha_tiled", *SHARED, MASKED, *WINDOWS, *CROSSING, LEGACY})},
    "forward_backward": {
        1024: frozenset({BASELINE, FUSED, MASKED, *WINDOWS, *CROSSING}),
        2048: frozenset({MASKED, *WINDOWS}),
    },
}
_EVERY_LENGTH = {"forward": 1024, "forward_backward": 512}
_CONTROLLED_LENGTH = 1024
# Seconds a call: eight heads of 2048² scores take half a second forward on a slow core.
_MAX_ROUNDS = {1024: 10, 2048: 5}


def all_series() -> list[Series]:
    """Every series, the baseline first."""
    windows = [published_series(name, window_size=size) for name in ("swa", "swa_masked") for size in (32, 64, 128)]
    gathered = [published_series(name, window_size=64) for name in ("swa_gather_slices", "swa_gather_index")]
    blocks = [published_series("blocksparse", block_size=size, num_global_tokens=1) for size in (16, 32, 64)]
    blocks += [published_series("blocksparse", block_size=32, num_global_tokens=count) for count in (0, 4)]
    dense = [published_series(BASELINE), published_series(FUSED), published_series("mha_tiled")]
    grouped = [
        published_series("gqa", num_kv_heads=2),
        published_series("gqa", num_kv_heads=4),
        published_series("mqa"),
    ]
    return [
        *dense,
        *grouped,
        *windows,
        *gathered,
        *blocks,
        published_series("blocksparse_legacy", block_size=32),
        published_series("linear"),
    ]


def groups(request: SuiteRequest) -> list[Group]:
    """The groups of the suite; lengths and modes are the user's choice.

    Raises:
        UserError: If the request sets anything else, or a mode that this layer does not have.
    """
    require_free(request, NAME, ("lengths", "modes"))
    modes = request.modes or MODES
    require(set(modes) <= set(MODES), "modes", "suit this suite", modes, allowed=MODES)
    return [
        group
        for mode in modes
        for length in request.lengths or LENGTHS
        for group in (_main_group(mode, length), _causal_group(mode, length))
    ]


def _setting(group: str, mode: str, length: int) -> dict[str, Any]:
    return {
        "suite": NAME,
        "group": group,
        "builder": "layer",
        "level": "layer",
        "mode": mode,
        "length": length,
        "causal": False,
    }


def _main_group(mode: str, length: int) -> Group:
    chosen = all_series()
    if length > _EVERY_LENGTH[mode]:
        limits = _SERIES_UP_TO[mode]
        kept = limits[min((limit for limit in limits if length <= limit), default=max(limits))]
        chosen = [each for each in chosen if each.name in kept]
        chosen.sort(key=lambda each: each.name not in (BASELINE, MASKED))
    cells = cells_of(chosen, _setting(f"{mode} L={length}", mode, length))
    skipped = {}
    if mode == "forward_backward" and length > _SLICES_BACKWARD_LENGTH:
        reason = (
            f"the backward pass of {length} slices adds up {length} arrays as large as k, and as many as large as v:"
            f" time and memory grow with L², far beyond what length {_SLICES_BACKWARD_LENGTH} shows already"
        )
        skipped = {cell.identity: reason for cell in cells if cell.variant == WINDOWS[1]}
    return Group(
        cells=cells,
        skipped=skipped,
        max_rounds=_max_rounds(length),
        # A second baseline that takes a second a call says nothing that shorter lengths do not.
        control=length <= _CONTROLLED_LENGTH,
    )


def _causal_group(mode: str, length: int) -> Group:
    """What a causal mask costs linear attention: the same layer without it is the baseline."""
    setting = _setting(f"causal {mode} L={length}", mode, length)
    both_ways = cells_of([published_series("linear")], setting)
    causal = cells_of([published_series("linear"), published_series("linear_cumsum")], {**setting, "causal": True})
    candidates = tuple(cell.model_copy(update={"role": "candidate"}) for cell in causal)
    return Group(cells=(*both_ways, *candidates), max_rounds=_max_rounds(length))


def _max_rounds(length: int) -> int | None:
    fitting = [rounds for least, rounds in _MAX_ROUNDS.items() if length >= least]
    return min(fitting, default=None)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Slopes and crossovers of the forward pass, and what gathering and causality cost."""
    timed = timed_rows(rows, NAME)
    named = by_group(each for each in timed if not each.cell.group.startswith("causal"))
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    forward = {group: row for group, row in named.items() if group.startswith("forward L=")}
    for name in (BASELINE, FUSED, *CROSSING, MASKED, *WINDOWS):
        figures += _slope(name, forward)
    for name in CROSSING:
        for rival in (BASELINE, FUSED):
            figures += _crossover(name, rival, forward)
    for group, variants in named.items():
        for name in WINDOWS:
            figures += _ratio(f"{name} over {MASKED}", group, variants.get(name), variants.get(MASKED))
    for each in timed:
        if each.cell.group.startswith("causal") and each.cell.causal:
            both_ways = next((other for other in timed if _is_baseline_of(other, each)), None)
            figures += _ratio(f"{each.cell.variant}, causal over bidirectional", each.cell.group, each, both_ways)
    return figures


def _is_baseline_of(other: Measured, each: Measured) -> bool:
    return other.cell.group == each.cell.group and other.cell.role == "baseline"


def _slope(name: str, groups: Mapping[str, Mapping[str, Measured]]) -> list[dict[str, Any]]:
    found = [variants[name] for variants in groups.values() if name in variants]
    if len(found) < 2:
        return []
    slope = scaling_exponent([each.cell.length for each in found], [each.samples for each in found])
    figure = {"figure": "scaling exponent", "variant": name, "value": slope.slope}
    return [{**figure, "low": slope.low, "high": slope.high}]


def _crossover(name: str, rival: str, groups: Mapping[str, Mapping[str, Measured]]) -> list[dict[str, Any]]:
    ours, theirs = ([variants[each] for variants in groups.values() if each in variants] for each in (name, rival))
    pairs = pairs_of(ours, theirs)
    if len(pairs) < 2:
        return []
    found = crossover(
        [pair.cell.length for pair in pairs],
        [pair.numerator.samples for pair in pairs],
        [pair.denominator.samples for pair in pairs],
    )
    figure = {"figure": "crossover", "variant": name, "against": rival, "length": found.length}
    return [{**figure, "low": found.low, "high": found.high, "faster_at": found.faster_at}]


def _ratio(figure: str, group: str, above: Measured | None, below: Measured | None) -> list[dict[str, Any]]:
    if above is None or below is None:
        return []
    ratio = ratio_of(above, below)
    return [] if ratio is None else [{"figure": figure, "group": group, **ratio}]


SUITE = Suite(
    name=NAME,
    purpose="AttnBench's attention layer, every mechanism, lengths 128 to 2048, forward and backward.",
    groups=groups,
    summary=summary,
)
