"""Generation: prefill (time to first token) and decoding (time per token) at several cache lengths, with cache bytes.

Every shipped variant that can decode, in a whole model; one length is decoded with a batch of four texts as well. The
caches of shared keys and values are measured in a model with the published eight heads too.
"""

import itertools
from collections.abc import Sequence

from eval.bench import Group
from eval.query import measured
from eval.rows import Cell, Row
from eval.suites import Figure, Suite, by_group, statuses
from eval.suites.series import Series, cells_of, model_fields, published_series, series_named
from zoo.attention.catalog import attention_names, variant

NAME = "decode"
BASELINE, MODEL = "mha", "gpt_tiny"
# The published heads, for what sharing keys and values saves in a real cache.
CACHE_MODEL, CACHE_LENGTH = "gpt_eight_heads", 512
CACHES = ("mha", "gqa(num_kv_heads=4)", "gqa(num_kv_heads=2)", "mqa")
LENGTHS, BATCH = (128, 512, 1024), 4
# A thousand tokens take most variants a quarter of a second, and say nothing new.
PREFILL_LENGTHS = LENGTHS[:-1]
_PREFILL_ROUNDS = 5
# Token by token or key by key: slow forms of what other variants compute as well, and fifty thousand operations.
_SLOW, _MAX_SLOW_LENGTH = ("gated_delta_reference", "linear_recurrent", "swa_gather_index"), 512


def decodable_names() -> list[str]:
    """Every shipped variant that can generate, the baseline first."""
    able = {name: [layer.capabilities for layer in variant(name).variants()] for name in attention_names()}
    found = [name for name, layers in able.items() if all(each.decode and each.causal for each in layers)]
    return sorted(found, key=lambda name: (name != BASELINE, name))


def plan(
    *, variants: Sequence[Series] | None = None, lengths: Sequence[int] = (), models: Sequence[str] | None = None
) -> list[Group]:
    """Prefill and decoding by length, and decoding of a batch; by default the small model's caches of shared heads."""
    chosen = variants or [series_named(name) for name in decodable_names()]
    points = [("prefill", length, 1) for length in lengths or PREFILL_LENGTHS]
    points += [("decode", length, 1) for length in lengths or LENGTHS]
    points.append(("decode", min(lengths or LENGTHS), BATCH))
    # A process for each cell: once, where caches are largest. What they hold at other lengths is known by formula.
    longest = max(lengths or LENGTHS)
    reason = f"slow by design: prefilling more than {_MAX_SLOW_LENGTH} tokens takes this form of it many times as long"
    groups = []
    for model, (mode, length, batch_size) in itertools.product(models or (MODEL,), points):
        cells = _cells(chosen, mode, model, length, batch_size)
        left_out = _SLOW if variants is None and mode == "prefill" and length > _MAX_SLOW_LENGTH else ()
        skipped = {cell.identity: reason for cell in cells if cell.variant in left_out}
        rounds, weighed = (_PREFILL_ROUNDS, False) if mode == "prefill" else (None, length == longest)
        groups.append(Group(cells=cells, memory=weighed, max_rounds=rounds, skipped=skipped))
    if variants is None and models is None:
        caches = _cells([published_series(name) for name in CACHES], "decode", CACHE_MODEL, CACHE_LENGTH, 1)
        groups.append(Group(cells=caches, memory=True))
    return groups


def _cells(chosen: Sequence[Series], mode: str, model: str, length: int, batch_size: int) -> tuple[Cell, ...]:
    name = f"{mode} {model} B={batch_size} L={length}"
    fields = {"level": "model", "mode": mode, "length": length, "batch_size": batch_size}
    return cells_of(chosen, **model_fields(model), suite=NAME, group=name, **fields)


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Fastest variant of each group, and tokens per second and cache bytes of each variant at the longest length."""
    figures = [statuses(rows)]
    for group, variants in by_group(rows).items():
        name, fastest = min(variants.items(), key=lambda item: item[1].median)
        figures.append({"figure": "fastest", "group": group, "variant": name, "seconds": fastest.median})
    decoding = [each for each in measured(rows, mode="decode", timed=True) if each.cell.batch_size == 1]
    longest = max((each.cell.length for each in decoding), default=0)
    for each in decoding:
        if each.cell.length == longest:
            figure = {"figure": "decoding", "variant": each.cell.variant, "length": longest}
            figures.append({**figure, "tokens_per_second": 1 / each.median, "cache_bytes": each.cache_bytes})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary)
