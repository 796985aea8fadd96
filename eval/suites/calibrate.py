"""Measures what `attention=adaptive` chooses by: each implementation of each mechanism on this device.

Decoding is not measured, for there is nothing to choose: softmax mechanisms read their cache by one and the same code,
and linear attention's default takes a single step of its recurrence, which is the least there is to do.
Every mechanism of the registry that has something to choose is in it, at its default parameters.
"""

import functools
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Cell, Row
from eval.rows.cell import Mode
from eval.suites import cells
from eval.suites.suite import Figure, Suite
from zoo.attention import VariantConfig, mechanism, mechanism_names
from zoo.attention.calibration import (
    REMEDY,
    Calibration,
    Measurement,
    Phase,
    Provenance,
    calibration_path,
    load_calibration,
    write_calibration,
)
from zoo.attention.catalog import attention_names, variant
from zoo.attention.choice import Member, has_a_choice
from zoo.attention.mechanism import GROUPING
from zoo.runtime.backend import default_dtype, dtype_name

NAME = "calibrate"
# In between, times are interpolated. What works in windows, blocks or tiles pads to 64 or 128 tokens, so times jump
# soon after 64 and after 128: power laws on either side of a jump are met, one across it is not. How times grow with
# the batch has no jumps, so two lengths tell.
SETTINGS = ((1, 32), (1, 72), (1, 104), (1, 128), (1, 160), (1, 256), (1, 1024), (4, 72), (4, 256))
# Where the baseline is timed a second time: whether the machine was quiet is told once for each phase.
CONTROLLED = (1, 256)
# Medians that tell implementations apart, in minutes for all together; two builds of five rounds each.
ROUNDS = 10
# Of what is calibrated.
PHASES: Mapping[Mode, Phase] = {mode: cells.PHASES[mode] for mode in ("forward", "forward_backward")}
# Four heads of 64, as the tiny models have; other head counts are told apart by batch size times heads.
NUM_HEADS, HEAD_DIM = 4, 64
# Tokens of a batch up to which an implementation is timed. At these each is several times slower than the others
# already, and falls further behind: they dispatch or gather once a token, or keep a state for each.
MOST_TOKENS = {"gather_slices": 104, "gather_index": 104, "recurrent": 104, "cumsum": 104}
_NOT_PARAMETERS = {"name", "mechanism", "implementation", *GROUPING}

logger = logging.getLogger(__name__)


def choosable_mechanisms() -> tuple[str, ...]:
    """Mechanisms among whose implementations there is something to choose."""
    return tuple(name for name in mechanism_names() if has_a_choice(mechanism(name)))


def member_of(name: str) -> Member:
    """A mechanism with its default parameters."""
    declared = mechanism(name)
    return Member(declared=declared, parameters=declared.config())


def op_cell(mapping: Mapping[str, Any], *, suite: str, mode: Mode, batch_size: int, length: int) -> Cell:
    """The cell of a variant's op, in the device's own dtype."""
    return Cell(
        suite=suite,
        group=f"{mode} B={batch_size} L={length}",
        builder="op",
        variant=str(mapping["name"]),
        attention=json.dumps(dict(mapping)),
        level="op",
        mode=mode,
        batch_size=batch_size,
        length=length,
        num_heads=NUM_HEADS,
        head_dim=HEAD_DIM,
        dtype=dtype_name(default_dtype()),
    )


def implementation_cells(name: str, *, batch_size: int, length: int, **place: Any) -> list[Cell]:
    """A cell for each implementation of a mechanism that is worth timing at this size."""
    member, tokens = member_of(name), batch_size * length
    found = []
    for implementation in member.implementations(causal=True):
        if tokens <= MOST_TOKENS.get(implementation, tokens):
            series = _series_name(name, implementation)
            chosen = VariantConfig(
                name=series, mechanism=name, implementation=implementation, parameters=member.parameters
            )
            found.append(op_cell(chosen.as_mapping(), batch_size=batch_size, length=length, **place))
    return found


@functools.cache
def _series_name(name: str, implementation: str) -> str:
    """The shipped variant that this is, or the one of the mechanism's that it differs from by its implementation."""
    default = mechanism(name).config()
    shipped = [variant(each) for each in attention_names()]
    alike = [
        each
        for each in shipped
        if isinstance(each, VariantConfig) and each.mechanism == name and each.parameters == default
    ]
    exact = [each.name for each in alike if each.implementation == implementation]
    return exact[0] if exact else f"{alike[0].name if alike else name}(implementation={implementation})"


