"""Claims about bytes: caches, and peaks."""

from collections.abc import Callable, Mapping

from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Setting, cell_of, variant_kv_heads
from eval.claims.series import ANY_FUSED, ANY_MANUAL
from eval.claims.verdict import FIGURE_TOLERANCE, verdict
from eval.rows import Cell, Row

# Level, model, length, batch size, dtype.
Shape = tuple[str, str, int, int, str]
# Caches are counted, not timed: they agree to the byte, or to the block in which a cache grows.
CACHE_TOLERANCE = 0.005
PUBLISHED_HEADS = 8
DECODE = Setting(suite="decode", mode="decode")


def _cache(num_kv_heads: int, published: float) -> Callable[[Evidence], Judgement]:
    """Judges what fewer key/value heads save: bytes per head, of the real caches, times the published heads."""

    def judge(evidence: Evidence) -> Judgement:
        fewer = _bytes_per_head(evidence, lambda cell: _is_fewer(cell, num_kv_heads))
        full = _bytes_per_head(evidence, ANY_FUSED.holds)
        shapes = sorted((shape for shape in fewer if shape in full), key=lambda shape: shape[2])
        if not shapes:
            raise MissingRowsError(f"no cache bytes of {num_kv_heads} and {PUBLISHED_HEADS} KV heads' kind ({DECODE})")
        savings = [1 - num_kv_heads * fewer[shape][1] / (PUBLISHED_HEADS * full[shape][1]) for shape in shapes]
        worst = max(savings, key=lambda saving: abs(saving - published))
        return Judgement(
            verdict=verdict(abs(worst - published) <= CACHE_TOLERANCE),
            ours="; ".join(
                f"{saving:.1%} at {shape[2]} tokens ({fewer[shape][1]:.0f} and {full[shape][1]:.0f} bytes per KV head)"
                for shape, saving in zip(shapes, savings, strict=True)
            ),
            value=worst,
            reason=f"Bytes held by the real decoding caches, for each KV head, times {num_kv_heads} and "
            f"{PUBLISHED_HEADS} heads; counted, so without an interval.",
            evidence=tuple(found[shape][0].identity for shape in shapes for found in (fewer, full)),
        )

    return judge


def _is_fewer(cell: Cell, num_kv_heads: int) -> bool:
    """Whether a variant shares keys and values: among all queries, or among as large a part of them."""
    if cell.attention is None:
        return False
    mapping = cell.attention_mapping
    if (mapping.get("mechanism"), mapping.get("implementation")) != ("softmax", "fused"):
        return False
    heads = variant_kv_heads(cell)
    share = PUBLISHED_HEADS // num_kv_heads
    return heads == 1 if num_kv_heads == 1 else heads is not None and heads * share == cell.num_heads


def _bytes_per_head(evidence: Evidence, holds: Callable[[Cell], bool]) -> dict[Shape, tuple[Row, float]]:
    found: dict[Shape, tuple[Row, float]] = {}
    for row in reversed(evidence.find(DECODE, holds)):
        if row.memory is not None and row.memory.cache_bytes:
            cell = cell_of(row)
            heads = variant_kv_heads(cell) or cell.num_kv_heads or cell.num_heads
            found[_shape(row)] = (row, row.memory.cache_bytes / heads)
    return found


def _shape(row: Row) -> Shape:
    cell = cell_of(row)
    return cell.level, str(cell.model), cell.length, cell.batch_size, cell.dtype


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
        verdict=verdict(savings[best] >= 1 - FIGURE_TOLERANCE),
        ours=f"largest {savings[best]:.1%} ({best[0]}, {best[1]}), smallest {min(savings.values()):.1%}, "
        f"over {len(savings)} cells",
        value=savings[best],
        reason="Peaks of MLX's allocator in a process of its own, inputs and outputs included; published were changes "
        "of the resident set of one process, which shrinks and grows for other reasons.",
        evidence=tuple(each[key][0].identity for key in shared for each in (manual, fused)),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "mqa-cache": _cache(1, 0.875),
    "gqa-memory": _cache(4, 0.5),
    "flash-memory": _savings,
}
