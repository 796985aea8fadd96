"""How a training step scales over processes: measured at 1, 2 and 4 on this machine, and said of others by a model.

A step of B rows by P processes on a machine of C cores, m = min(P, C) of which work at a time, takes

    T(P, B) = (fixed + B/P row) (1 + crowding (m - 1)) P/m + 2 X(P, G)
    X(P, S) = 2 (P - 1) (P/m latency + S/P seconds_per_byte)

seconds: each process's own work, longer where they share a memory (`crowding`) and where there are more of them than
cores; and two exchanges by the ring's two turns, of G bytes of gradients and of a few sums beside the loss, of which
only the latency counts. Nothing of an exchange is hidden behind the backward pass: on a CPU, MLX computes the gradients
before it sends them. The five constants are fitted to the logarithms of the medians, but for the largest batch, which
is held out. Intervals are those of rounds drawn anew.

On several machines there is no crowding and P = m, and a link's own latency and seconds per byte take the place of
those of this machine's loopback.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.bench import Group
from eval.query import Measured, grouped, measured
from eval.rows import Cell, Row
from eval.rows.cell import Mode
from eval.suites import Figure, Suite, statuses
from eval.suites.series import cells_of, model_fields, series_named
from eval.workloads.model import model_setting
from eval.workloads.processes import BUILDER
from zoo.models import build_model
from zoo.runtime.threads import usable_cores

NAME = "scaling"
PROCESSES = (1, 2, 4)
# Rows of a batch; the last is held out.
BATCHES = (4, 8, 16, 32)
# Float32 numbers: latency alone, about a tiny model's gradients, and bandwidth alone.
LENGTHS = (2**8, 2**18, 2**22)
# Bytes a second, each way, and seconds until the first arrives; by its name, and as TCP and the makers' own libraries
# are commonly measured, not by us.
LINKS: Mapping[str, tuple[float, float]] = {
    "Ethernet, 1 Gbit/s": (0.118e9, 100e-6),
    "Ethernet, 10 Gbit/s": (1.18e9, 50e-6),
    "Thunderbolt 5, 80 Gbit/s": (8e9, 10e-6),
    "NVLink 4, 450 GB/s": (400e9, 5e-6),
}
MACHINES = (2, 4, 8)
_NUM_RESAMPLES, _TAILS = 100, (0.025, 0.975)


def plan(*, models: Sequence[str] = ("gpt_tiny",), lengths: Sequence[int] = (256,)) -> list[Group]:
    """One group for each model, length and batch, and one of exchanges alone."""
    found = [
        Group(cells=tuple(_step_cells(model, length, rows)))
        for model in models
        for length in lengths
        for rows in BATCHES
    ]
    first, *exchanges = [_cell("all_sum", "exchange", each, length) for length in LENGTHS for each in PROCESSES[1:]]
    baseline = first.model_copy(update={"role": "baseline"})
    return [*found, Group(cells=(baseline, *exchanges), control=False)]


def _step_cells(model: str, length: int, rows: int) -> list[Cell]:
    group, fields = f"{model} B={rows} L={length}", {**model_fields(model), "batch_size": rows}
    alone = _cell("step", group, 1, length, **fields)
    threads = usable_cores()
    fair = _cell("step", group, 1, length, threads=threads, **fields)
    several = [_cell("step", group, each, length, **fields) for each in PROCESSES[1:]]
    return [alone.model_copy(update={"role": "baseline"}), *([fair] if threads > 1 else []), *several]


def _cell(mode: Mode, group: str, processes: int, length: int, *, threads: int = 1, **fields: object) -> Cell:
    """A cell of so many processes, with a thread each unless one has more."""
    (cell,) = cells_of(
        [series_named("mha")], suite=NAME, group=group, level=BUILDER, mode=mode, length=length, **fields
    )
    name = f"{processes} process{'es' if processes > 1 else ''}" + (f", {threads} threads" if threads > 1 else "")
    name += f", {4 * length} bytes" if mode == "all_sum" else ""
    detail = json.dumps({"processes": processes, "threads": threads})
    changes = {"variant": name, "detail": detail, "role": "candidate"}
    return cell.model_copy(update=changes if mode == "step" else {**changes, "attention": None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """The constants of the model of a step's time; seconds but for `crowding`, a share."""

    fixed: float
    row: float
    crowding: float
    latency: float
    per_byte: float

    def exchange(self, processes: int, size: int, cores: int) -> float:
        """Seconds of one sum over processes of so many bytes."""
        waiting = processes / min(processes, cores)
        return 2 * (processes - 1) * (waiting * self.latency + size / processes * self.per_byte)

    def step(self, processes: int, rows: int, size: int, cores: int) -> float:
        """Seconds of a step of a batch of so many rows, with so many bytes of gradients."""
        working = min(processes, cores)
        own = (self.fixed + rows / processes * self.row) * (1 + self.crowding * (working - 1)) * processes / working
        return own + self.exchange(processes, size, cores) + self.exchange(processes, 0, cores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Point:
    """What was measured of one cell, and what the model needs to predict it."""

    found: Measured
    cores: int
    size: int

    @property
    def processes(self) -> int:
        return int(json.loads(self.found.cell.detail)["processes"])

    @property
    def held_out(self) -> bool:
        return self.found.cell.mode == "step" and self.found.cell.batch_size == BATCHES[-1]

    def predicted(self, by: Scaling) -> float:
        cell = self.found.cell
        if cell.mode == "all_sum":
            return by.exchange(self.processes, self.size, self.cores)
        return by.step(self.processes, cell.batch_size, self.size, self.cores)


def _points(rows: Sequence[Row]) -> list[_Point]:
    timed = measured(rows, suites=[NAME], timed=True)
    single = [each for each in timed if json.loads(each.cell.detail)["threads"] == 1]
    return [_Point(found=each, cores=each.row.machine.cores, size=_bytes_sent(each.cell)) for each in single]


def _bytes_sent(cell: Cell) -> int:
    """Of what is summed over the processes."""
    return 4 * (cell.length if cell.mode == "all_sum" else _num_parameters(cell.model_copy(update={"detail": ""})))


@functools.cache
def _num_parameters(cell: Cell) -> int:
    return build_model(model_setting(cell).config).num_parameters()


def fitted(points: Sequence[_Point], seconds: Sequence[float]) -> Scaling:
    """The constants by which the model is nearest to so many seconds of these points, by least squares of logarithms.

    Args:
        points: At least as many as there are constants, of 1 and of several processes, and of exchanges.
        seconds: Of each.
    """
    from scipy.optimize import least_squares

    target = np.log(seconds)

    def scaling(logarithms: NDArray[np.float64]) -> Scaling:
        values = np.exp(logarithms)
        names = [field.name for field in dataclasses.fields(Scaling)]
        return Scaling(**dict(zip(names, map(float, values), strict=True)))

    def residuals(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        by = scaling(logarithms)
        return np.log([each.predicted(by) for each in points]) - target

    shortest = min(seconds)
    first = np.log([shortest, shortest, 0.1, 1e-4, 1e-9])
    # A constant that nothing needs goes towards 0, whose logarithm has no end.
    return scaling(least_squares(residuals, first, bounds=(first - 25, first + 25)).x)


def _resampled(points: Sequence[_Point]) -> list[Scaling]:
    """Fits of rounds drawn anew, the same ones for cells that were timed against each other."""
    generator = np.random.default_rng(0)
    groups = list(grouped(range(len(points)), lambda index: points[index].found.rounds).values())
    fits = []
    for _ in range(_NUM_RESAMPLES):
        seconds = np.zeros(len(points))
        for indices in groups:
            number = min(len(points[index].found.samples) for index in indices)
            rounds = generator.integers(0, number, number)
            for index in indices:
                seconds[index] = np.median(np.asarray(points[index].found.samples)[rounds])
        fits.append(fitted(points, seconds.tolist()))
    return fits


def summary(rows: Sequence[Row]) -> list[Figure]:
    """The constants of each model and length, measured beside predicted seconds, and what other links would make."""
    figures, points = [statuses(rows)], _points(rows)
    exchanges = [each for each in points if each.found.cell.mode == "all_sum"]
    steps = [each for each in points if each.found.cell.mode == "step"]
    for (model, length), own in grouped(steps, lambda each: (each.found.cell.model, each.found.cell.length)).items():
        used = [*exchanges, *(each for each in own if not each.held_out)]
        if not exchanges or len({(each.processes, each.found.cell.batch_size) for each in used}) < len(PROCESSES) + 2:
            continue
        by, others = fitted(used, [each.found.median for each in used]), _resampled(used)
        named = {"model": model, "length": length}
        for field in dataclasses.fields(Scaling):
            values = [getattr(each, field.name) for each in others]
            figures.append(
                {"figure": "constant", "name": field.name, **named, **_between(getattr(by, field.name), values)}
            )
        for each in (*own, *exchanges):
            values = [each.predicted(other) for other in others]
            told = _between(each.predicted(by), values)
            seen = {"group": each.found.cell.group, "variant": each.found.cell.variant, "held_out": each.held_out}
            figures.append({"figure": "seconds", **seen, "measured": each.found.median, **told})
        figures += [{**each, **named} for each in _elsewhere(by, others, own[0].size)]
    return figures


def _between(value: float, values: Sequence[float]) -> Figure:
    low, high = np.quantile(values, _TAILS)
    return {"value": value, "low": float(low), "high": float(high)}


def _elsewhere(by: Scaling, others: Sequence[Scaling], size: int) -> list[Figure]:
    """How many times as fast several machines like this one are, one process each, by the link between them."""

    def speed(scaling: Scaling, link: tuple[float, float], machines: int) -> float:
        bandwidth, latency = link
        linked = dataclasses.replace(scaling, crowding=0.0, latency=latency, per_byte=1 / bandwidth)
        rows = BATCHES[-1]
        return linked.step(1, rows, size, 1) / linked.step(machines, rows, size, machines)

    return [
        {
            "figure": f"times as fast with a batch of {BATCHES[-1]} rows",
            "link": name,
            "machines": machines,
            **_between(speed(by, link, machines), [speed(each, link, machines) for each in others]),
        }
        for name, link in LINKS.items()
        for machines in MACHINES
    ]


SUITE = Suite(name=NAME, plan=plan, summary=summary)
