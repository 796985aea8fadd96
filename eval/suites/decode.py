"""Generation: prefill (time to first token) and decoding (time per token) at several cache lengths, with cache bytes.

Every shipped variant that can decode, in a whole model; one length is decoded with a batch of four texts as well. The
caches of shared keys and values are measured in a model with the published eight heads too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Row
from eval.suites.findings import by_group, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.model_shape import model_shape
from eval.suites.series import Series, chosen_series, published_series
from eval.suites.suite import Suite, SuiteRequest, require_free
from zoo.attention.catalog import attention_names, variant

NAME = "decode"
BASELINE, MODEL = "mha", "gpt_tiny"
# The published heads, for what sharing keys and values saves in a real cache.
CACHE_MODEL, CACHE_LENGTH = "gpt_eight_heads", 512
LENGTHS, BATCH = (128, 512, 1024), 4
# A thousand tokens take most variants a quarter of a second, and say nothing new.
PREFILL_LENGTHS = LENGTHS[:-1]
_MAX_ROUNDS = 5
# Token by token or key by key: slow forms of what other variants compute as well, and fifty thousand operations.
_SLOW, _MAX_SLOW_LENGTH = ("gated_delta_reference", "linear_recurrent", "swa_gather_index"), 512


def decodable_names() -> list[str]:
    """Every shipped variant that can generate, the baseline first."""
    found = [name for name in attention_names() if _decodes(name)]
    return sorted(found, key=lambda name: (name != BASELINE, name))


def _decodes(name: str) -> bool:
    able = [layer.capabilities for layer in variant(name).variants()]
    return all(each.decode and each.causal for each in able)


def groups(request: SuiteRequest) -> list[Group]:
    """Prefill and decoding by length, and decoding of a batch; variants, lengths and models are the user's choice.

    Raises:
        UserError: If the request sets anything else.
    """
    require_free(request, NAME, ("variants", "lengths", "models"))
    chosen = chosen_series(request.variants, decodable_names())
    lengths = request.lengths or LENGTHS
    points = [("prefill", length, 1) for length in request.lengths or PREFILL_LENGTHS]
    points += [("decode", length, 1) for length in lengths]
    points.append(("decode", min(lengths), BATCH))
    groups_ = [
        _group(chosen, mode, name, length, batch_size)
        for name in request.models or (MODEL,)
        for mode, length, batch_size in points
    ]
    measured = [
        # A process for each cell: once, where caches are largest. What they hold at other lengths is known by formula.
        dataclasses.replace(group, memory=group.baseline.mode == "decode" and group.baseline.length == max(lengths))
        for group in groups_
    ]
    if request.variants is not None:
        return measured
    caches = [] if request.models is not None else [_cache_group()]
    return [_without_slow_prefill(group) for group in (*measured, *caches)]


def _cache_group() -> Group:
    shared = [published_series("gqa", num_kv_heads=count) for count in (4, 2)]
    group = _group([published_series("mha"), *shared, published_series("mqa")], "decode", CACHE_MODEL, CACHE_LENGTH, 1)
    return dataclasses.replace(group, memory=True)


def _without_slow_prefill(group: Group) -> Group:
    if group.baseline.mode != "prefill" or group.baseline.length <= _MAX_SLOW_LENGTH:
        return group
    reason = f"slow by design: prefilling more than {_MAX_SLOW_LENGTH} tokens takes this form of it many times as long"
    return dataclasses.replace(group, skipped={cell.identity: reason for cell in group.cells if cell.variant in _SLOW})


def _group(chosen: Sequence[Series], mode: str, model: str, length: int, batch_size: int) -> Group:
    setting = {
        **model_shape(model).fields,
        "suite": NAME,
        "group": f"{mode} {model} B={batch_size} L={length}",
        "builder": "model",
        "level": "model",
        "mode": mode,
        "length": length,
        "batch_size": batch_size,
    }
    return Group(cells=cells_of(chosen, setting), max_rounds=_MAX_ROUNDS if mode == "prefill" else None)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Fastest variant of each group, and tokens per second and cache bytes of each variant at the longest length."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    timed = timed_rows(rows, NAME)
    for group, variants in by_group(timed).items():
        fastest = min(variants.values(), key=lambda each: each.median)
        figures.append(
            {"figure": "fastest", "group": group, "variant": fastest.cell.variant, "seconds": fastest.median}
        )
    decoding = [each for each in timed if each.cell.mode == "decode" and each.cell.batch_size == 1]
    longest = max((each.cell.length for each in decoding), default=0)
    for each in decoding:
        if each.cell.length == longest:
            figure = {"figure": "decoding", "variant": each.cell.variant, "length": longest}
            memory = each.row.memory
            cache_bytes = None if memory is None else memory.cache_bytes
            figures.append({**figure, "tokens_per_second": 1 / each.median, "cache_bytes": cache_bytes})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="Time to first token, time per token and cache bytes of every variant that can generate.",
    groups=groups,
    summary=summary,
)
