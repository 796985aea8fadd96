"""Exchanges a checkpoint's attention for a script, and reports on stderr and as JSON what that did to the model."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from eval.speed.correctness import relative_error
from eval.speed.layer_correctness import as_numpy, check_mixing, reach
from eval.speed.tolerances import Tolerance, tolerance
from zoo.attention import variant_from_mapping
from zoo.checkpoints import Surgery, swap_attention
from zoo.config import UserError, require_within
from zoo.data import Tokenizer
from zoo.data.loader import Batch
from zoo.models import Model
from zoo.ops.masks import MaskSpec
from zoo.training import ValidationBatches, measure_damage

logger = logging.getLogger(__name__)

# Rounding grows with the depth: each layer reads what the last one left, and adds its own.
_DEPTH_FACTOR = 2.0
# Past the borders of default windows and blocks.
_CHECKED_LENGTH = 192
# Tokens that follow one by one in the check of decoding.
_STEPS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurgeryConfig:
    """How an exchange is looked at.

    Attributes:
        batches: Of held-out text, on which the model is compared with its original; 0 for no comparison.
        check: Whether the laws of the attention are tested on the whole model: no leak, tokens mix, decoding agrees.
    """

    batches: int = 2
    check: bool = False

    def __post_init__(self) -> None:
        require_within(self, 0, 2**20, "batches")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """A model whose attention may have been exchanged.

    Attributes:
        model: The model.
        original: What it was; the same model if nothing was exchanged.
        surgery: What was done; None if nothing was.
    """

    model: Model
    original: Model
    surgery: Surgery | None


def operate(model: Model, attention: Mapping[str, Any] | None, layers: tuple[int, ...] | None) -> Operation:
    """Puts the attention that a script was asked for into a model.

    Args:
        model: A whole model.
        attention: As composed from `configs/attention`; None to keep the model's.
        layers: Numbers of the layers that get it; None for all.

    Raises:
        UserError: As `swap_attention`, or if layers are named for no other attention.
    """
    if attention is None:
        if layers is not None:
            raise UserError(f"layers must be null without attention=NAME; got {list(layers)}")
        return Operation(model=model, original=model, surgery=None)
    swapped, surgery = swap_attention(model, variant_from_mapping(attention), layers=layers)
    return Operation(model=swapped, original=model, surgery=surgery)


def look(
    operation: Operation,
    validation: ValidationBatches,
    tokenizer: Tokenizer,
    config: SurgeryConfig,
    *,
    known: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """What exchanging the attention did, as `report` says it; None if nothing was exchanged.

    Args:
        operation: What was done.
        validation: Held-out text.
        tokenizer: Of the model.
        config: How to look.
        known: What an earlier look has found.
    """
    if operation.surgery is None or known is not None:
        return known
    return report(operation, validation.validation_batches(config.batches), tokenizer.token_byte_lengths(), config)


def report(
    operation: Operation,
    batches: Iterable[Batch],
    token_byte_lengths_V: np.ndarray | None,
    config: SurgeryConfig,
) -> dict[str, Any] | None:
    """Logs what was done, and measures what that did.

    Args:
        operation: Both models in evaluation mode.
        batches: Held-out text, of which `config.batches` are taken.
        token_byte_lengths_V: As `measure_damage` takes it.
        config: How it is looked at.

    Returns:
        JSON-ready: what `Surgery` has, and `damage`; None if nothing was exchanged.

    Raises:
        UserError: If the exchanged model breaks a law that `config.check` tests.
    """
    if operation.surgery is None:
        return None
    for line in operation.surgery.lines():
        logger.info("%s", line)
    mapping = operation.surgery.as_mapping()
    if config.check:
        mapping["checks"] = check_laws(operation.model)
        logger.info("on the whole model: %s", "; ".join(mapping["checks"]))
    if config.batches:
        taken = itertools.islice(batches, config.batches)
        damage = measure_damage(operation.model, operation.original, taken, token_byte_lengths_V)
        mapping["damage"] = damage.as_mapping()
        for line in damage.lines():
            logger.info("%s", line)
    return mapping


def check_laws(model: Model) -> list[str]:
    """Tests the laws of its attention on a whole model, with its own weights.

    Returns:
        What holds.

    Raises:
        UserError: On what does not.
    """
    config = model.config
    bound = tolerance(mx.float32)
    bound = Tolerance(value=_DEPTH_FACTOR * bound.value, gradient=_DEPTH_FACTOR * bound.gradient)
    length = min(_CHECKED_LENGTH, config.max_seq_len)
    tokens_BL = mx.random.randint(0, config.vocab_size, (2, length), key=mx.random.key(0))
    causal = config.causal
    may_LS = np.tri(length, dtype=bool) if causal else np.ones((length, length), dtype=bool)
    direct_LS = reach(config.attention.variants(), length, causal=causal)
    held: list[str] = []
    broken: list[str] = []

    def note(check: str, error: float, limit: float) -> None:
        # A NaN is no agreement.
        (held if error <= limit else broken).append(f"{check} (error {error:.1e}, at most {limit:.1e})")

    def another(tokens_BL: mx.array, position: int) -> mx.array:
        changed = mx.array(tokens_BL)
        changed[0, position] = (changed[0, position] + 1) % config.vocab_size
        return changed

    for finding in check_mixing(model, tokens_BL, another, bound, may_LS=may_LS, direct_LS=direct_LS):
        note(finding.check, finding.error, finding.tolerance)
    able = [layer.self_attn.capabilities for layer in model.layers]
    if all(each.segments for each in able):
        # Two documents in a row, of which the first has the token in the middle, which is overwritten.
        second_L = np.arange(length) >= length - length // 3
        segments_BL = mx.broadcast_to(mx.array(second_L.astype(np.int32)), (2, length))
        mask = MaskSpec(causal=causal, segments_BL=segments_BL)
        same_LS = np.equal.outer(second_L, second_L)
        leak, *_ = check_mixing(
            lambda tokens_BL: model(tokens_BL, mask=mask),
            tokens_BL,
            another,
            bound,
            may_LS=may_LS & same_LS,
            direct_LS=direct_LS & same_LS,
        )
        note("no document sees another", leak.error, leak.tolerance)
    if causal and all(each.decode for each in able):
        note("decoding equals the full forward pass", _decoding_error(model, tokens_BL), bound.value)
    if broken:
        raise UserError(f"attention must keep its laws in the whole model; broken: {'; '.join(broken)}")
    return held


def _decoding_error(model: Model, tokens_BL: mx.array) -> float:
    prefix = max(1, tokens_BL.shape[1] - _STEPS)
    cache = model.make_cache()
    pieces = [model(tokens_BL[:, :prefix], cache=cache)]
    pieces += [model(tokens_BL[:, at : at + 1], cache=cache) for at in range(prefix, tokens_BL.shape[1])]
    return relative_error(as_numpy(mx.concatenate(pieces, axis=1)), as_numpy(model(tokens_BL)))
