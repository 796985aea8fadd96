"""Measures what `attention=adaptive` chooses by: each implementation of each mechanism on this device.

Decoding is not measured, for there is nothing to choose: softmax mechanisms read their cache by one and the same code,
and linear attention's default takes a single step of its recurrence, which is the least there is to do.
Every mechanism of the registry that has something to choose is in it, at its default parameters.
"""

import functools
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import grouped, measured
from eval.rows import Cell, Row
from eval.rows.cell import Mode
from eval.suites import Figure, Suite, series
from zoo.attention import VariantConfig, calibration, mechanism, mechanism_names
from zoo.attention.calibration import Measurement, Phase, Provenance
from zoo.attention.catalog import attention_names, variant
from zoo.attention.choice import Member, has_a_choice
from zoo.attention.mechanism import GROUPING
from zoo.runtime.backend import default_dtype, dtype_name

NAME = "calibrate"
Settings = Sequence[tuple[int, int]]
# Batch size and length. In between, times are interpolated. What works in windows, blocks or tiles pads to 64 or 128
# tokens, so times jump soon after 64 and after 128: power laws on either side of a jump are met, one across it is not.
# How times grow with the batch has no jumps, so two lengths tell.
SETTINGS = ((1, 32), (1, 72), (1, 104), (1, 128), (1, 160), (1, 256), (1, 1024), (4, 72), (4, 256))
CONTROLLED = (1, 256)
# Medians that tell implementations apart, in minutes for all together; two builds of five rounds each.
ROUNDS = 10
# Of what is calibrated.
PHASES: Mapping[Mode, Phase] = {mode: series.PHASES[mode] for mode in ("forward", "forward_backward")}
# Four heads of 64, as the tiny models have; other head counts are told apart by batch size times heads.
NUM_HEADS, HEAD_DIM = 4, 64
# Tokens of a batch up to which an implementation is timed. At these each is several times slower than the others
# already, and falls further behind: they dispatch or gather once a token, or keep a state for each.
MOST_TOKENS = {"gather_slices": 104, "gather_index": 104, "recurrent": 104, "cumsum": 104}
_NOT_PARAMETERS = {"name", "mechanism", "implementation", *GROUPING}
# What is measured once: of a `Measurement`, all but the mechanism's own parameters and the time.
_SETTING = ("mechanism", "implementation", "phase", "batch_size", "num_heads", "length")

logger = logging.getLogger(__name__)


def choosable() -> list[Member]:
    """Mechanisms among whose implementations there is something to choose, with their default parameters."""
    declared = map(mechanism, mechanism_names())
    return [Member(declared=each, parameters=each.config()) for each in declared if has_a_choice(each)]


def op_cell(mapping: Mapping[str, Any], **place: Any) -> Cell:
    """The cell of a variant's op, in the device's own dtype, at a suite, a mode, a batch size and a length."""
    own = {"variant": mapping["name"], "attention": json.dumps(dict(mapping)), "dtype": dtype_name(default_dtype())}
    size = {"num_heads": NUM_HEADS, "head_dim": HEAD_DIM}
    group = f"{place['mode']} B={place['batch_size']} L={place['length']}"
    return Cell.model_validate({**place, **own, **size, "group": group, "builder": "op", "level": "op"})


def implementation_cells(member: Member, **place: Any) -> list[Cell]:
    """A cell for each implementation of a mechanism that is worth timing at this size."""
    name, tokens = member.declared.name, place["batch_size"] * place["length"]
    chosen = [
        VariantConfig(name=_series_name(name, each), mechanism=name, implementation=each, parameters=member.parameters)
        for each in member.implementations(causal=True)
        if tokens <= MOST_TOKENS.get(each, tokens)
    ]
    return [op_cell(each.as_mapping(), **place) for each in chosen]


@functools.cache
def _series_name(name: str, implementation: str) -> str:
    """The shipped variant that this is, or the one of the mechanism's that it differs from by its implementation."""
    own = (name, mechanism(name).config())
    shipped = [each for each in map(variant, attention_names()) if isinstance(each, VariantConfig)]
    alike = {each.name: each.implementation for each in shipped if (each.mechanism, each.parameters) == own}
    exact = (each for each, computed in alike.items() if computed == implementation)
    return next(exact, f"{next(iter(alike), name)}(implementation={implementation})")


