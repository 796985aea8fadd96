"""The report's figures, one file each: pure functions from rows to drawings."""

from eval.report.figures import (
    blocksparse,
    control,
    decode_memory,
    dense,
    latency,
    linear,
    loss_curves,
    needle,
    pareto,
    recall,
    slopes,
    speedups,
    transfer,
    windows,
)
from eval.report.figures.kind import Absent, FigureKind

# In the order of the report: what matters in a model first, then the seven of AttnBench, then the instrument itself.
FIGURES: tuple[FigureKind, ...] = (
    pareto.KIND,
    loss_curves.KIND,
    recall.KIND,
    needle.KIND,
    latency.KIND,
    windows.KIND,
    blocksparse.KIND,
    linear.KIND,
    speedups.KIND,
    dense.KIND,
    slopes.KIND,
    decode_memory.KIND,
    transfer.KIND,
    control.KIND,
)

__all__ = ["FIGURES", "Absent", "FigureKind"]
