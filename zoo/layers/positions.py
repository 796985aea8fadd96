"""Token order inside an attention layer: rotary positions (through mlx-lm) and ALiBi's slopes.

Rotary: Su et al., "RoFormer", https://arxiv.org/abs/2104.09864. ALiBi: Press et al., "Train Short, Test Long",
https://arxiv.org/abs/2108.12409; for a number of heads that is no power of two the slopes are interleaved as in
the authors' code.
"""

import math

import mlx.core as mx


def alibi_slopes(num_heads: int) -> mx.array:
    """ALiBi's geometric slopes, float32 [num_heads], steepest first for a power of two."""
    closest = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / closest) for head in range(closest)]
    finer = [2 ** (-8 * (head + 1) / (2 * closest)) for head in range(2 * closest)]
    return mx.array(slopes + finer[0::2][: num_heads - closest], dtype=mx.float32)
