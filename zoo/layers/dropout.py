"""Dropout whose randomness is an argument, so that a block recomputed in the backward pass drops the same elements.

Srivastava et al., "Dropout", https://jmlr.org/papers/v15/srivastava14a.html. `mlx.nn.Dropout` draws from the global
state at each call: under gradient checkpointing its gradients belong to other elements than its outputs.
"""

import mlx.core as mx


def dropout(x: mx.array, probability: float, key: mx.array | None) -> mx.array:
    """Zeroes elements at random and scales the others up, so that the mean stays.

    Args:
        x: Any shape.
        probability: Of zeroing an element, at least 0 and below 1.
        key: Random key, uint32 [2]; None leaves x as it is.

    Returns:
        An array like x.
    """
    if key is None:
        return x
    # MLX would differentiate a checkpointed block with respect to its key, and random bits have no gradient.
    kept = mx.stop_gradient(mx.random.bernoulli(1.0 - probability, x.shape, key=key))
    return mx.where(kept, x * (1.0 / (1.0 - probability)), mx.zeros((), dtype=x.dtype))
