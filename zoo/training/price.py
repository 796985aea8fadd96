"""What a training takes at its peak, told from its configuration before anything is allocated."""

import mlx.core as mx

from zoo.models import Load, ModelConfig, ModelPrice
from zoo.training.config import TrainingConfig
from zoo.training.optimizers import OptimizerConfig, state_per_parameter

# A batch on the host: tokens, targets, weights, what they were drawn from, and the next batch beside it.
_BYTES_PER_TOKEN = 64
# Masked tokens are padded to whole eighths of a batch; 15 % are a little more than one.
_PREDICTED_BY_ENCODER = 0.25


def training_bytes(config: ModelConfig, optimizer: OptimizerConfig, training: TrainingConfig, dtype: mx.Dtype) -> int:
    """Bytes at the peak of a training, about.

    Args:
        config: The model.
        optimizer: Whose state is kept.
        training: Batch, length, and how a step is computed.
        dtype: Of the forward and backward pass.

    Raises:
        UserError: If the attention does not support what the model needs.
    """
    price = ModelPrice(config)
    rows, length = training.batch_size, training.sequence_length
    predicted = 1.0 if config.causal else _PREDICTED_BY_ENCODER
    part = Load(batch_size=rows // training.accumulation, length=length, predicted=predicted, dtype=dtype)
    # An uncompiled step computes blocks again before it needs them, and saves nothing.
    recomputed = training.gradient_checkpointing and training.compile
    step = price.training_activations(part, recomputed=recomputed) + _of_parameters(price, optimizer, training, dtype)
    # Evaluations see whole batches, whatever the parts of a step.
    whole = Load(batch_size=rows, length=length, predicted=predicted, dtype=dtype)
    evaluation = price.forward_activations(whole) + _held(price, optimizer)
    return max(step, evaluation) + rows * length * _BYTES_PER_TOKEN


def _held(price: ModelPrice, optimizer: OptimizerConfig) -> int:
    """Bytes of weights and of the optimizer's state, all the time."""
    of_layers, of_rest = state_per_parameter(optimizer)
    numbers = (1 + of_layers) * price.layer_parameters + (1 + of_rest) * price.outer_parameters
    return numbers * mx.float32.size


def _of_parameters(price: ModelPrice, optimizer: OptimizerConfig, training: TrainingConfig, dtype: mx.Dtype) -> int:
    """Bytes that an update takes: what is held, gradients, and the new values.

    A compiled step returns all new values before the old ones go; another one replaces them array by array.
    """
    held, weights = _held(price, optimizer), price.num_parameters * mx.float32.size
    gradients = weights * (2 if training.accumulation > 1 else 1)
    cast = 0 if dtype == mx.float32 else price.num_parameters * dtype.size
    return held + gradients + cast + (held if training.compile else weights)
