"""What a run remembers besides weights and optimizer, and what may change when it goes on."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import mlx.core as mx

from zoo.config import UserError
from zoo.training.config import RESUMABLE_CHANGES

# The fields by which a section says what it is; its other fields follow.
_CHOICES = ("name", "family", "kind", "corpus")


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Progress of a run. Stored as JSON in every checkpoint; floats come back bit for bit.

    Attributes:
        step: Optimizer steps done.
        tokens: Tokens read so far, padding not counted.
        seconds: Wall-clock time in the training loop over all resumptions.
        timed_seconds: Time of the steps that count for speed: not the first after a start, no evaluation, no saving.
        timed_tokens: Tokens of those steps.
        first_loss: Loss of the first step, nats per token.
        last_loss: Mean loss of the last complete window of logged steps, nats per token.
        window_nats: Nats since the last logged row.
        window_weight: Predicted tokens since the last logged row.
        evaluation: Values of the last evaluation, with its step.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_tokens: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    window_nats: float = 0.0
    window_weight: float = 0.0
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Latest mean loss, nats per token; None before the first step."""
        if self.last_loss is None and self.window_weight:
            return self.window_nats / self.window_weight
        return self.last_loss

    def as_mapping(self) -> dict[str, Any]:
        """JSON-ready, with the state of the random generator."""
        (key,) = cast(list[mx.array], mx.random.state)
        return {**dataclasses.asdict(self), "random_state": key.tolist()}

    @classmethod
    def restore(cls, mapping: Mapping[str, Any]) -> "TrainingState":
        """Makes a state of what `as_mapping` gave, and puts the random generator where it was."""
        rest = dict(mapping)
        high, low = rest.pop("random_state")
        # The generator's key cannot be assigned; a seed of 64 bits is that key.
        mx.random.seed((high << 32) | low)
        return cls(**rest)


def require_same_configuration(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under another configuration.

    Args:
        saved: Nested, JSON-ready configuration of the run.
        current: The one asked for.

    Raises:
        UserError: Names the choice that differs before what follows from it, and what may differ.
    """
    before, now = _flatten(saved, ""), _flatten(current, "")
    for key in sorted(before.keys() | now.keys(), key=_consequence):
        if before.get(key) == now.get(key) or key in RESUMABLE_CHANGES:
            continue
        allowed = ", ".join(sorted(RESUMABLE_CHANGES))
        raise UserError(
            f"resume: {_as_typed(key)} must stay {before.get(key)!r} as in the run; got {now.get(key)!r} (only these "
            f"may change: {allowed}; or choose another run_dir)"
        )


def _as_typed(key: str) -> str:
    """The key on the command line, where the attention is chosen beside the model."""
    return key.removeprefix("model.") if key.startswith("model.attention.") else key


def _consequence(key: str) -> tuple[int, str]:
    """Sorts choices first and digests of everything last."""
    last = key.rpartition(".")[2]
    return (0 if last in _CHOICES else 2 if last == "fingerprint" else 1), key


def _flatten(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [_flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: leaf for item in items for key, leaf in item.items()}
    return {path: list(value) if isinstance(value, tuple) else value}
