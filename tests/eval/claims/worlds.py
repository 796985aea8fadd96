"""Whole sets of rows from planted times: the suites' own cells, with times as published, or as we please."""

import functools
from collections.abc import Callable, Mapping, Sequence

from eval.bench import Group
from eval.claims import FOLDER, Finding, all_claims, judge, printed_lines
from eval.claims.measurements import variant_kv_heads
from eval.replications import grid48
from eval.rows import Cell, Memory, Row, Work
from eval.rows.schema import Status
from eval.suites import decode, long, transfer
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


def as_published(cell: Cell) -> float:
    """Seconds of a cell's series in the article; gaps and what was never published are filled in."""
    mapping = cell.attention_mapping
    match mapping["mechanism"], mapping["implementation"]:
        case "softmax", _:
            name = {1: "MQA (kv=1)", 4: "GQA (kv=4)"}.get(mapping.get("num_kv_heads"), "MHA")
        case "sliding_window", implementation:
            if (implementation, mapping["window_size"], cell.length) == ("masked", 128, 256):
                return 1.34e-3
            name = "SWA (gather)" if implementation.startswith("gather") else "MaskedSWA"
        case "linear", _:
            name = "CausalLinear" if cell.causal else "LinearAttn"
        case _:
            name = f"BlockSparse (bs={64 if mapping['block_size'] == 64 else 32})"
    slower = 2 if mapping["implementation"] == "chunked" and name == "MaskedSWA" else 1
    return slower * PRINTED[name].get(cell.length, 6e-5 * cell.length)


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
def attnbench_rows(
    seconds: Times = as_published, *, rounds: int = ROUNDS, lengths: tuple[int, ...] = LENGTHS
) -> tuple[Row, ...]:
    """The published layers; kept, for they take a second to make."""
    return tuple(suite_rows(planned("attnbench", modes=("forward",), lengths=lengths), seconds, rounds=rounds))


def grid_rows(
    seconds: Times = grid_as_published,
    *,
    utilisation: float = 0.95,
    kernel: Status = "unavailable",
    batch_sizes: tuple[int, ...] = (1, 2, 4),
) -> list[Row]:
    """The grid, and what became of the kernel that only Metal has."""
    found = []
    for row in suite_rows(planned("grid48", batch_sizes=batch_sizes, lengths=(64, 128, 256)), seconds):
        assert row.cell is not None
        if row.cell.variant == grid48.KERNEL and kernel != "ok":
            found.append(untimed_row(row.cell, status=kernel, reason="there is no Metal here"))
            continue
        tokens = row.cell.batch_size * row.cell.length
        found.append(row.model_copy(update={"work": Work(useful_flops=1, tokens=tokens, utilisation=utilisation)}))
    return found


def wrapper_rows(seconds: Times = lambda cell: 1e-3, *, rounds: int = ROUNDS) -> list[Row]:
    return suite_rows(planned("wrapper"), seconds, rounds=rounds)


def layout_rows() -> list[Row]:
    """Inputs in several layouts; a name stands for every layout that holds it."""
    return suite_rows(planned("layouts"), lambda cell: next(LAYOUTS[name] for name in LAYOUTS if name in cell.variant))


def step_rows(fused_over_manual: float, *, blocks: float = 0.5) -> list[Row]:
    """Ops, layers and models; the models' training steps too. The others take a second."""
    seconds = {"mha": fused_over_manual, "blocksparse": blocks}
    variants = tuple(map(published_series, ("mha_manual", "mha", "blocksparse", "linear")))
    groups = transfer.plan(variants=variants, models=("llama_tiny", "gpt_tiny"))
    return suite_rows(groups, lambda cell: seconds.get(cell.variant, 1.0))


def decode_rows(cache_bytes: Mapping[int, int]) -> list[Row]:
    """Caches of the models that are decoded; those of one model by their KV heads."""
    rows = []
    for row in suite_rows([group for group in planned("decode") if group.memory], lambda cell: 1e-3):
        assert row.cell is not None
        if row.cell.role != "control" and row.cell.model == decode.CACHE_MODEL:
            size = cache_bytes.get(variant_kv_heads(row.cell) or row.cell.num_heads, 1)
            rows.append(row.model_copy(update={"memory": Memory(peak_bytes=9 * size, cache_bytes=size)}))
    return rows


def memory_rows(peaks: Mapping[str, int]) -> list[Row]:
    """Peaks of long texts."""
    variants = tuple(map(published_series, peaks))
    groups = long.plan(variants=variants, lengths=(1024,), modes=("forward",))
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
        *attnbench_rows(),
        *grid_rows(),
        *wrapper_rows(),
        *layout_rows(),
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
ELSEWHERE, UNMEASURED = "not measurable on this device", "not measured"


def like_for_like(finding: Finding) -> str:
    """The verdict that our own figure would give, whatever was compared."""
    if finding.verdict != OTHER:
        return finding.verdict
    return NO if f"Like for like: {NO}" in finding.reason else YES
