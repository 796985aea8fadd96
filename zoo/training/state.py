"""What a run remembers besides weights and optimizer, and what may change when it goes on."""

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

from zoo.config import UserError, from_mapping, require
from zoo.runtime.seeds import random_key, set_random_key
from zoo.training.config import RESUMABLE_CHANGES

# Fields of a corpus that its text does not decide: how tokens become rows, and what of examples is learnt.
_ROW_FIELDS = ("data.packing", "data.mask_documents", "data.pack", "data.loss_on", "data.format", "data.chat_template")
_MEANINGS = ("data.keys.", "data.roles.")
_IDENTITY = frozenset({"data.identity.train", "data.identity.validation"})
_FINGERPRINT = "data.fingerprint"
# What digests stand for, in words.
_DIGESTS = {
    "data.identity.train": "the training text of data",
    "data.identity.validation": "the validation text of data",
    "data.tokenizer": "the tokenizer",
    _FINGERPRINT: "the text of data, or its tokenizer,",
}
# The fields by which a section says what it is; its other fields follow.
_CHOICES = ("name", "family", "kind", "corpus")


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Progress of a run. Stored as JSON in every checkpoint; floats come back bit for bit.

    Attributes:
        step: Optimizer steps done.
        tokens: Tokens read so far, padding not counted.
        original_tokens: Those that an original, which the model is to be like, has read as well.
        seconds: Wall-clock time in the training loop over all resumptions.
        timed_seconds: Time of the steps that count for speed: not the first after a start, no evaluation, no saving.
        timed_tokens: Tokens of those steps.
        first_loss: Loss of the first step of the present objective; on text, nats per token.
        last_loss: Mean loss of the last complete window of logged steps.
        attention_losses: The two of the steps that have matched attention layers, once these are over.
        window_nats: Loss since the last logged row, summed.
        window_weight: Its weight, on text predicted tokens.
        evaluation: Values of the last evaluation, with its step.
        best_step: Step of the evaluation of the least loss whose weights are kept; None if there is none.
        best_loss: That loss, nats per token.
    """

    step: int = 0
    tokens: int = 0
    original_tokens: int = 0
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_tokens: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    attention_losses: tuple[float | None, float | None] | None = None
    window_nats: float = 0.0
    window_weight: float = 0.0
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int | None = None
    best_loss: float | None = None

    def begin_text(self) -> None:
        """Goes on from steps that matched attention layers to those whose loss is of tokens."""
        self.attention_losses = (self.first_loss, self.last_loss)
        self.first_loss = self.last_loss = None

    @property
    def loss(self) -> float | None:
        """Latest mean loss, nats per token; None before the first step."""
        if self.last_loss is None and self.window_weight:
            return self.window_nats / self.window_weight
        return self.last_loss

    def as_mapping(self) -> dict[str, Any]:
        """JSON-ready, with the state of the random generator."""
        return {**dataclasses.asdict(self), "random_state": list(random_key())}

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], *, path: str) -> "TrainingState":
        """Makes a state of what `as_mapping` gave; the random generator stays as it is.

        Args:
            mapping: Perhaps from a stranger's file.
            path: Where it stands, for messages.

        Raises:
            UserError: On a missing, unknown or mistyped field.
        """
        return from_mapping(_Saved, mapping, path=path).without_random_state()

    @classmethod
    def restore(cls, mapping: Mapping[str, Any], *, path: str = "training_state") -> "TrainingState":
        """Makes a state of what `as_mapping` gave, and puts the random generator where it was.

        Raises:
            UserError: As `parse`.
        """
        saved = from_mapping(_Saved, mapping, path=path)
        set_random_key(*saved.random_state)
        return saved.without_random_state()


@dataclasses.dataclass(kw_only=True)
class _Saved(TrainingState):
    """A state as a checkpoint holds it.

    Attributes:
        random_state: The random generator's key.
    """

    random_state: tuple[int, int]

    def __post_init__(self) -> None:
        # Doubles count no further.
        for field in ("step", "tokens", "original_tokens", "timed_tokens"):
            require(0 <= getattr(self, field) < 2**53, field, "be at least 0 and below 2^53", getattr(self, field))
        require(
            (self.best_step is None) == (self.best_loss is None), "best_loss", "come with best_step", self.best_loss
        )
        require(self.best_step is None or 0 <= self.best_step <= self.step, "best_step", "be a step", self.best_step)
        for field in ("seconds", "timed_seconds", "window_weight"):
            require(getattr(self, field) >= 0, field, "be at least 0", getattr(self, field))
        require(all(0 <= half < 2**32 for half in self.random_state), "random_state", "be 32 bits each", "others")
        for name, value in self.evaluation.items():
            number = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            require(number and (name != "step" or isinstance(value, int)), f"evaluation.{name}", "be a number", value)

    def without_random_state(self) -> TrainingState:
        """What the run goes on with."""
        fields = dataclasses.fields(TrainingState)
        return TrainingState(**{field.name: getattr(self, field.name) for field in fields})


def require_same_configuration(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under another configuration.

    Data and tokenizer are compared by their content: the same text under another path is the same, another text under
    the same path is not. Checkpoints from before data had an identity are compared by their fingerprint.

    Args:
        saved: Nested, JSON-ready configuration of the run.
        current: The one asked for.

    Raises:
        UserError: Names the choice that differs before what follows from it, and what may differ.
    """
    before, now = _flatten(saved, ""), _flatten(current, "")
    keys = before.keys() | now.keys()
    for key in sorted(keys - RESUMABLE_CHANGES - _known_by_content(before, now), key=_consequence):
        if before.get(key) == now.get(key):
            continue
        if key in _DIGESTS:
            raise UserError(
                f"resume: {_DIGESTS[key]} has changed since the run began (bring back what it was, or choose another "
                "run_dir)"
            )
        allowed = ", ".join(sorted(RESUMABLE_CHANGES))
        raise UserError(
            f"resume: {_as_typed(key)} must stay {before.get(key)!r} as in the run; got {now.get(key)!r} (only these "
            f"may change: {allowed}; or choose another run_dir)"
        )


def _known_by_content(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Keys that need not be compared, since digests say the same of the content."""
    text, tokenizer, known = _IDENTITY, frozenset({"data.tokenizer"}), {_FINGERPRINT}
    if not text <= before.keys():
        known = {*text, *tokenizer}
        text = tokenizer = frozenset({_FINGERPRINT})

    def same(digests: Set[str]) -> bool:
        return all(before.get(key) is not None and before[key] == now.get(key) for key in digests)

    keys = before.keys() | now.keys()
    if same(text):
        of_data = {key for key in keys - _DIGESTS.keys() if key.startswith("data.") and key not in _ROW_FIELDS}
        known |= {key for key in of_data if not key.startswith(_MEANINGS)}
    if same(tokenizer):
        known |= {key for key in keys if key.startswith("tokenizer.")}
    return known


def _as_typed(key: str) -> str:
    """The key on the command line, where the attention is chosen beside the model."""
    return key.removeprefix("model.") if key.startswith("model.attention.") else key


def _consequence(key: str) -> tuple[int, str]:
    """Sorts choices first and digests of everything last."""
    return (0 if key.rpartition(".")[2] in _CHOICES else 2 if key in _DIGESTS else 1), key


def _flatten(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [_flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: leaf for item in items for key, leaf in item.items()}
    return {path: list(value) if isinstance(value, tuple) else value}