def groups_at(
    suite: str, settings: Settings, cells_at: Callable[..., list[Cell]], *, controlled: tuple[int, int], rounds: int
) -> list[Group]:
    """A group for each phase and setting, of the cells that `cells_at` makes of each mechanism there.

    The first of softmax attention is the baseline. Where it is controlled it is timed a second time, for whether the
    machine was quiet is told once for each phase.
    """
    groups = []
    for mode, (batch_size, length) in itertools.product(PHASES, settings):
        place = {"suite": suite, "mode": mode, "batch_size": batch_size, "length": length}
        cells = [cell for member in choosable() for cell in cells_at(member, **place)]
        first = next(index for index, cell in enumerate(cells) if cell.attention_mapping["mechanism"] == "softmax")
        cells[first] = cells[first].model_copy(update={"role": "baseline"})
        control = (batch_size, length) == controlled
        groups.append(Group(cells=tuple(cells), control=control, max_rounds=rounds))
    return groups


def plan() -> list[Group]:
    """What this device's calibration lacks: all of it if there is none that holds, nothing if it is complete."""
    known = _known()
    groups = groups_at(NAME, SETTINGS, implementation_cells, controlled=CONTROLLED, rounds=ROUNDS)
    return [group for group in groups if any(_setting(cell) not in known for cell in group.cells)]


def _known() -> dict[tuple[Any, ...], Measurement]:
    """What this device's calibration holds, by setting."""
    found = calibration.load_calibration(None)
    held = () if found is None else found.measurements
    return {tuple(getattr(each, name) for name in _SETTING): each for each in held}


def _setting(cell: Cell) -> tuple[Any, ...]:
    how = (cell.attention_mapping[name] for name in ("mechanism", "implementation"))
    return (*how, PHASES[cell.mode], cell.batch_size, cell.num_heads, cell.length)


def conclude(rows: Sequence[Row]) -> dict[str, Any]:
    """Writes the calibration of this device from rows, beside what it holds already; nothing if there are none.

    Returns:
        `calibration`, where it lies, and `up_to_date`, whether there was nothing to add.
    """
    path, known = calibration.calibration_path(), _known()
    timed = [each for each in measured(rows, timed=True) if each.row.status == "ok"]
    for each in timed:
        setting, mapping = _setting(each.cell), each.cell.attention_mapping
        own = {key: value for key, value in mapping.items() if key not in _NOT_PARAMETERS}
        asked = dict(zip(_SETTING, setting, strict=True))
        known[setting] = Measurement(**asked, parameters=own, median_seconds=each.times.median_seconds)
    if timed:
        newest = max((each.row for each in timed), key=lambda row: row.recorded_at)
        machine = {name: getattr(newest.machine, name) for name in (*calibration.SAME, "commit")}
        provenance = Provenance(**machine, recorded_at=newest.recorded_at)
        calibration.write_calibration(
            path, calibration.Calibration(provenance=provenance, measurements=tuple(known.values()))
        )
        logger.info("calibration of %d times written to %s", len(known), path)
    return {"calibration": str(path), "up_to_date": not timed}


def summary(rows: Sequence[Row]) -> list[Figure]:
    """How many times were measured; then the fastest implementation of each setting."""
    figures: list[Figure] = [{"measured": len(measured(rows)), "command": calibration.REMEDY}]
    settings = grouped(
        measured(rows, timed=True),
        lambda each: (each.mechanism, PHASES[each.cell.mode], each.cell.batch_size, each.cell.length),
    )
    for (name, phase, batch_size, length), rivals in settings.items():
        best = min(rivals, key=lambda each: each.times.median_seconds)
        setting = {"mechanism": name, "phase": phase, "batch_size": batch_size, "length": length}
        fastest = best.cell.attention_mapping["implementation"]
        figures.append({**setting, "fastest": fastest, "median_seconds": best.times.median_seconds})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary, conclude=conclude)
