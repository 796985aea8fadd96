"""What the device itself can do, measured in the same run: the floor of a call, the peak, and the bandwidth."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from eval.rows import Cell, Row
from eval.rows.cell import Execution
from eval.speed.group import Group

# A cell below so many times the floor says more of the dispatch than of the work.
OVERHEAD_FACTOR = 2.0
_ROUNDS = 5
DEVICE = "device"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The device's own limits.

    Attributes:
        floor_seconds: Of a call that does next to nothing, by execution.
        peak_flops_per_second: Of matrix products, by dtype.
        bandwidth_bytes_per_second: Of a copy, read and written bytes together, by dtype.
    """

    floor_seconds: Mapping[Execution, float]
    peak_flops_per_second: Mapping[str, float]
    bandwidth_bytes_per_second: Mapping[str, float]

    def is_overhead_bound(self, execution: Execution, median_seconds: float) -> bool:
        """Whether a cell is too short to say much beside the cost of dispatching it."""
        floor = self.floor_seconds.get(execution)
        return floor is not None and median_seconds < OVERHEAD_FACTOR * floor


def reference_group(cells: Iterable[Cell]) -> Group:
    """What to measure of the device for these cells: a null call, and a matrix product and a copy of each dtype."""
    needed = list(cells)
    executions = sorted({cell.execution for cell in needed})
    dtypes = sorted({cell.dtype for cell in needed})
    wanted = [_cell(mode="null", variant="null call", execution=execution) for execution in executions]
    for dtype in dtypes:
        wanted.append(_cell(mode="matmul", variant="matrix product", dtype=dtype))
        wanted.append(_cell(mode="copy", variant="copy", dtype=dtype))
    return Group(cells=tuple(wanted), control=False, max_rounds=_ROUNDS)


def reference(group: Group, rows: Mapping[str, Row]) -> Reference:
    """The limits that rows of the group say; empty where they are missing."""
    floor: dict[Execution, float] = {}
    peak: dict[str, float] = {}
    bandwidth: dict[str, float] = {}
    for cell in group.cells:
        row = rows.get(cell.identity)
        if row is None or row.timing is None:
            continue
        if cell.mode == "null":
            floor[cell.execution] = row.timing.median_seconds
        elif cell.mode == "matmul" and row.work is not None and row.work.useful_flops is not None:
            # The peak is the best that it ever did.
            peak[cell.dtype] = row.work.useful_flops / min(row.timing.samples_seconds)
        elif cell.mode == "copy" and row.memory is not None and row.memory.analytic_bytes is not None:
            bandwidth[cell.dtype] = row.memory.analytic_bytes / min(row.timing.samples_seconds)
    return Reference(floor_seconds=floor, peak_flops_per_second=peak, bandwidth_bytes_per_second=bandwidth)


def measured_cells(groups: Sequence[Group]) -> list[Cell]:
    """All cells of the groups."""
    return [cell for group in groups for cell in group.cells]


def _cell(*, mode: str, variant: str, dtype: str = "float32", execution: Execution = "latency") -> Cell:
    # A device has no length and no heads: its cells are one size, which their builder knows.
    return Cell.model_validate(
        {
            "suite": DEVICE,
            "group": DEVICE,
            "builder": DEVICE,
            "variant": variant,
            "level": "device",
            "mode": mode,
            "length": 1,
            "dtype": dtype,
            "execution": execution,
        }
    )
