"""Claims about fine-tuning speed: by fine-tunings where there are any, else by training steps of a small model."""

import dataclasses
import json
from collections.abc import Callable, Mapping

from eval.claims import words
from eval.claims.apple import only_on_metal
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Pair, Setting, timing_of
from eval.claims.series import ANY_FUSED, ANY_MANUAL
from eval.claims.verdict import known, overlaps, same_figure, same_side, verdict
from eval.rows import Row
from eval.statistics.ratios import RatioEstimate, paired_ratio
from zoo.attention.catalog import variant_mapping
from zoo.attention.function import function_of

# A logit of an exact exchange may move by so much, in float32.
_EXACT = 1e-4

STEP = Setting(suite="transfer", mode="step", level="model")
SCALED = (
    "The published figures are estimates, without a run. Settled by the training step (forward, backward, update) of a "
    "small Llama-shaped model, scaled to fit this machine: not by fine-tuning, and not by a model of the named size."
)
FINETUNED = (
    "The published figures are estimates, without a run. Settled by fine-tuning a real checkpoint of the Llama family "
    "with its own attention in both implementations, paired by seed; its size is not the named one."
)
# How `compare.py` names models that were fine-tuned on tokens alone.
_FINETUNED_MODEL = ", finetune"
_UNFUSED, _FUSED = "mha_manual", "mha"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """Training with fused and with unfused attention: what trained, a ratio of times, and the rows it comes from."""

    where: str
    ratio: RatioEstimate
    identities: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"{self.where}: {words.with_interval(self.ratio.ratio, self.ratio.low, self.ratio.high)}x"


def _compared(evidence: Evidence, *, fused_above: bool) -> tuple[list[_Compared], str]:
    """Real fine-tunings where there are any, otherwise training steps, and which of them; what weighs most is last."""
    found = _finetunings(evidence, fused_above=fused_above)
    if found:
        return found, FINETUNED
    steps = [
        _Compared(
            where=f"{pair.cell.model}, B={pair.cell.batch_size}, L={pair.cell.length}",
            ratio=pair.ratio,
            identities=pair.identities,
        )
        for pair in _pairs(evidence, fused_above=fused_above)
    ]
    return steps, SCALED


def _finetunings(evidence: Evidence, *, fused_above: bool) -> list[_Compared]:
    found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
    for row in evidence.rows:
        quality = row.quality
        if quality is None or quality.tokens_per_second is None or not quality.model.endswith(_FINETUNED_MODEL):
            continue
        if quality.variant in (_UNFUSED, _FUSED):
            trained = (quality.model, quality.data, quality.steps, quality.settings)
            found.setdefault(trained, {}).setdefault(quality.variant, {})[quality.seed] = row
    compared = []
    for (model, _, steps, _), rows in found.items():
        fused, unfused = rows.get(_FUSED, {}), rows.get(_UNFUSED, {})
        seeds = sorted(set(fused) & set(unfused))
        if len(seeds) > 1:
            above, below = (fused, unfused) if fused_above else (unfused, fused)
            ratio = paired_ratio([_seconds(above[seed]) for seed in seeds], [_seconds(below[seed]) for seed in seeds])
            computed = [_computed_by(rows[name][seeds[0]]) for name in (_FUSED, _UNFUSED)]
            where = f"{model} ({steps} steps, {len(seeds)} seeds, {' and '.join(computed)})"
            identities = tuple(each[seed].identity for seed in seeds for each in (above, below))
            compared.append(_Compared(where=where, ratio=ratio, identities=identities))
    return sorted(compared, key=lambda each: each.where)


def _computed_by(row: Row) -> str:
    """A variant, and its implementation where the row says it."""
    assert row.quality is not None
    implementation = row.quality.implementation
    return row.quality.variant + (f" by {implementation}" if implementation else "")


def _seconds(row: Row) -> float:
    """A token's."""
    assert row.quality is not None
    assert row.quality.tokens_per_second is not None
    return 1 / row.quality.tokens_per_second


