"""Cells of every implementation of a mechanism, at its default parameters; for the suites about choosing among them."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from eval.rows import Cell
from eval.rows.cell import Mode
from eval.suites import groups
from zoo.attention import VariantConfig, mechanism, mechanism_names
from zoo.attention.calibration import Phase
from zoo.attention.catalog import attention_names, variant
from zoo.attention.choice import Member, has_a_choice
from zoo.runtime.backend import default_dtype, dtype_name

# Of what is calibrated.
PHASES: Mapping[Mode, Phase] = {mode: groups.PHASES[mode] for mode in ("forward", "forward_backward")}
# Four heads of 64, as the tiny models have; other head counts are told apart by batch size times heads.
NUM_HEADS, HEAD_DIM = 4, 64
# Tokens of a batch up to which an implementation is timed. At these each is several times slower than the others
# already, and falls further behind: they dispatch or gather once a token, or keep a state for each.
MOST_TOKENS = {"gather_slices": 104, "gather_index": 104, "recurrent": 104, "cumsum": 104}


def choosable_mechanisms() -> tuple[str, ...]:
    """Mechanisms among whose implementations there is something to choose."""
    return tuple(name for name in mechanism_names() if has_a_choice(mechanism(name)))


def member_of(name: str) -> Member:
    """A mechanism with its default parameters."""
    declared = mechanism(name)
    return Member(declared=declared, parameters=declared.config())


def implementation_cells(
    name: str, *, suite: str, group: str, mode: Mode, batch_size: int, length: int
) -> dict[str, Cell]:
    """A cell for each implementation of a mechanism that is worth timing at this size, by implementation."""
    member = member_of(name)
    worthwhile = [
        each
        for each in member.implementations(causal=True)
        if batch_size * length <= MOST_TOKENS.get(each, batch_size * length)
    ]
    cells = {}
    for implementation in worthwhile:
        series = _series_name(name, implementation)
        chosen = VariantConfig(name=series, mechanism=name, implementation=implementation, parameters=member.parameters)
        cells[implementation] = op_cell(
            chosen.as_mapping(), suite=suite, group=group, mode=mode, batch_size=batch_size, length=length
        )
    return cells


def op_cell(mapping: Mapping[str, Any], *, suite: str, group: str, mode: Mode, batch_size: int, length: int) -> Cell:
    """The cell of a variant's op, in the device's own dtype."""
    return Cell(
        suite=suite,
        group=group,
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
    if exact:
        return exact[0]
    return f"{alike[0].name if alike else name}(implementation={implementation})"
