"""What exchanging a trained model's attention did: the whole report, and how far its predictions moved."""

import json
from typing import Any

from eval.quality.evaluated import Evaluated
from eval.quality.score import Score
from zoo.generation import GenerationConfig, generate_text
from zoo.training.damage import measure_damage

# Of held-out text, and what the model makes of it: enough for two models that differ to part.
_PROMPT_TOKENS, _WRITTEN_TOKENS = 32, 64


def surgery(evaluated: Evaluated) -> list[Score]:
    """One figure, the KL divergence from the original in nats per token, with the whole report beside it.

    Args:
        evaluated: A model of text, and what it was before its attention was exchanged.
    """
    batches, lengths_V = evaluated.text_batches(), evaluated.byte_lengths()
    damage = measure_damage(evaluated.model, evaluated.original, batches, lengths_V)
    report = {**(evaluated.surgery or {}), "damage": damage.as_mapping(), "greedy": _greedy(evaluated)}
    return [
        Score(
            metric="kl_nats_per_token",
            value=damage.kl_nats_per_token,
            count=round(damage.tokens),
            surgery=json.dumps(report),
        )
    ]


def _greedy(evaluated: Evaluated) -> dict[str, Any] | None:
    """What the model writes after the beginning of the held-out text, and what that took; None if it cannot write."""
    able = all(layer.self_attn.capabilities.decode for layer in evaluated.model.layers)
    if not (evaluated.causal and able and evaluated.tokenizer):
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