def _pairs(evidence: Evidence, *, fused_above: bool) -> list[Pair]:
    above, below = (ANY_FUSED, ANY_MANUAL) if fused_above else (ANY_MANUAL, ANY_FUSED)
    found = evidence.pairs(above.holds, below.holds, STEP)
    llamas = [pair for pair in found if "llama" in (pair.cell.model or "")]
    if not llamas:
        raise MissingRowsError(f"no training steps of a Llama-shaped model with fused and unfused MHA ({STEP})")
    return sorted(llamas, key=lambda pair: (pair.cell.length, pair.cell.batch_size))


def _ratio(published: float, *, fused_above: bool) -> Callable[[Evidence], Judgement]:
    """Judges by the last, which of training steps is the longest sequence, where attention weighs most."""

    def judge(evidence: Evidence) -> Judgement:
        compared, how = _compared(evidence, fused_above=fused_above)
        ratio = compared[-1].ratio
        low, high = known(ratio.low, ratio.high)
        what = "fused over unfused time" if fused_above else "tokens per second, fused over unfused"
        return Judgement(
            verdict=verdict(same_figure(low, high, published)),
            ours=f"{what}: {'; '.join(each.words for each in compared)}",
            value=ratio.ratio,
            low=low,
            high=high,
            reason=f"{how} Published {published:.2f}; judged by the last.",
            evidence=tuple(identity for each in compared for identity in each.identities),
        )

    return judge


def _range(least: float, most: float) -> Callable[[Evidence], Judgement]:
    """Judges whether everything measured is so many times as fast."""

    def judge(evidence: Evidence) -> Judgement:
        compared, how = _compared(evidence, fused_above=False)
        within = []
        for each in compared:
            low, high = known(each.ratio.low, each.ratio.high)
            within.append(same_side(low, high, above=True) and high >= least and low <= most)
        ratio = compared[-1].ratio
        return Judgement(
            verdict=verdict(all(within)),
            ours=f"tokens per second, fused over unfused: {'; '.join(each.words for each in compared)}",
            value=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
            reason=f"{how} Every interval has to reach into {least} to {most} times the tokens per second; the "
            "document also counts a fifth less time, which is 1.25 times, as 20 % faster.",
            evidence=tuple(identity for each in compared for identity in each.identities),
        )

    return judge


def _absolute(published: float, model: str, *, fused: bool = True) -> Callable[[Evidence], Judgement]:
    """Tokens per second of the named model; those of a smaller one stand beside, but settle nothing."""

    def judge(evidence: Evidence) -> Judgement:
        pair = _pairs(evidence, fused_above=fused)[-1]
        timing, cell = timing_of(pair.numerator), pair.cell
        low, high = known(timing.interval_low, timing.interval_high)
        tokens = cell.batch_size * cell.length
        held = verdict(overlaps(tokens / high, tokens / low, published))
        judgement = Judgement(
            verdict=held if cell.model == model else "not measured",
            ours=f"{words.with_interval(tokens / timing.median_seconds, tokens / high, tokens / low, digits=0)} "
            f"tokens/s ({cell.model}, B={cell.batch_size}, L={cell.length})",
            value=tokens / timing.median_seconds,
            low=tokens / high,
            high=tokens / low,
            reason=SCALED,
            evidence=(pair.numerator.identity,),
        )
        return only_on_metal(evidence, judgement)

    return judge


