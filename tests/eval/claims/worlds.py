"""Whole sets of rows from planted times: the suites' own cells, with times as published, or as we please."""

import functools
from collections.abc import Callable, Mapping, Sequence

from eval.bench import Group
from eval.claims import FOLDER, Finding, all_claims, judge, printed_lines
from eval.claims.measurements import variant_kv_heads
from eval.replications import grid48
from eval.rows import Cell, Memory, Row, Work
from eval.suites import SuiteRequest, decode, long, transfer
from eval.suites.series import published_series
from tests.eval.rows_factory import altered, group_rows, planned, quality_row, untimed_row
from zoo.config.files import read_yaml_mapping

NOISE = 0.004
ROUNDS = 9
CONTROL = " (A/A)"
LAYOUTS = {"native": 30e-6, "reshape": 31e-6, "contiguous": 99e-6, "transposed": 103e-6}
Times = Callable[[Cell], float]
# The article's table.
LENGTHS = (128, 256, 512, 1024)
PRINTED = printed_lines(read_yaml_mapping(FOLDER / "attnbench.yaml", what="claims"))

MASKED = {32: (1.22, 1.60, 1.80, 5.00), 64: (1.24, 1.69, 1.84, 5.10), 128: (1.25, 1.34, 1.83, 5.05)}


def line_of(cell: Cell) -> tuple[float, ...]:
    """Published milliseconds of a cell's series at 128 to 1024; gaps and what was never published are filled in."""
    mapping = cell.attention_mapping
    match mapping["mechanism"], mapping["implementation"]:
        case "softmax", _:
            return printed({1: "MQA (kv=1)", 4: "GQA (kv=4)"}.get(mapping.get("num_kv_heads"), "MHA"))
        case "sliding_window", "masked":
            return MASKED[mapping["window_size"]]
        case "sliding_window", "gather_slices":
            return (7.08, 12.35, 26.0, 60.0)
        case "sliding_window", _:
            return tuple(2 * ms for ms in MASKED[64])
        case "linear", _:
            return (2.64, 3.18, 5.94, 9.0) if cell.causal else printed("LinearAttn")
    return printed(f"BlockSparse (bs={64 if mapping['block_size'] == 64 else 32})")


def printed(name: str) -> tuple[float, ...]:
    return tuple(1000 * seconds for seconds in PRINTED[name].values())


def as_published(cell: Cell) -> float:
    """Seconds."""
    return line_of(cell)[LENGTHS.index(cell.length)] / 1000


def grid_as_published(cell: Cell) -> float:
    """Fused attention takes a millisecond; unfused the published speed-ups, and nothing where none is told."""
    if cell.variant.removesuffix(CONTROL) != grid48.BASELINE:
        return 1e-3
    if (cell.batch_size, cell.length, cell.head_dim) == (1, 64, 32):
        return 2.77e-3
    by_batch = {1: 1.06, 2: 1.03, 4: 1.03, 8: 1.0}[cell.batch_size]
    by_length = {64: 1.06, 128: 1.03, 256: 1.015, 512: 1.0}[cell.length]
    return 1e-3 * by_batch * by_length * {32: 1.08, 64: 1.03, 128: 1.01}[cell.head_dim]


def suite_rows(groups: Sequence[Group], seconds: Times, *, rounds: int = ROUNDS) -> list[Row]:
    return [row for group in groups for row in group_rows(group, seconds, rounds=rounds, noise=NOISE)]


@functools.cache
def planned_steps() -> tuple[Group, ...]:
    variants = tuple(map(published_series, ("mha_manual", "mha", "blocksparse", "linear")))
    return tuple(transfer.SUITE.groups(SuiteRequest(variants=variants, models=("llama_tiny", "gpt_tiny"))))


def attnbench_rows(seconds: Times, *, rounds: int = ROUNDS, lengths: tuple[int, ...] = LENGTHS) -> list[Row]:
    groups = [
        group for group in planned("attnbench", modes=("forward",), lengths=LENGTHS) if group.baseline.length in lengths
    ]
    return suite_rows(groups, seconds, rounds=rounds)


@functools.cache
def published_attnbench() -> tuple[Row, ...]:
    """The published layers' rows; kept, for they take a second to make."""
    return tuple(attnbench_rows(as_published))


