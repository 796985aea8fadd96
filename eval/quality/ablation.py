"""What attention is worth to a model: bits per byte with it, and with it switched off.

A model that predicts as well without an attention has learnt to go round it.
"""

from eval.quality.evaluated import Evaluated
from eval.quality.language import bits_per_byte, num_targets
from eval.quality.score import Score, score_of
from zoo.models.silence import silenced


def ablation(evaluated: Evaluated) -> list[Score]:
    """Bits per byte of a language model, whole and without attention, all of it or of each variant among its layers.

    Args:
        evaluated: With text.
    """
    attention = evaluated.model.config.attention
    names = [attention.layer(index).name for index in range(evaluated.model.config.num_layers)]
    parts = dict.fromkeys(names) if len(set(names)) > 1 else {}
    found = {"bits_per_byte": evaluated.text_predictions}
    for what in ("attention", *parts):
        layers = [index for index, name in enumerate(names) if what in ("attention", name)]
        without = evaluated.predictor(silenced(evaluated.model, layers))
        found[f"bits_per_byte without {what}"] = without.all(evaluated.text_batches())
    return [score_of(name, bits_per_byte(each), count=num_targets(each)) for name, each in found.items()]
