"""How long each implementation takes on this device, as measured: the file, its provenance, and times in between.

Between two measured lengths, seconds are a straight line in log-log, where a power law is one; between two measured
numbers of rows too, and of these fewer lengths need to be measured. A row is one head of one sequence, so that models
with other heads than those measured find their place. Below the shortest length dispatch dominates and times stay;
beyond the longest they go on as before it, or in proportion to the length if that is more.

A calibration made by another device, back end, BLAS or version is not this one's: it is ignored with a warning.
"""

import dataclasses
import functools
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from zoo.config import MOST, UserError, require, require_within, to_mapping
from zoo.config.errors import shortened
from zoo.config.files import read_json_as, replace_file, typed_path
from zoo.runtime import blas
from zoo.runtime.backend import backend
from zoo.runtime.cache import default_cache_dir
from zoo.runtime.native import instruction_set
from zoo.runtime.versions import device_label, package_version

Phase = Literal["forward", "training", "decode"]
REMEDY = "python scripts/benchmark.py suite=calibrate"
# What a calibration shares with the machine that may use it. The commit is no part: few commits change a speed, and
# those that do come with a version.
SAME = ("device", "backend", "blas", "native", "mlx", "attention_zoo")

# No call is faster than a clock tells, or was waited for over a year.
POSSIBLE_SECONDS = (1e-9, 1e8)
# Of e: far beyond every time, and still a number when it is multiplied by rows and lengths.
_MOST_EXPONENT = 300.0

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where and when a calibration was measured.

    Attributes:
        device: The device by its own name.
        backend: cpu, metal or cuda.
        blas: Name of the BLAS.
        native: Instruction set of the compiled kernels, or None without them.
        mlx: Version of MLX.
        attention_zoo: Version of this project, or None where it is not installed.
        commit: Of the checkout, or None outside one.
        recorded_at: UTC, ISO 8601.
    """

    device: str
    backend: str
    blas: str
    native: str | None = None
    mlx: str | None
    attention_zoo: str | None
    commit: str | None
    recorded_at: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One time.

    Attributes:
        mechanism: Registry name.
        parameters: The mechanism's own, head grouping left out.
        implementation: How it was computed.
        phase: `forward` (a whole sequence), `training` (that and its gradients) or `decode` (one token).
        batch_size: B.
        num_heads: N.
        length: L, or the tokens in the cache.
        median_seconds: Of one call.
    """

    mechanism: str
    parameters: Mapping[str, Any]
    implementation: str
    phase: Phase
    batch_size: int
    num_heads: int
    length: int
    median_seconds: float

    def __post_init__(self) -> None:
        require_within(self, 1, MOST, "batch_size", "num_heads", "length")
        require_within(self, *POSSIBLE_SECONDS, "median_seconds")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What is known of a device's speed.

    Attributes:
        provenance: Where it was measured.
        measurements: At least one.
    """

    provenance: Provenance
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        require(bool(self.measurements), "measurements", "not be empty", [])

    def seconds(
        self,
        *,
        mechanism: str,
        parameters: Mapping[str, Any],
        implementation: str,
        phase: Phase,
        rows: int,
        length: int,
    ) -> float | None:
        """Time of one call.

        Args:
            mechanism: Registry name.
            parameters: The mechanism's own; where these were not measured, those that were stand for them.
            implementation: How it is computed.
            phase: Which call.
            rows: Batch size times query heads.
            length: L, or the tokens in the cache.

        Returns:
            Seconds, or None if this implementation was not measured in this phase.
        """
        series = self._series.get((mechanism, implementation, phase))
        if series is None:
            return None
        by_rows = series.get(_key(parameters)) or series[min(series)]
        # Times jump where one more block begins, but how they grow with the rows hardly changes: the rows measured at
        # most lengths give the shape, the others a factor to it.
        shape = max(by_rows.values(), key=len)
        factors = {
            each: [(measured, seconds / _at(shape, measured)) for measured, seconds in points]
            for each, points in by_rows.items()
        }
        able = [(each, _at(shape, length) * _within(points, length)) for each, points in factors.items()]
        return _between_rows(able, rows)

    @functools.cached_property
    def _series(self) -> dict[tuple[str, str, str], dict[str, dict[int, list[tuple[int, float]]]]]:
        """(mechanism, implementation, phase) -> parameters -> rows -> (length, seconds), ascending."""
        found: dict[tuple[str, str, str], dict[str, dict[int, list[tuple[int, float]]]]] = {}
        # One time for each setting: the last.
        settings = {_setting(each): each.median_seconds for each in self.measurements}
        for (name, parameters, rows, length), seconds in sorted(settings.items()):
            points = found.setdefault(name, {}).setdefault(parameters, {}).setdefault(rows, [])
            points.append((length, seconds))
        return found


def _setting(each: Measurement) -> tuple[tuple[str, str, str], str, int, int]:
    name = (each.mechanism, each.implementation, str(each.phase))
    return name, _key(each.parameters), each.batch_size * each.num_heads, each.length


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(dict(parameters), sort_keys=True)


def _at(points: Sequence[tuple[int, float]], length: int) -> float:
    """Seconds at a length, from (length, seconds) in ascending order."""
    if length <= points[0][0]:
        return points[0][1]
    if len(points) == 1:
        return points[0][1] * length / points[0][0]
    upper = next((index for index, (measured, _) in enumerate(points) if measured >= length), None)
    if upper is not None:
        return _on_line(points[upper - 1], points[upper], length)
    # Work is at least linear in the length; noise between the last two must not say otherwise.
    last = points[-1]
    return max(_on_line(points[-2], last, length), last[1] * length / last[0])


def _within(points: Sequence[tuple[int, float]], length: int) -> float:
    """The value at a length, which outside those measured stays."""
    return _at(points, min(length, points[-1][0]))


def _on_line(first: tuple[int, float], second: tuple[int, float], x: int) -> float:
    """The power law through two points."""
    slope = math.log(second[1] / first[1]) / math.log(second[0] / first[0])
    return math.exp(min(math.log(first[1]) + slope * math.log(x / first[0]), _MOST_EXPONENT))


def _between_rows(points: Sequence[tuple[int, float]], rows: int) -> float:
    """Seconds for a number of rows; outside those measured, in proportion to them, which is alike for all."""
    lower = [point for point in points if point[0] <= rows]
    upper = [point for point in points if point[0] >= rows]
    if lower and upper:
        return lower[-1][1] if lower[-1][0] == rows else _on_line(lower[-1], upper[0], rows)
    nearest = (lower or upper[::-1])[-1]
    return nearest[1] * rows / nearest[0]


def current_provenance(*, commit: str | None, recorded_at: str) -> Provenance:
    """This process's device and versions."""
    return Provenance(
        device=device_label(),
        backend=backend(),
        blas=blas.active().name,
        native=instruction_set(),
        mlx=package_version("mlx"),
        attention_zoo=package_version("attention-zoo"),
        commit=commit,
        recorded_at=recorded_at,
    )


