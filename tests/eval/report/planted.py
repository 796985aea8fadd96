"""Planted rows of every suite and kind, as a whole run leaves them: a report of everything, without a clock."""

import random

from eval.replications import attnbench
from eval.rows import Cell, CurvePoint, Memory, Row
from eval.suites import SuiteRequest
from tests.eval.rows_factory import (
    attention,
    changed,
    group_rows,
    noisy,
    plain_cell,
    quality_row,
    speed_row,
    untimed_row,
)

VARIANTS = ("mha_manual", "mha", "mqa", "swa", "linear", "gated_delta")
SPEEDS = {"mha_manual": 1.0, "mha": 0.8, "mqa": 0.75, "swa": 0.6, "linear": 0.5, "gated_delta": 1.4}
LOSSES = {"mha": 2.1, "mqa": 2.15, "swa": 2.12, "linear": 2.4, "gated_delta": 2.2}


def attnbench_rows() -> list[Row]:
    """The AttnBench grid with noise, a skipped cell, a wrong one, and one that ran out of memory."""
    rows = []
    for group in attnbench.SUITE.groups(SuiteRequest(lengths=(128, 512, 1024))):
        for row in group_rows(group, _layer_seconds, rounds=6, noise=0.02):
            cell = row.cell
            assert cell is not None
            if cell.identity in group.skipped:
                rows.append(untimed_row(cell, reason=group.skipped[cell.identity]))
            elif cell.variant.startswith("blocksparse_legacy"):
                rows.append(untimed_row(cell, status="incorrect", reason="largest error 0.5 above 0.0001"))
            elif cell.variant == "mha_tiled" and cell.length == 1024:
                rows.append(untimed_row(cell, status="out_of_memory", reason="the process was killed at 3.1 GiB"))
            else:
                rows.append(row)
    return rows


def _layer_seconds(cell: Cell) -> float:
    quadratic = 1e-3 + 4e-9 * cell.length**2
    linear = 1.5e-3 + 4e-6 * cell.length
    seconds = linear if cell.variant.startswith(("swa(", "blocksparse(", "linear")) else quadratic
    if "gather_slices" in cell.variant:
        seconds = 25e-6 * cell.length
    if cell.variant == "linear_cumsum":
        seconds *= 3
    return seconds * (3 if cell.mode == "forward_backward" else 1)


def model_rows() -> list[Row]:
    """Ops and models of suite transfer, and decoding."""
    rows: list[Row] = []
    for model in ("gpt_tiny", "llama_tiny"):
        for mode in ("forward", "forward_backward", "step"):
            rows += _together("transfer", "model", mode, model, 5e-2)
            if mode != "step":
                rows += _together("transfer", "op", mode, model, 2e-3)
        for length in (64, 256, 1024):
            rows += _together("decode", "model", "decode", model, 1e-3, length=length)
    for length in (1024, 4096):
        rows += _together("long", "layer", "forward", None, 1e-1, length=length)
    return rows


def _together(suite: str, level: str, mode: str, model: str | None, seconds: float, *, length: int = 128) -> list[Row]:
    rows = []
    baseline = noisy(seconds, rounds=6, seed=(suite, level, mode, model, length))
    for name in VARIANTS:
        cell = plain_cell(
            length,
            suite=suite,
            group=f"{level} {mode} {model or ''} L={length}",
            builder=level,
            variant=name,
            attention=attention(name),
            role="baseline" if name == "mha_manual" else "candidate",
            level=level,
            mode=mode,
            model=model,
            num_heads=4 if model else 8,
        )
        if suite == "long" and name == "mha_manual" and length > 2048:
            rows.append(untimed_row(cell, reason="predicted 4.3 GiB do not fit into 3.9 GiB"))
            continue
        share = SPEEDS[name] if level == "op" else 0.6 + 0.4 * SPEEDS[name]
        samples = [share * each for each in noisy(seconds, rounds=6, seed=(suite, level, mode, model, length, name))]
        cached = {"mqa": length * 64, "swa": 64 * 512, "linear": 9000}.get(name, length * 512)
        peak = length * 4096 if name in ("swa", "linear") else length * length * 32
        known = cached if mode == "decode" else None
        memory = Memory(peak_bytes=peak, cache_bytes=known, analytic_cache_bytes=known)
        own = None if name == "mha_manual" else ("mha_manual", baseline)
        rows.append(speed_row(cell, baseline if own is None else samples, baseline=own, memory=memory))
    return rows


def quality_rows(seeds: int = 3) -> list[Row]:
    """Trainings at equal tokens and seconds with their evaluations, recall and needles."""
    rows = []
    for name, loss in LOSSES.items():
        for seed in range(seeds):
            rng = random.Random(f"{name}{seed}")
            end = loss + rng.gauss(0, 0.01)
            for budget in ("equal_tokens", "equal_seconds"):
                curve = [
                    CurvePoint(tokens=4096 * step, seconds=SPEEDS[name] * step, value=end + 2 / step)
                    for step in range(1, 9)
                ]
                rows.append(quality_row(name, seed, end, metric="val_bits_per_byte", budget=budget, curve=curve))
            rows.append(quality_row(name, seed, end + 0.001, standard_error=0.01, count=1000))
            for pairs in (4, 8, 16, 32):
                accuracy = max(0.1, 1 - (0.02 * pairs if name == "linear" else 0.0) - rng.random() * 0.01)
                rows.append(recall_row(name, seed, accuracy, num_pairs=pairs))
            rows.append(recall_row(name, seed, 0.95))
            for length in (32, 64, 128):
                for depth in (0.0, 0.5, 1.0):
                    far = name == "swa" and length * (1 - depth) > 64
                    where = {"task": "needle", "data": "needle", "length": length, "depth": depth}
                    rows.append(quality_row(name, seed, 0.05 if far else 1.0, metric="accuracy", **where))
    return rows


def recall_row(name: str, seed: int, value: float | None, num_pairs: int | None = None) -> Row:
    found = quality_row(name, seed, value, metric="accuracy", task="mqar", data="mqar", model="gpt_recall")
    return changed(found, num_pairs=num_pairs, length=None if num_pairs is None else 128)


def all_rows() -> list[Row]:
    """Everything."""
    return [*attnbench_rows(), *model_rows(), *quality_rows()]
