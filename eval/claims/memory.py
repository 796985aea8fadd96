"""Claims about bytes: caches, and peaks."""

from collections.abc import Callable, Mapping

from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Setting, cell_of, variant_kv_heads
from eval.claims.series import ANY_FUSED, ANY_MANUAL
from eval.claims.verdict import FIGURE_TOLERANCE, verdict
from eval.rows import Cell, Row

# Caches are counted, not timed: they agree to the byte, or to the block in which a cache grows.
CACHE_TOLERANCE = 0.005
PUBLISHED_HEADS = 8
DECODE = Setting(suite="decode", mode="decode")


def _cache(num_kv_heads: int, published: float) -> Callable[[Evidence], Judgement]:
    """Judges what fewer key/value heads save: real caches of two variants in one model of the published heads."""

    def judge(evidence: Evidence) -> Judgement:
        fewer = _caches(evidence, num_kv_heads)
        full = _caches(evidence, PUBLISHED_HEADS)
        groups = sorted(group for group in fewer if group in full)
        if not groups:
            raise MissingRowsError(
                f"no cache bytes of {num_kv_heads} and {PUBLISHED_HEADS} KV heads in one group of a model with "
                f"{PUBLISHED_HEADS} query heads ({DECODE})"
            )
        savings = [1 - fewer[group][1] / full[group][1] for group in groups]
        worst = max(savings, key=lambda saving: abs(saving - published))
        return Judgement(
            verdict=verdict(abs(worst - published) <= CACHE_TOLERANCE),
            ours="; ".join(
                f"{saving:.1%} at {cell_of(fewer[group][0]).length} tokens ({fewer[group][1]:,} against "
                f"{full[group][1]:,} bytes)"
                for group, saving in zip(groups, savings, strict=True)
            ),
            value=worst,
            reason=f"Bytes held by the real decoding caches of one model with {PUBLISHED_HEADS} query heads; counted, "
            "so without an interval.",
            evidence=tuple(found[group][0].identity for group in groups for found in (fewer, full)),
        )

    return judge


def _caches(evidence: Evidence, num_kv_heads: int) -> dict[str, tuple[Row, int]]:
    """Measured cache bytes of fused attention with so many KV heads in a model of the published heads, by group."""
    found: dict[str, tuple[Row, int]] = {}
    for row in reversed(evidence.find(DECODE, lambda cell: _shares(cell, num_kv_heads))):
        if row.memory is not None and row.memory.cache_bytes:
            found[cell_of(row).group] = (row, row.memory.cache_bytes)
    return found


def _shares(cell: Cell, num_kv_heads: int) -> bool:
    if cell.attention is None or cell.num_heads != PUBLISHED_HEADS or cell.num_kv_heads not in (None, PUBLISHED_HEADS):
        return False
    mapping = cell.attention_mapping
    if (mapping.get("mechanism"), mapping.get("implementation")) != ("softmax", "fused"):
        return False
    return (variant_kv_heads(cell) or PUBLISHED_HEADS) == num_kv_heads


def _savings(evidence: Evidence) -> Judgement:
    """The largest saving of peak memory by fused attention over unfused, wherever both were measured."""
    found: dict[str, dict[tuple[str, str], tuple[Row, int]]] = {}
    for series in (ANY_MANUAL, ANY_FUSED):
        rows = [row for row in evidence.speed if series.holds(cell_of(row))]
        found[series.label] = {
            (cell_of(row).suite, cell_of(row).group): (row, row.memory.peak_bytes)
            for row in rows
            if row.memory is not None and row.memory.peak_bytes
        }
    manual, fused = found[ANY_MANUAL.label], found[ANY_FUSED.label]
    shared = [key for key in manual if key in fused]
    if not shared:
        raise MissingRowsError("no peak bytes of fused and unfused MHA in one group")
    savings = {key: 1 - fused[key][1] / manual[key][1] for key in shared}
    best = max(savings, key=lambda key: savings[key])
    return Judgement(
        verdict="different functions compared",
        ours=f"largest {savings[best]:.1%} ({best[0]}, {best[1]}), smallest {min(savings.values()):.1%}, "
        f"over {len(savings)} cells",
        value=savings[best],
        reason="Peaks of MLX's allocator in a process of its own, inputs and outputs included; published were changes "
        "of the resident set of one process, which shrinks and grows for other reasons, of a class that attends over "
        f"heads instead of tokens. Like for like: {verdict(savings[best] >= 1 - FIGURE_TOLERANCE)}.",
        evidence=tuple(each[key][0].identity for key in shared for each in (manual, fused)),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "mqa-cache": _cache(1, 0.875),
    "gqa-memory": _cache(4, 0.5),
    "flash-memory": _savings,
}
