"""Position-wise feed-forward layers: plain (GPT-2, BERT) and gated (Llama).

    plain: y = W_down act(W_up x + b_up) + b_down        Vaswani et al., https://arxiv.org/abs/1706.03762
    gated: y = W_down (act(W_gate x) · (W_up x))         Shazeer, https://arxiv.org/abs/2002.05202

Letters: B batch, L length, D hidden, F intermediate.
"""

import mlx.core as mx
import mlx.nn as nn

from zoo.ops.activations import ActivationName, activation, swiglu


class FeedForward(nn.Module):
    """Two projections with an activation between them."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, *, activation_name: ActivationName, bias: bool
    ) -> None:
        """Makes the projections D -> F -> D."""
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.flops_per_token = 2 * 2 * hidden_size * intermediate_size
        self._activation = activation(activation_name)

    def __call__(self, x_BLD: mx.array) -> mx.array:
        """Maps each token by itself: [B, L, D] -> [B, L, D]."""
        return self.down_proj(self._activation(self.up_proj(x_BLD)))


class GatedFeedForward(nn.Module):
    """Three projections; the activated gate multiplies the other branch."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, *, activation_name: ActivationName, bias: bool
    ) -> None:
        """Makes the projections D -> F (twice) -> D."""
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.flops_per_token = 3 * 2 * hidden_size * intermediate_size
        self._activation_name = activation_name

    def __call__(self, x_BLD: mx.array) -> mx.array:
        """Maps each token by itself: [B, L, D] -> [B, L, D]."""
        gate_BLF, up_BLF = self.gate_proj(x_BLD), self.up_proj(x_BLD)
        if self._activation_name == "silu":
            gated_BLF = swiglu(gate_BLF, up_BLF)
        else:
            gated_BLF = activation(self._activation_name)(gate_BLF) * up_BLF
        return self.down_proj(gated_BLF)
