"""Claims about bytes: caches, and peaks."""

from collections.abc import Callable, Mapping

from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Series, Setting, cell_of
from eval.claims.series import ANY_FUSED, ANY_GQA, ANY_MANUAL, ANY_MQA
from eval.claims.verdict import FIGURE_TOLERANCE, verdict
from eval.rows import Row

# Caches are counted, not timed: they agree to the byte, or to the block in which a cache grows.
CACHE_TOLERANCE = 0.005


def _cache(series: Series, published: float) -> Callable[[Evidence], Judgement]:
    """Judges the share of the cache that fewer key/value heads save, at eight query heads."""

    def judge(evidence: Evidence) -> Judgement:
        setting = Setting(suite="decode", mode="decode")
        small, full = (
            {
                _shape(row): (row, row.memory.cache_bytes)
                for row in reversed(evidence.find(setting, each.holds))
                if row.memory is not None and row.memory.cache_bytes and cell_of(row).num_heads == 8
            }
            for each in (series, ANY_FUSED)
        )
        shapes = [shape for shape in small if shape in full]
        if not shapes:
            raise MissingRowsError(f"no cache bytes of {series.label} and fused MHA at 8 heads ({setting})")
        savings = {shape: 1 - small[shape][1] / full[shape][1] for shape in shapes}
        worst = max(savings.values(), key=lambda saving: abs(saving - published))
        return Judgement(
            verdict=verdict(abs(worst - published) <= CACHE_TOLERANCE),
            ours="; ".join(
                f"{saving:.1%} at {shape[2]} tokens ({small[shape][1]} of {full[shape][1]} bytes)"
                for shape, saving in sorted(savings.items(), key=lambda each: each[0][2])
            ),
            value=worst,
            reason="Bytes held by the real decoding cache; counted, so without an interval.",
            evidence=tuple(found[shape][0].identity for shape in shapes for found in (small, full)),
        )

    return judge


def _shape(row: Row) -> tuple[str, str, int, int, str]:
    cell = cell_of(row)
    return cell.level, str(cell.model), cell.length, cell.batch_size, cell.dtype


def _savings(evidence: Evidence) -> Judgement:
    """The largest saving of peak memory by fused attention over unfused, wherever both were measured."""
    found: dict[str, dict[tuple[str, str, str, str, int, int], tuple[Row, int]]] = {}
    for series in (ANY_MANUAL, ANY_FUSED):
        rows = [row for row in evidence.speed if series.holds(cell_of(row))]
        found[series.label] = {
            (cell_of(row).suite, cell_of(row).group, *_shape(row)[:2], *_shape(row)[2:4]): (row, row.memory.peak_bytes)
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
    "mqa-cache": _cache(ANY_MQA, 0.875),
    "gqa-memory": _cache(ANY_GQA, 0.5),
    "flash-memory": _savings,
}
