"""Exchanges a checkpoint's attention for a script, and reports on stderr and as JSON what that did to the model."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from eval.checks import Finding
from eval.checks.model import check_continuation, check_tokens
from zoo.attention import variant_from_mapping
from zoo.checkpoints import Surgery, exchanged
from zoo.config import MOST, UserError, require_within
from zoo.data import Tokenizer
from zoo.data.loader import Batch
from zoo.models import Model
from zoo.training import ValidationBatches, measure_damage

logger = logging.getLogger(__name__)

# Past the borders of default windows and blocks.
_CHECKED_LENGTH = 192


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
        require_within(self, 0, MOST, "batches")


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
    chosen = None if attention is None else variant_from_mapping(attention)
    swapped, surgery = exchanged(model, chosen, layers)
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
    lengths_V = None if operation.model.config.classifies else tokenizer.token_byte_lengths()
    return report(operation, validation.validation_batches(config.batches), lengths_V, config)


def report(
    operation: Operation,
    batches: Iterable[Batch],
    token_byte_lengths_V: np.ndarray | None,
    config: SurgeryConfig,
) -> dict[str, Any] | None:
    """Logs what was done, and measures what that did.

    Args:
        operation: Both models in evaluation mode.
        batches: Held-out text, `config.batches` of it.
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
        damage = measure_damage(operation.model, operation.original, batches, token_byte_lengths_V)
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
    length = min(_CHECKED_LENGTH, config.max_seq_len)
    tokens_BL = mx.random.randint(0, config.vocab_size, (2, length), key=mx.random.key(0))
    findings = check_tokens(model, tokens_BL)
    able = [layer.self_attn.capabilities for layer in model.layers]
    if all(each.segments for each in able):
        # The first of two documents has the token in the middle, which is overwritten.
        leak, *_ = check_tokens(model, tokens_BL, second_L=np.arange(length) >= length - length // 3)
        findings.append(dataclasses.replace(leak, check="no document sees another"))
    if config.causal and all(each.decode for each in able):
        findings.append(check_continuation(model, tokens_BL))
    broken = [_said(each) for each in findings if not each.passed]
    if broken:
        raise UserError(f"attention must keep its laws in the whole model; broken: {'; '.join(broken)}")
    return [_said(each) for each in findings]


def _said(finding: Finding) -> str:
    return f"{finding.check} (error {finding.error:.1e}, at most {finding.tolerance:.1e})"
