"""What a training takes at its peak, told from its configuration before anything is allocated."""

import dataclasses

import mlx.core as mx
from mlx.utils import tree_flatten

from zoo.models import Load, Model, ModelConfig, ModelPrice
from zoo.runtime.native import native_kernels_if_any
from zoo.training.config import TrainingConfig
from zoo.training.optimizers import OptimizerConfig, state_per_parameter
from zoo.training.step import Shard

# A batch on the host: tokens, targets, weights, what they were drawn from, and the next batch beside it.
_BYTES_PER_TOKEN = 64
# Masked tokens are padded to whole quarters of a batch.
_PREDICTED_BY_ENCODER = 0.25
# MLX's CPU back end allocates for about ten operations ahead: so many chunks of logits exist, measured.
_CHUNKS_AHEAD = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing:
    """Among how many processes a training is shared out.

    Attributes:
        processes: Of which each has its part of every batch.
        shard: What each keeps only its part of.
    """

    processes: int = 1
    shard: Shard | None = None


UNSHARED = Sharing()


def training_bytes(
    config: ModelConfig,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    dtype: mx.Dtype,
    sharing: Sharing = UNSHARED,
) -> int:
    """Bytes at the peak of a training, about, of each process.

    Args:
        config: The model.
        optimizer: Whose state is kept.
        training: Batch, length, and how a step is computed.
        dtype: Of the forward and backward pass.
        sharing: Among processes.

    Raises:
        UserError: If the attention does not support what the model needs.
    """
    price = ModelPrice(config)
    of_step, of_evaluation, of_batches = _activations(price, training, dtype, sharing)
    step = of_step + _of_parameters(price, optimizer, training, dtype, sharing)
    return max(step, of_evaluation + _held(price, optimizer, sharing)) + of_batches


def adaptation_bytes(
    model: Model,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    dtype: mx.Dtype,
    sharing: Sharing = UNSHARED,
) -> int:
    """Bytes at the peak of a training of a model of which a part is frozen, about; arguments as `training_bytes`."""
    weights = sum(array.nbytes for array in dict(tree_flatten(model.parameters())).values())
    trained = sum(array.size for array in dict(tree_flatten(model.trainable_parameters())).values())
    of_step, of_evaluation, of_batches = _activations(ModelPrice(model.config), training, dtype, sharing)
    # What is trained: gradients in one or two copies, and old and new values of weights and optimizer.
    state = max(state_per_parameter(optimizer)) / (sharing.processes if sharing.shard == "optimizer" else 1)
    update = round((2 + 2 * state + 2) * trained * mx.float32.size)
    return weights + update + max(of_step, of_evaluation) + of_batches


def original_bytes(original: Model, training: TrainingConfig, dtype: mx.Dtype, *, shared: bool) -> int:
    """Bytes that learning from an original takes besides the training, about.

    Args:
        original: As `original_of` makes it.
        training: Batch and length.
        dtype: Of the forward pass.
        shared: Whether its weights are the very arrays of what is trained.
    """
    weights = sum(array.nbytes for array in dict(tree_flatten(original.parameters())).values())
    part = dataclasses.replace(training, batch_size=training.batch_size // training.accumulation, accumulation=1)
    price = ModelPrice(original.config)
    return price.original_activations(_loads(price, part, dtype)[0]) + (0 if shared else weights)


def _activations(
    price: ModelPrice, training: TrainingConfig, dtype: mx.Dtype, sharing: Sharing
) -> tuple[int, int, int]:
    """Bytes that a step and an evaluation take besides parameters, and that batches take on the host."""
    part, whole = _loads(price, training, dtype, sharing)
    # MLX's own operations, uncompiled, compute blocks again before they are needed, and save nothing.
    recomputed = training.gradient_checkpointing and (training.compile or native_kernels_if_any() is not None)
    of_step = price.training_activations(part, recomputed=recomputed)
    return of_step, price.forward_activations(whole), whole.batch_size * whole.length * _BYTES_PER_TOKEN


def _loads(
    price: ModelPrice, training: TrainingConfig, dtype: mx.Dtype, sharing: Sharing = UNSHARED
) -> tuple[Load, Load]:
    """What a step processes at one time; and an evaluation, which sees whole batches whatever the parts of a step."""
    rows, length = max(1, training.batch_size // sharing.processes), training.sequence_length
    predicted = 1.0 if price.config.causal else _PREDICTED_BY_ENCODER
    if training.loss_rows is not None:
        predicted = min(predicted, training.loss_rows * _CHUNKS_AHEAD * training.accumulation / (rows * length))
    whole = Load(batch_size=rows, length=length, predicted=predicted, dtype=dtype)
    return dataclasses.replace(whole, batch_size=max(1, rows // training.accumulation)), whole


def _held(price: ModelPrice, optimizer: OptimizerConfig, sharing: Sharing) -> int:
    """Bytes of weights and of the optimizer's state, all the time."""
    of_layers, of_rest = (each * mx.float32.size for each in state_per_parameter(optimizer))
    state = of_layers * price.layer_parameters + of_rest * price.outer_parameters
    if sharing.shard == "weights":
        layers = (mx.float32.size + of_layers) * price.layer_parameters // sharing.processes
        return layers + (mx.float32.size + of_rest) * price.outer_parameters
    if sharing.shard == "optimizer":
        # An embedding, which is most of what is in no layer, belongs to one process as a whole.
        state = max(state // sharing.processes, of_rest * price.outer_parameters)
    return price.num_parameters * mx.float32.size + state


def _of_parameters(
    price: ModelPrice, optimizer: OptimizerConfig, training: TrainingConfig, dtype: mx.Dtype, sharing: Sharing
) -> int:
    """Bytes that an update takes: what is held, gradients, and the new values.

    A compiled step returns all new values before the old ones go; another one replaces them array by array.
    """
    held, weights = _held(price, optimizer, sharing), price.num_parameters * mx.float32.size
    # Those of several parts, and those of several processes, exist beside their sums.
    gradients = weights * (1 + (training.accumulation > 1) + (sharing.processes > 1))
    cast = 0 if dtype == mx.float32 else price.num_parameters * dtype.size
    return held + gradients + cast + (held if training.compile else weights)
