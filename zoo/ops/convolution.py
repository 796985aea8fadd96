"""Short causal depthwise convolution, the local mixing in front of recurrent attention.

    y_t = sum_d weight_d x_{t-d}      over the distances d = 0 … W - 1 inside t's own document

Used on queries, keys and values by Yang et al., "Gated Delta Networks", https://arxiv.org/abs/2412.06464, and before
by Fu et al., "Hungry Hungry Hippos", https://arxiv.org/abs/2212.14052.

Letters: B batch, L length, C channels, W taps, P = W - 1 tokens before the first.
"""

import mlx.core as mx


def short_convolution(
    x_BLC: mx.array,
    weight_WC: mx.array,
    *,
    tail_BPC: mx.array | None = None,
    segments_BL: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Convolves each channel with its own taps.

    Args:
        x_BLC: Input.
        weight_WC: Taps; row W - 1 weighs the token itself, row 0 the one W - 1 tokens before.
        tail_BPC: The W - 1 inputs before the first token; None for zeros. Not together with segments.
        segments_BL: Document of each token of packed rows, int32; None if a row is one document.

    Returns:
        y [B, L, C], and the last W - 1 inputs [B, W - 1, C] for the next call.
    """
    B, L, C = x_BLC.shape
    W = weight_WC.shape[0]
    if tail_BPC is None:
        tail_BPC = mx.zeros((B, W - 1, C), dtype=x_BLC.dtype)
    extended = mx.concatenate([tail_BPC, x_BLC], axis=1)
    # Shifted sums and not `mx.conv1d`: with one channel per group that takes four times as long on a CPU.
    y_BLC = x_BLC * weight_WC[W - 1]
    for distance in range(1, min(W, L + W - 1)):
        start = W - 1 - distance
        shifted = extended[:, start : start + L]
        if segments_BL is not None:
            same_BR = segments_BL[:, distance:] == segments_BL[:, :-distance]
            shifted = shifted * mx.pad(same_BR, [(0, 0), (min(distance, L), 0)])[..., None]
        y_BLC = y_BLC + shifted * weight_WC[W - 1 - distance]
    # A copy, so that a cache does not keep the whole prompt alive.
    return y_BLC, mx.contiguous(extended[:, L:])
