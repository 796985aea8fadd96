"""Calibrations with planted times."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.attention import mechanism
from zoo.attention.calibration import (
    Calibration,
    Measurement,
    Phase,
    Provenance,
    calibration_path,
    current_provenance,
    write_calibration,
)
from zoo.attention.choice import Member

NUM_HEADS = 4


def member(name: str, **parameters: Any) -> Member:
    """A configured mechanism."""
    declared = mechanism(name)
    return Member(declared=declared, parameters=declared.config(**parameters))


def times(
    name: str, seconds: Mapping[str, Mapping[int, float]], *, phase: Phase = "training", batch_size: int = 1
) -> list[Measurement]:
    """Measurements of a mechanism: implementation -> length -> seconds."""
    return [
        Measurement(
            mechanism=name,
            parameters=member(name).own_parameters,
            implementation=implementation,
            phase=phase,
            batch_size=batch_size,
            num_heads=NUM_HEADS,
            length=length,
            median_seconds=value,
        )
        for implementation, by_length in seconds.items()
        for length, value in by_length.items()
    ]


def provenance() -> Provenance:
    """This process's, of some commit."""
    return current_provenance(commit="0123abc", recorded_at="2026-01-02T03:04:05+00:00")


def calibration(*measurements: list[Measurement]) -> Calibration:
    """This device's."""
    return Calibration(provenance=provenance(), measurements=tuple(each for part in measurements for each in part))


def write_own(*measurements: list[Measurement]) -> Path:
    """Writes this device's own calibration; where, the environment says."""
    path = calibration_path()
    write_calibration(path, calibration(*measurements))
    return path
