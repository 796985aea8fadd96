"""The grid of AttnBench, done right: one attention layer, B=1, D=512, 8 heads of 64, float32, no causal mask.

The published eight mechanisms, with every parameter setting a series of its own, against an unfused MHA as published;
MLX's fused attention is one of the candidates. Forward and with gradients at lengths 128 to 2048, where dense attention
takes half a second a call; `LONGEST` says how far each series goes. What is causal is compared with the same mechanism
without its mask, in the same rounds.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import by_series, measured, pairs_of
from eval.rows import Row
from eval.statistics import crossover, scaling_exponent
from eval.suites import Figure, Suite, fewest_rounds, over_groups, with_interval
from eval.suites.series import cells_of, published_series

NAME = "attnbench"
LENGTHS = (128, 256, 512, 1024, 2048)
MODES = ("forward", "forward_backward")
BASELINE, FUSED, MASKED = "mha_manual", "mha", "swa_masked(window_size=64)"
WINDOWS = ("swa(window_size=64)", "swa_gather_slices(window_size=64)", "swa_gather_index(window_size=64)")
# Their rivals in the published crossovers.
CROSSING = ("blocksparse(block_size=32, num_global_tokens=1)", "linear")
# Series -> the greatest length forward and with gradients: to 2048 one setting of each mechanism, and with gradients to
# 1024 what crosses, to 2048 the windows. The masked window is the baseline where dense attention is left out.
LONGEST: Mapping[str, tuple[int, int]] = {
    BASELINE: (2048, 1024),
    MASKED: (2048, 2048),
    FUSED: (2048, 1024),
    "mha_tiled": (1024, 512),
    "gqa(num_kv_heads=2)": (1024, 512),
    "gqa(num_kv_heads=4)": (1024, 512),
    "mqa": (1024, 512),
    "swa(window_size=32)": (1024, 512),
    "swa(window_size=128)": (1024, 512),
    "swa_masked(window_size=32)": (1024, 512),
    "swa_masked(window_size=128)": (1024, 512),
    **dict.fromkeys(WINDOWS, (2048, 2048)),
    "blocksparse(block_size=16, num_global_tokens=1)": (1024, 512),
    "blocksparse(block_size=64, num_global_tokens=1)": (1024, 512),
    "blocksparse(block_size=32, num_global_tokens=0)": (1024, 512),
    "blocksparse(block_size=32, num_global_tokens=4)": (1024, 512),
    "blocksparse_legacy(block_size=32)": (2048, 512),
    **dict.fromkeys(CROSSING, (2048, 1024)),
}
# A backward pass of the slices adds up one array as large as k for each of them: 5 s and 4.8 GB at 1024 on a CPU.
_SLICES_BACKWARD_LENGTH = 512
# A second baseline that takes a second a call says nothing that shorter lengths do not.
_CONTROLLED_LENGTH = 1024
# Seconds a call: eight heads of 2048² scores take half a second forward on a slow core.
_MAX_ROUNDS = {1024: 10, 2048: 5}


def plan(*, lengths: Sequence[int] = LENGTHS, modes: Sequence[str] = MODES) -> list[Group]:
    """The mechanisms against each other, and the causal ones against themselves, at each mode and length."""
    points = itertools.product(modes, lengths)
    return [group for point in points for group in (_main_group(*point), _causal_group(*point))]


def _setting(group: str, mode: str, length: int) -> dict[str, Any]:
    return {"suite": NAME, "group": group, "level": "layer", "mode": mode, "length": length, "causal": False}


def _main_group(mode: str, length: int) -> Group:
    reached = min(length, LENGTHS[-1])
    names = [name for name, longest in LONGEST.items() if longest[MODES.index(mode)] >= reached]
    cells = cells_of(map(published_series, names), **_setting(f"{mode} L={length}", mode, length))
    reason = (
        f"the backward pass of {length} slices adds up {length} arrays as large as k, and as many as large as v:"
        f" time and memory grow with L², far beyond what length {_SLICES_BACKWARD_LENGTH} shows already"
    )
    left_out = WINDOWS[1:2] if mode == "forward_backward" and length > _SLICES_BACKWARD_LENGTH else ()
    skipped = {cell.identity: reason for cell in cells if cell.variant in left_out}
    rounds = fewest_rounds(length, _MAX_ROUNDS)
    return Group(cells=cells, skipped=skipped, max_rounds=rounds, control=length <= _CONTROLLED_LENGTH)


def _causal_group(mode: str, length: int) -> Group:
    """What a causal mask costs linear attention: the same layer without it is the baseline."""
    setting = _setting(f"causal {mode} L={length}", mode, length)
    linear, cumsum = map(published_series, ("linear", "linear_cumsum"))
    causal = cells_of([linear, cumsum], **{**setting, "causal": True})
    candidates = tuple(cell.model_copy(update={"role": "candidate"}) for cell in causal)
    return Group(cells=(*cells_of([linear], **setting), *candidates), max_rounds=fewest_rounds(length, _MAX_ROUNDS))


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Ratios over the groups; of forward passes each series' exponent in the length, and where the published cross."""
    figures = over_groups(rows)
    timed = measured(rows, mode="forward", timed=True)
    series = by_series(each for each in timed if not each.cell.group.startswith("causal"))
    for name, found in series.items():
        if len(found) > 1:
            slope = scaling_exponent([each.cell.length for each in found], [each.samples for each in found])
            figures.append({"figure": "scaling exponent", "variant": name, **with_interval(slope, "value")})
    for name, rival in itertools.product(CROSSING, (BASELINE, FUSED)):
        pairs = pairs_of(series.get(name, ()), series.get(rival, ()))
        if len(pairs) > 1:
            ours, theirs = ([getattr(pair, side).samples for pair in pairs] for side in ("numerator", "denominator"))
            where = crossover([pair.cell.length for pair in pairs], ours, theirs)
            figures.append({"figure": "crossover", "variant": name, "against": rival, **vars(where)})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary)