def with_softmax_baseline(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells of a group, the first of softmax attention being the baseline."""
    baseline = next(cell for cell in cells if cell.attention_mapping["mechanism"] == "softmax")
    return tuple(cell.model_copy(update={"role": "baseline"}) if cell is baseline else cell for cell in cells)


def plan() -> list[Group]:
    """What this device's calibration lacks: all of it if there is none that holds, nothing if it is complete."""
    present = load_calibration(None)
    known = set() if present is None else {_setting(each) for each in present.measurements}
    groups = []
    for mode, (batch_size, length) in itertools.product(PHASES, SETTINGS):
        place: dict[str, Any] = {"suite": NAME, "mode": mode, "batch_size": batch_size, "length": length}
        found = [cell for name in choosable_mechanisms() for cell in implementation_cells(name, **place)]
        if any(_cell_setting(cell) not in known for cell in found):
            control = (batch_size, length) == CONTROLLED
            groups.append(Group(cells=with_softmax_baseline(found), control=control, max_rounds=ROUNDS))
    return groups


def conclude(rows: Sequence[Row]) -> dict[str, Any]:
    """Writes the calibration of this device from rows, beside what it holds already; nothing if there are none.

    Returns:
        `calibration`, where it lies, and `up_to_date`, whether there was nothing to add.
    """
    told = {"calibration": str(calibration_path())}
    timed = [row for row in _without_controls(rows) if row.status == "ok" and row.timing is not None]
    if not timed:
        return {**told, "up_to_date": True}
    new = [_measurement(row) for row in timed]
    settings = {_setting(each) for each in new}
    present = load_calibration(None)
    kept = [] if present is None else [each for each in present.measurements if _setting(each) not in settings]
    path = calibration_path()
    write_calibration(path, Calibration(provenance=_provenance(timed), measurements=(*kept, *new)))
    logger.info("calibration of %d times written to %s", len(kept) + len(new), path)
    return {**told, "up_to_date": False}


def _without_controls(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.cell is not None and row.cell.role != "control"]


def _provenance(rows: Sequence[Row]) -> Provenance:
    newest = max(rows, key=lambda row: row.recorded_at)
    fields = ("device", "backend", "blas", "native", "mlx", "attention_zoo", "commit")
    machine = {name: getattr(newest.machine, name) for name in fields}
    return Provenance(**machine, recorded_at=newest.recorded_at)


def _measurement(row: Row) -> Measurement:
    assert row.cell is not None
    assert row.timing is not None
    mapping = row.cell.attention_mapping
    return Measurement(
        mechanism=mapping["mechanism"],
        parameters={key: value for key, value in mapping.items() if key not in _NOT_PARAMETERS},
        implementation=mapping["implementation"],
        phase=PHASES[row.cell.mode],
        batch_size=row.cell.batch_size,
        num_heads=row.cell.num_heads,
        length=row.cell.length,
        median_seconds=row.timing.median_seconds,
    )


def _setting(each: Measurement) -> tuple[object, ...]:
    return each.mechanism, each.implementation, each.phase, each.batch_size, each.num_heads, each.length


def _cell_setting(cell: Cell) -> tuple[object, ...]:
    mapping = cell.attention_mapping
    name = (mapping["mechanism"], mapping["implementation"], PHASES[cell.mode])
    return *name, cell.batch_size, cell.num_heads, cell.length


def summary(rows: Sequence[Row]) -> list[Figure]:
    """How many times were measured; then the fastest implementation of each setting."""
    rows = _without_controls(rows)
    head = {"measured": len(rows), "command": REMEDY}
    fastest: dict[tuple[object, ...], Measurement] = {}
    for row in rows:
        if row.timing is None:
            continue
        each = _measurement(row)
        setting = (each.mechanism, each.phase, each.batch_size, each.length)
        if setting not in fastest or each.median_seconds < fastest[setting].median_seconds:
            fastest[setting] = each
    shown = ("mechanism", "phase", "batch_size", "length")
    found = [
        {name: getattr(each, name) for name in shown}
        | {"fastest": each.implementation, "median_seconds": each.median_seconds}
        for each in fastest.values()
    ]
    return [head, *found]


SUITE = Suite(
    name=NAME,
    purpose="what attention=adaptive chooses by: every implementation on this device, kept in the user's cache",
    plan=plan,
    summary=summary,
    conclude=conclude,
)