def grid_rows(
    seconds: Times = grid_as_published,
    *,
    utilisation: float = 0.95,
    kernel: bool = False,
    batch_sizes: tuple[int, ...] = (1, 2, 4),
) -> list[Row]:
    """The grid, with or without the kernel that only Metal has."""
    found = []
    groups = planned("grid48", batch_sizes=(1, 2, 4), lengths=(64, 128, 256))
    for row in suite_rows([each for each in groups if each.baseline.batch_size in batch_sizes], seconds):
        assert row.cell is not None
        if row.cell.variant == grid48.KERNEL and not kernel:
            found.append(untimed_row(row.cell, status="unavailable", reason="there is no Metal here"))
            continue
        tokens = row.cell.batch_size * row.cell.length
        found.append(row.model_copy(update={"work": Work(useful_flops=1, tokens=tokens, utilisation=utilisation)}))
    return found


def wrapper_rows(seconds: Times = lambda cell: 1e-3, *, rounds: int = ROUNDS) -> list[Row]:
    return suite_rows(planned("wrapper"), seconds, rounds=rounds)


def layout_rows(seconds: Mapping[str, float]) -> list[Row]:
    """Inputs in several layouts; a name stands for every layout that holds it."""
    return suite_rows(
        planned("layouts"), lambda cell: next(value for name, value in seconds.items() if name in cell.variant)
    )


def step_rows(fused_over_manual: float, *, blocks: float = 0.5) -> list[Row]:
    """Ops, layers and models; the models' training steps too. The others take a second."""
    seconds = {"mha": fused_over_manual, "blocksparse": blocks}
    return suite_rows(planned_steps(), lambda cell: seconds.get(cell.variant, 1.0))


def decode_rows(cache_bytes: Mapping[int, int], *, model: str = decode.CACHE_MODEL) -> list[Row]:
    """Caches of the models that are decoded; those of one model by their KV heads."""
    rows = []
    for row in suite_rows([group for group in planned("decode") if group.memory], lambda cell: 1e-3):
        assert row.cell is not None
        if row.cell.role != "control" and row.cell.model == model:
            size = cache_bytes.get(variant_kv_heads(row.cell) or row.cell.num_heads, 1)
            rows.append(row.model_copy(update={"memory": Memory(peak_bytes=9 * size, cache_bytes=size)}))
    return rows


def memory_rows(peaks: Mapping[str, int]) -> list[Row]:
    """Peaks of long texts."""
    variants = tuple(map(published_series, peaks))
    groups = long.SUITE.groups(SuiteRequest(variants=variants, lengths=(1024,), modes=("forward",)))
    return [
        row.model_copy(update={"memory": Memory(peak_bytes=peaks[row.cell.variant])})
        for row in suite_rows(groups, lambda cell: 1e-3)
        if row.cell is not None and row.cell.role != "control"
    ]


def quality_rows(figures: Mapping[str, Sequence[float]], **fields: str) -> list[Row]:
    """Bits per byte of each variant, or what the fields say, one value for each seed."""
    each = [(variant, seed, value) for variant, values in figures.items() for seed, value in enumerate(values)]
    return [quality_row(*figure, standard_error=0.01, count=1000, **fields) for figure in each]


@functools.cache
def published_world() -> tuple[Row, ...]:
    """Rows in which everything is as the sources have it, on a CPU."""
    return (
        *published_attnbench(),
        *grid_rows(),
        *wrapper_rows(),
        *layout_rows(LAYOUTS),
        *step_rows(0.85),
        *decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000}),
        *memory_rows({"mha_manual": 9000, "mha": 800}),
        *quality_rows({"mha": (2.0, 2.01, 1.99), "linear": (2.2, 2.21, 2.19)}),
    )


@functools.cache
def published_findings() -> Mapping[str, Finding]:
    """What is judged of them."""
    return findings_of(published_world())


def findings_of(rows: Sequence[Row], *names: str) -> Mapping[str, Finding]:
    """Findings by claim: of those named, or of all."""
    claims = [claim for claim in all_claims() if not names or claim.id in names]
    return {finding.claim.id: finding for finding in judge(rows, claims)}


def finding_of(rows: Sequence[Row], name: str) -> Finding:
    """The finding on one claim."""
    return findings_of(rows, name)[name]


def on_metal(rows: Sequence[Row]) -> list[Row]:
    """The same rows from Apple's GPU."""
    return [altered(row, "machine", device="Apple M4", backend="metal") for row in rows]


YES, NO, OTHER = "reproduced", "not reproduced", "different functions compared"


def like_for_like(finding: Finding) -> str:
    """The verdict that our own figure would give, whatever was compared."""
    if finding.verdict != OTHER:
        return finding.verdict
    return NO if f"Like for like: {NO}" in finding.reason else YES
