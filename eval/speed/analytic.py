"""Peak bytes by formula, to stand beside the measured ones.

What is counted: the arrays that go in and come out, with their gradients in a backward pass, and the one large array
that an implementation makes on the way, where its name says which. Masks, projections, temporaries of single tiles or
chunks and what a compiler fuses away are not counted: for implementations without such an array, and for those of
mechanisms that are not listed, the formula is what any implementation has to hold.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim, W keys of a window, V vocabulary.
"""

from collections.abc import Callable, Mapping

import mlx.core as mx

from eval.rows import Work
from eval.speed.layer_setting import LayerSetting
from eval.speed.model_setting import VOCAB_SIZE, ModelSetting
from eval.speed.op_setting import OpSetting
from eval.speed.work import arrays_of
from zoo.attention import Attention
from zoo.models import Model


def _scores(setting: OpSetting) -> int:
    """B N L L, in float32: softmax is taken there."""
    return setting.batch_size * setting.num_heads * setting.length**2 * mx.float32.size


def _windows(setting: OpSetting) -> int:
    """Keys and values of every query's window, B K L W H each."""
    reach = setting.variant.parameters.window_size
    window = reach if setting.causal else 2 * reach - 1
    heads = setting.batch_size * setting.num_kv_heads * setting.head_dim
    return 2 * heads * setting.length * window * setting.dtype.size


def _states(setting: OpSetting) -> int:
    """The float32 state after every token, B K L H (H + 1)."""
    heads = setting.batch_size * setting.num_kv_heads
    return heads * setting.length * setting.head_dim * (setting.head_dim + 1) * mx.float32.size


# Implementation -> the large array, and how many of its size live at once forward and backward: scores, their
# gradient and that of the weights; windows, which an indexed gather holds once more in another order; products and
# their running sum, and the gradients of both.
_LARGE: Mapping[str, tuple[Callable[[OpSetting], int], int, int]] = {
    "fused": (_scores, 1, 3),
    "manual": (_scores, 1, 3),
    "masked": (_scores, 1, 3),
    "gather_index": (_windows, 2, 4),
    "gather_slices": (_windows, 1, 2),
    "cumsum": (_states, 2, 6),
}


def op_bytes(setting: OpSetting, work: Work, *, gradient: bool) -> int:
    """Of an op's call.

    Args:
        setting: Sizes and implementation.
        work: Says whether MLX's attention took a fused kernel, which has no score matrix.
        gradient: Whether the call includes the backward pass.
    """
    output = setting.batch_size * setting.num_heads * setting.length * setting.head_dim * setting.dtype.size
    outer = output + setting.input_bytes
    if gradient:
        outer *= 2
    return outer + _large_bytes(setting, work, gradient=gradient)


def layer_bytes(setting: LayerSetting, layer: Attention, work: Work, *, gradient: bool) -> int:
    """Of a layer's call: its op's, with x, y and the weights; backward twice as many of these."""
    op = setting.op
    hidden = 2 * op.batch_size * op.length * setting.shape.hidden_size * op.dtype.size
    own = hidden + sum(array.nbytes for array in setting.weights_of(layer))
    return own * (2 if gradient else 1) + op_bytes(op, work, gradient=gradient)


def model_bytes(setting: ModelSetting, model: Model, work: Work, *, predicted: int) -> int:
    """Of a model's call.

    Forward: weights, logits and the large array of one layer. Backward: weights and logits twice, and the large arrays
    that wait for it in every layer. A step holds AdamW's two moments as well, and decoding the cache.

    Args:
        setting: Mode and sizes.
        model: The model.
        work: Of the call.
        predicted: Positions of the whole batch that get logits.
    """
    weights = sum(array.nbytes for array in arrays_of(model.parameters()))
    logits = predicted * VOCAB_SIZE * setting.dtype.size
    backward = setting.mode in ("forward_backward", "step")
    copies = {"forward_backward": 2, "step": 4}.get(setting.mode, 1)
    large = 0
    if setting.mode != "decode":
        ops = {op.variant.name: _large_bytes(op, work, gradient=False) for op in setting.op_settings()}
        layers = [setting.config.attention.layer(index).name for index in range(setting.config.num_layers)]
        large = sum(ops[name] for name in layers) if backward else max(ops.values())
    cache = 0
    if setting.mode in ("prefill", "decode"):
        held = setting.length + (1 if setting.mode == "decode" else 0)
        cache = model.cache_bytes(batch_size=setting.batch_size, length=held, dtype=setting.dtype)
    return copies * weights + (2 if backward else 1) * logits + large + cache


def _large_bytes(setting: OpSetting, work: Work, *, gradient: bool) -> int:
    if setting.variant.implementation not in _LARGE or work.attention_path == "fused":
        return 0
    array, forward, backward = _LARGE[setting.variant.implementation]
    return array(setting) * (backward if gradient else forward)