def calibration_path() -> Path:
    """This device's own calibration in the user's cache; there may be none."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_label().lower()).strip("-")
    return default_cache_dir() / "calibration" / f"{slug}.json"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a file that `read_calibration` reads; whoever reads meanwhile sees the old one.

    Raises:
        UserError: If it cannot be written.
    """
    plain = {
        "provenance": to_mapping(calibration.provenance),
        "measurements": [to_mapping(each) for each in calibration.measurements],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        reason = error.strerror
        raise UserError(f"calibration must be a file that can be written; got {str(path)!r} ({reason})") from None


def read_calibration(path: Path) -> Calibration:
    """Reads a file, whatever device it comes from.

    Raises:
        UserError: If it cannot be read, or is no calibration; in one line.
    """
    try:
        return read_json_as(Calibration, path, what="calibration")
    except UserError as error:
        raise UserError(f"attention.calibration must be a calibration; got {str(path)!r} ({error})") from None


def differences(provenance: Provenance) -> list[str]:
    """In what a calibration's device and versions differ from this process's, in words; empty if they are the same."""
    here = current_provenance(commit=None, recorded_at="")
    pairs = [(name, getattr(provenance, name), getattr(here, name)) for name in SAME]
    return [f"{name} was {shortened(then)} and is {now!r}" for name, then, now in pairs if then != now]


def load_calibration(named: str | None) -> Calibration | None:
    """The calibration to choose by.

    Args:
        named: A file, which is taken as it is, so that a choice can be kept on other machines; None for this
            device's own.

    Returns:
        The calibration, or None if this device has none that holds; why not is logged once.

    Raises:
        UserError: If the named file is no calibration.
    """
    if named is not None:
        return read_calibration(typed_path(named, what="attention.calibration"))
    path = calibration_path()
    if not path.exists():
        return None
    return _own_calibration(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _own_calibration(path: Path, modified_ns: int) -> Calibration | None:
    """Cached, so that a model with many layers reads, and complains, once."""
    try:
        calibration = read_calibration(path)
    except UserError as error:
        logger.warning("%s; ignored, measure anew with `%s`", error, REMEDY)
        return None
    changed = differences(calibration.provenance)
    if changed:
        logger.warning("%s is ignored, since %s; measure anew with `%s`", path, "; ".join(changed), REMEDY)
        return None
    return calibration
