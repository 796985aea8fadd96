"""What the attention is worth to a model: how far predictions move when it is exchanged, or switched off.

A model that predicts as well without an attention has learnt to go round it.
"""

import dataclasses
import json
from typing import Any

from eval.quality import Score, scores_of
from eval.quality.tasks import DECODING, LANGUAGE_MODEL, TEXT, Evaluated, Need, QualityTask
from zoo.generation import GenerationConfig, generate_text
from zoo.models.silence import silenced
from zoo.training.damage import measure_damage

# Of held-out text, and what the model makes of it: enough for two models that differ to part.
_PROMPT_TOKENS, _WRITTEN_TOKENS = 32, 64


def surgery(evaluated: Evaluated) -> list[Score]:
    """One figure, the KL divergence from the original in nats per token, with the whole report beside it."""
    batches, lengths_V = evaluated.text_batches(), evaluated.token_byte_lengths()
    damage = measure_damage(evaluated.model, evaluated.original, batches, lengths_V)
    report = {**(evaluated.surgery or {}), "damage": damage.as_mapping(), "greedy": _greedy(evaluated)}
    kl, count = damage.kl_nats_per_token, round(damage.tokens)
    return [Score(metric="kl_nats_per_token", value=kl, count=count, surgery=json.dumps(report))]


def _greedy(evaluated: Evaluated) -> dict[str, Any] | None:
    """What the model writes after the beginning of the held-out text, and what that took; None if it cannot write."""
    if not all(need.is_met(evaluated) for need in DECODING):
        return None
    batch = next(evaluated.text_batches())
    length = _PROMPT_TOKENS if batch.lengths_B is None else min(_PROMPT_TOKENS, int(batch.lengths_B[0]))
    prompt = batch.inputs_BL[0, :length].tolist()
    config = GenerationConfig(max_tokens=_WRITTEN_TOKENS, stop_at_eos=False)
    written = generate_text(evaluated.model, evaluated.tokenizer, prompt, config)
    return {
        "text": written.text,
        "tokens": written.generated_tokens,
        "prefill_tokens_per_second": written.prefill_tokens_per_second,
        "decode_tokens_per_second": written.decode_tokens_per_second,
        "cache_bytes": written.cache_bytes,
    }


def ablation(evaluated: Evaluated) -> list[Score]:
    """Bits per byte of a language model, whole and without attention, all of it or of each variant among its layers."""
    attention = evaluated.model.config.attention
    names = [attention.layer(index).name for index in range(evaluated.model.config.num_layers)]
    parts = dict.fromkeys(names) if len(set(names)) > 1 else {}
    scores = scores_of(evaluated.text_predictions, "bits_per_byte")
    for what in ("attention", *parts):
        layers = [index for index, name in enumerate(names) if what in ("attention", name)]
        without = evaluated.predictor(silenced(evaluated.model, layers))(evaluated.text_batches())
        (score,) = scores_of(without, "bits_per_byte")
        scores.append(dataclasses.replace(score, metric=f"{score.metric} without {what}"))
    return scores


_EXCHANGED = Need(
    lambda it: it.original is not None, "it asks what exchanging the attention did; choose one, as in attention=swa"
)
TASKS = (
    QualityTask(name="surgery", needs=(*TEXT, _EXCHANGED), measure=surgery, on_request=True),
    QualityTask(name="ablation", needs=LANGUAGE_MODEL, measure=ablation, on_request=True),
)