def _drop_in(evidence: Evidence) -> Judgement:
    """By trained models whose every layer was exchanged for another way to compute the same function."""
    looks = [row for row in evidence.rows if row.quality is not None and row.quality.surgery is not None]
    exact = [row for row in looks if row.quality and _is_full(row.quality.attention)]
    if not exact:
        return _built(evidence)
    surgeries = [(row, json.loads((row.quality and row.quality.surgery) or "{}")) for row in exact]
    differences = [each["damage"]["largest_logit_difference"] for _, each in surgeries]
    whole = all(len(each["layers"]) == each["num_layers"] for _, each in surgeries)
    # Of one model after one prompt, which is taken from the data.
    texts: dict[tuple[str, str], set[str | None]] = {}
    for row, each in surgeries:
        asked = (row.quality.model, row.quality.data) if row.quality else ("", "")
        texts.setdefault(asked, set()).add((each.get("greedy") or {}).get("text"))
    same = all(len(found) == 1 for found in texts.values())
    names = ", ".join(dict.fromkeys(row.quality.variant for row in exact if row.quality))
    models = ", ".join(dict.fromkeys(model for model, _ in texts))
    return Judgement(
        verdict=verdict(whole and same and max(differences) <= _EXACT),
        ours=f"{names} in {'every layer' if whole else 'some layers'} of {models}: largest logit difference "
        f"{max(differences):.1e}, greedy texts {'equal' if same else 'not equal'}",
        value=max(differences),
        reason="Exchanged in trained checkpoints, for other ways to compute the same function. Reproduced if every "
        f"layer was exchanged, no logit moved by more than {_EXACT:.0e} and the greedy texts are equal. Another "
        "function is no drop-in replacement; what each of those broke is a table of its own. The published patchers "
        "exchanged no layer at all.",
        evidence=tuple(row.identity for row in exact),
    )


def _is_full(attention: str | None) -> bool:
    """Whether a mapping computes full softmax attention, with the heads that its model has."""
    return attention is not None and function_of(json.loads(attention)) == function_of(variant_mapping("mha"))


def _built(evidence: Evidence) -> Judgement:
    """No row exchanges the attention of an existing model: what was checked instead stands beside."""
    pairs = _pairs(evidence, fused_above=True)
    checked = [row for pair in pairs for row in (pair.numerator, pair.denominator)]
    errors = [c.max_error for row in checked if (c := row.correctness) is not None and c.max_error is not None]
    return Judgement(
        verdict="not measured",
        ours=f"{len(checked)} whole models, built with either attention, checked before their clock"
        + (f"; largest error {max(errors):.1e}" if errors else ""),
        value=max(errors) if errors else None,
        reason="No row is of a model whose attention was exchanged. The published patchers exchanged no layer at all.",
        evidence=tuple(row.identity for row in checked),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "finetune-practical": _ratio(0.90, fused_above=True),
    "finetune-demo": _ratio(0.80, fused_above=True),
    "finetune-qwen-practical": _ratio(0.88, fused_above=True),
    "finetune-qwen-demo": _ratio(0.80, fused_above=True),
    "finetune-range": _range(1.2, 1.6),
    "flash-immediate": _range(1.1, 1.6),
    "throughput-tinyllama": _ratio(82 / 50, fused_above=False),
    "throughput-qwen": _ratio(75 / 40, fused_above=False),
    "throughput-7b": _ratio(35 / 20, fused_above=False),
    "throughput-tinyllama-practical": _ratio(65 / 50, fused_above=False),
    "throughput-qwen-practical": _ratio(55 / 40, fused_above=False),
    "throughput-7b-practical": _ratio(25 / 20, fused_above=False),
    "throughput-absolute": _absolute(82_000, "tinyllama_1b"),
    "throughput-absolute-qwen": _absolute(75_000, "qwen_1_5b"),
    "throughput-absolute-7b": _absolute(35_000, "llama_7b"),
    "throughput-absolute-practical": _absolute(65_000, "tinyllama_1b"),
    "throughput-absolute-qwen-practical": _absolute(55_000, "qwen_1_5b"),
    "throughput-absolute-7b-practical": _absolute(25_000, "llama_7b"),
    "throughput-absolute-baseline": _absolute(50_000, "tinyllama_1b", fused=False),
    "throughput-absolute-qwen-baseline": _absolute(40_000, "qwen_1_5b", fused=False),
    "throughput-absolute-7b-baseline": _absolute(20_000, "llama_7b", fused=False),
    "drop-in": _drop_in,
}
