"""What a model takes, told from its config before any of its arrays is allocated.

Weights and caches are exact: a model of as few layers as tell all of them apart is built, whose arrays MLX only
promises, and its layers are counted as often as they come. What a training step keeps is about right: the factors were
measured on small models of every family and mechanism, and a test holds the price against the real peak.

Letters: B batch, L length, D hidden, F intermediate, V vocabulary.
"""

import dataclasses

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_reduce

from zoo.attention import Attention, LayerPattern
from zoo.models.build import build_model
from zoo.models.config import LlamaConfig, ModelConfig
from zoo.runtime.native import native_kernels_if_any
from zoo.runtime.seeds import keeping_randomness

# Numbers of a block that its backward pass needs, per token: of the residual stream and its norms, per D; of the
# feed-forward layer, per F, without and with a gate. Compiled kernels of norms and activations keep less.
_OF_STREAM, _OF_PLAIN, _OF_GATED = 6, 4, 5
_OF_STREAM_COMPILED, _OF_PLAIN_COMPILED, _OF_GATED_COMPILED = 4, 2, 3
# MLX allocates ahead of what it computes: so many blocks' numbers beyond those that are kept.
_AHEAD = 2
# Where blocks are computed again, each keeps this many numbers per D, fewer with compiled kernels, and this many blocks
# are alive beyond those.
_OF_CHECKPOINT, _OF_CHECKPOINT_COMPILED, _ALIVE = 8, 4, 3
# Numbers per predicted token and V: logits, the parts of their exponentials, probabilities and gradient; and without a
# gradient. Compiled kernels keep the logits alone, and MLX allocates ahead.
_OF_LOSS, _OF_LOGITS, _COMPILED = 10, 7, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a model at one time.

    Attributes:
        batch_size: B.
        length: L.
        predicted: Share of the tokens whose logits are computed.
        dtype: Of activations.
    """

    batch_size: int
    length: int
    predicted: float = 1.0
    dtype: mx.Dtype = mx.float32


class ModelPrice:
    """Accounts of the model that a config describes."""

    def __init__(self, config: ModelConfig) -> None:
        """Builds what has to be counted.

        Raises:
            UserError: If the attention does not support what the family needs.
        """
        pattern = config.attention.layer_pattern if isinstance(config.attention, LayerPattern) else (config.attention,)
        self.config = config
        # A price must not change the weights of the model that is built after it.
        with keeping_randomness():
            self._model = build_model(dataclasses.replace(config, num_layers=min(config.num_layers, len(pattern))))
        built = len(self._model.layers)
        # How often each of the built layers comes.
        self._counts = [len(range(index, config.num_layers, built)) for index in range(built)]

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model, exactly."""
        return self.outer_parameters + self.layer_parameters

    @property
    def layer_parameters(self) -> int:
        """Parameters of all blocks."""
        sizes = [_size(layer) for layer in self._model.layers]
        return sum(count * size for count, size in zip(self._counts, sizes, strict=True))

    @property
    def outer_parameters(self) -> int:
        """Parameters outside the blocks: embeddings and heads."""
        return _size(self._model) - sum(_size(layer) for layer in self._model.layers)

    def training_activations(self, load: Load, *, recomputed: bool) -> int:
        """Bytes that a step takes besides weights, gradients and the optimizer's state, about.

        Args:
            load: What is processed at one time.
            recomputed: Whether blocks keep nothing and are computed again in the backward pass.
        """
        layers = self._kept_by_layer(load)
        if recomputed:
            of_checkpoint = _OF_CHECKPOINT_COMPILED if native_kernels_if_any() else _OF_CHECKPOINT
            stream = of_checkpoint * self.config.hidden_size * load.batch_size * load.length
            kept = self.config.num_layers * stream + _ALIVE * max(layers)
        else:
            kept = sum(count * each for count, each in zip(self._counts, layers, strict=True)) + _AHEAD * max(layers)
        return kept * load.dtype.size + self._logits(load, _COMPILED if native_kernels_if_any() else _OF_LOSS)

    def forward_activations(self, load: Load) -> int:
        """Bytes that a call takes besides the weights, about."""
        return self._passing(load) + self._logits(load, _COMPILED if native_kernels_if_any() else _OF_LOGITS)

    def original_activations(self, load: Load) -> int:
        """Bytes that a call of an original takes besides the weights, about, and the divergence from it.

        No kernel computes the divergence: its part is what `training_activations` leaves out where there are kernels.
        """
        left_out = _OF_LOSS - _COMPILED if native_kernels_if_any() else 0
        return self._passing(load) + self._logits(load, _OF_LOGITS + left_out)

    def _passing(self, load: Load) -> int:
        """Bytes of blocks that keep nothing."""
        return _AHEAD * max(self._kept_by_layer(load)) * load.dtype.size

    def cache_bytes(self, load: Load) -> int:
        """Bytes that the caches hold after `load.length` tokens, exactly; 0 for a model that cannot decode."""
        attentions = [layer.self_attn for layer in self._model.layers]
        return sum(
            count * attention.cache_bytes(batch_size=load.batch_size, length=load.length, dtype=load.dtype)
            for count, attention in zip(self._counts, attentions, strict=True)
        )

    def _kept_by_layer(self, load: Load) -> list[int]:
        """Numbers that each of the built layers keeps for its backward pass."""
        config, tokens = self.config, load.batch_size * load.length
        of_stream, of_plain, of_gated = _OF_STREAM, _OF_PLAIN, _OF_GATED
        if native_kernels_if_any():
            of_stream, of_plain, of_gated = _OF_STREAM_COMPILED, _OF_PLAIN_COMPILED, _OF_GATED_COMPILED
        of_mlp = of_gated if isinstance(config, LlamaConfig) else of_plain
        rest = tokens * (of_stream * config.hidden_size + of_mlp * config.resolved_intermediate_size)
        return [rest + self._kept_by_attention(layer.self_attn, load) for layer in self._model.layers]

    def _kept_by_attention(self, attention: Attention, load: Load) -> int:
        known = attention.kept_numbers(batch_size=load.batch_size, length=load.length)
        if known is not None:
            return known
        config = self.config
        per_token = config.num_heads * (6 * config.resolved_head_dim + load.length)
        return load.batch_size * load.length * per_token

    def _logits(self, load: Load, copies: int) -> int:
        predicted = int(load.predicted * load.batch_size * load.length)
        return copies * predicted * self.config.vocab_size * mx.float32.size


def _size(module: nn.Module) -> int:
    count: int = tree_reduce(lambda total, array: total + array.size, module.parameters(), 0)
    return count
