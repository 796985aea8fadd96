"""Builds cells by the names of their builders, and says beforehand which are not worth building.

A cell is refused if its variant cannot do it, if it would not fit, or if its graph would be absurdly large. Bytes are
predicted by building and calling the same cell at three short lengths in one row, whose peaks are continued as

    bytes(B, L) = constant + B (linear L + quadratic L²)

with weights in the constant, tokens, chunks, windows and states in the linear part, and score matrices in the quadratic
one. It takes a second at most, and none for cells that fit whatever their variant does.

Letters: B batch, L length, N query heads, H head_dim.
"""

import collections
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from eval import SUITES, declared
from eval.bench import Workload
from eval.rows import Cell
from eval.workloads import UNIMPORTANT, attention, device, model, processes
from zoo.config import UserError
from zoo.models import build_model

logger = logging.getLogger(__name__)

BUILDERS: Mapping[str, Callable[[Cell], Workload]] = {
    "device": device.build,
    "op": attention.build_op,
    "layer": attention.build_layer,
    "model": model.build,
    processes.BUILDER: processes.build,
}
# Raise what a cell's variant, level or model cannot do, from declarations alone.
_SETTINGS: Mapping[str, Callable[[Cell], object]] = {
    "op": attention.attention_setting,
    "layer": attention.attention_setting,
    "model": model.model_setting,
}

PROBE_LENGTHS = (128, 256, 512)
# The rest is for the interpreter, for what the allocator keeps, and for the error of the prediction.
USABLE_SHARE = 0.8
# MLX takes about 50 microseconds to trace and compile an operation: a quarter of a minute, and gigabytes beyond.
MAX_GRAPH_NODES = 300_000
# The most that any variant holds is one H-wide vector per score or per state entry, in as many copies as the slowest
# form of gathering keeps for its backward pass.
_MOST_COPIES = 8
_PROBE_CALLS = 5


def build(cell: Cell) -> Workload:
    """Builds a cell.

    Raises:
        UserError: If its variant, level or model cannot do what it asks for.
    """
    # Those that suites bring along are imported when a cell asks for one.
    brought = [] if cell.builder in BUILDERS else declared("BUILDERS", SUITES)
    return collections.ChainMap(dict(BUILDERS), *brought)[cell.builder](cell)


def refusal(cell: Cell, available_bytes: int) -> str | None:
    """Why a cell is not worth building where a process may use so many bytes, in one line, or None if it is."""
    if cell.level == "device" or cell.attention is None:
        return None
    usable = int(USABLE_SHARE * available_bytes)
    try:
        reason = inability(cell)
        if reason is not None or _most_bytes(cell) <= usable:
            return reason
        needed, nodes = predicted(cell)
    # A mechanism of any package may be asked for: nobody can name what it raises. Whatever is wrong with it, at short
    # lengths too, building it in a process of its own will say.
    except Exception:
        logger.debug("%s was not predicted", cell.variant, exc_info=True)
        return None
    if needed > usable:
        share = f"{USABLE_SHARE:.0%} of the {available_bytes / 1e9:.1f} GB available"
        figure = f"{needed / 1e9:.1f} GB predicted from lengths up to {PROBE_LENGTHS[-1]}"
        return f"does not fit: {figure}, more than {share}"
    if nodes > MAX_GRAPH_NODES:
        return f"takes absurdly long: a graph of {nodes:,} operations predicted, more than {MAX_GRAPH_NODES:,}"
    return None


def inability(cell: Cell) -> str | None:
    """What the cell asks for that its variant, level or model cannot do, from declarations alone; None for nothing."""
    try:
        _SETTINGS.get(cell.builder, lambda _: None)(cell)
    except UserError as error:
        return str(error)
    return None


def predicted(cell: Cell) -> tuple[int, int]:
    """Peak bytes of a call, and operations of its uncompiled graph, from one row at the probe lengths, made here."""
    changes = [{**UNIMPORTANT, "seed": 0, "batch_size": 1, "length": length} for length in PROBE_LENGTHS]
    bytes_, nodes = zip(*(_probe(cell.model_copy(update=each)) for each in changes), strict=True)
    constant, linear, quadratic = fit(PROBE_LENGTHS, bytes_)
    slope = (nodes[-1] - nodes[-2]) / (PROBE_LENGTHS[-1] - PROBE_LENGTHS[-2])
    # The graph does not depend on B.
    needed = constant + cell.batch_size * cell.length * (linear + quadratic * cell.length)
    return round(needed), round(nodes[-1] + slope * (cell.length - PROBE_LENGTHS[-1]))


@functools.lru_cache(maxsize=4096)
def _probe(cell: Cell) -> tuple[int, int]:
    """Peak bytes of a few calls beyond what was held before the cell was built, and nodes of its graph."""
    mx.clear_cache()
    before = mx.get_active_memory()
    workload = build(cell)
    mx.reset_peak_memory()
    # Main and computing thread race, so that the peak differs from call to call; more so on a busy machine.
    for _ in range(_PROBE_CALLS):
        mx.eval(workload.call())
    peak = max(mx.get_peak_memory(), mx.get_active_memory()) - before
    nodes = workload.work.graph_nodes or 0
    del workload
    mx.clear_cache()
    return peak, nodes


def fit(lengths: Sequence[int], bytes_: Sequence[int]) -> tuple[float, float, float]:
    """Constant, linear and quadratic coefficient, none negative, through three points.

    Where the three points bend downwards, as when blocks are rounded up, the last two count alone: memory that grows
    slower than L among short lengths still may not be expected to do so for ever.
    """
    constant, linear, quadratic = np.polynomial.polynomial.polyfit(lengths, bytes_, 2)
    if quadratic > 0 and linear >= 0:
        return float(max(constant, 0.0)), float(linear), float(quadratic)
    power = 2 if quadratic > 0 else 1
    low, high = lengths[-2] ** power, lengths[-1] ** power
    slope = max(0.0, (bytes_[-1] - bytes_[-2]) / (high - low))
    constant = max(0.0, bytes_[-1] - slope * high)
    return (constant, 0.0, slope) if power == 2 else (constant, slope, 0.0)


def _most_bytes(cell: Cell) -> int:
    """More than any variant takes."""
    per_token = max(cell.length, cell.head_dim) * (cell.head_dim + 1) * mx.float32.size
    ops = _MOST_COPIES * cell.batch_size * cell.num_heads * cell.length * per_token
    if cell.builder != "model":
        return ops
    # Training keeps what every layer did; weights come with their gradients and two moments.
    config = model.model_setting(cell).config
    layers = config.num_layers if cell.mode in ("forward_backward", "step") else 1
    return layers * ops + 4 * build_model(config).num_parameters() * mx.float32.size
