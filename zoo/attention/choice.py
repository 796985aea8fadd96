"""Which mechanism and which implementation computes a call, by lengths and sizes alone, never by content.

A choice is a pure function of static shapes, so that a compiled call chooses as an eager one does.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from zoo.attention.calibration import Calibration, Phase, load_calibration
from zoo.attention.mechanism import GROUPING, Mechanism, sample_qkv
from zoo.attention.uncalibrated import uncalibrated_choice
from zoo.config import to_mapping
from zoo.runtime.backend import backend

# Between mechanisms the length decides and nothing else; their times are compared for a sequence of eight heads.
CROSSING_ROWS = 8


def has_a_choice(declared: Mechanism) -> bool:
    """Whether a mechanism mixes queries, keys and values, which any of several implementations may be handed."""
    plain = declared.mixer is not None and declared.sample_inputs is sample_qkv and declared.learned is None
    return plain and len(declared.implementations) > 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A configured mechanism that may be chosen.

    Attributes:
        declared: The mechanism.
        parameters: Its config.
    """

    declared: Mechanism
    parameters: Any

    @property
    def own_parameters(self) -> dict[str, Any]:
        """The parameters as a mapping, head grouping left out: it changes no choice."""
        return {name: value for name, value in to_mapping(self.parameters).items() if name not in GROUPING}

    def implementations(self, *, causal: bool) -> tuple[str, ...]:
        """Those that work here and can look this way, none under a second name, the default first."""
        found: dict[str, Any] = {}
        for name in self.declared.implementations_here():
            op = self.declared.implementations[name](self.parameters)
            able = self.declared.capabilities(self.parameters, name)
            if (able.causal if causal else able.bidirectional) and op not in found.values():
                found[name] = op
        return tuple(found)


class Chooser:
    """Chooses among members and their implementations."""

    def __init__(self, members: Sequence[Member], calibration: Calibration | None) -> None:
        """Binds a choice to what was measured.

        Args:
            members: At least one; the first is the mechanism to compute, the others are those it may cross to.
            calibration: Measured times; None for rules of thumb, which never cross.
        """
        self.members = {member.declared.name: member for member in members}
        self._first = members[0].declared.name
        self._calibration = calibration
        self._device = backend()
        # A decoder asks for a new length at each token, so what is kept is bounded.
        self.implementation: Callable[..., str] = functools.lru_cache(maxsize=512)(self._implementation)
        self.mechanism: Callable[[int], str] = functools.lru_cache(maxsize=512)(self._mechanism)

    def choose(self, *, phase: Phase, rows: int, length: int, causal: bool) -> tuple[str, str]:
        """Names of the mechanism and the implementation.

        Args:
            phase: Which call.
            rows: Batch size times query heads.
            length: Tokens of the sequence so far, this call's included.
            causal: Whether the future is hidden.
        """
        name = self._first if len(self.members) == 1 else self.mechanism(length)
        # How one token is decoded hardly depends on the length: to the next power of two is near enough.
        nearby = 1 << (length - 1).bit_length() if phase == "decode" else length
        return name, self.implementation(name, phase, rows, nearby, causal)

    def _mechanism(self, length: int) -> str:
        """The mechanism that trains fastest at this length; the same whatever the phase, the batch and the heads.

        So a model decodes what it was trained as. Mechanisms without a measurement are not crossed to.
        """
        best: dict[str, float] = {}
        for name, member in self.members.items():
            times = self._times(name, member.implementations(causal=True), "training", CROSSING_ROWS, length)
            if times:
                best[name] = min(times.values())
        return min(best, key=lambda name: best[name]) if self._first in best else self._first

    def _implementation(self, name: str, phase: Phase, rows: int, length: int, causal: bool) -> str:
        able = self.members[name].implementations(causal=causal)
        times = self._times(name, able, phase, rows, length)
        if times:
            return min(times, key=lambda each: times[each])
        return uncalibrated_choice(able, phase=phase, rows=rows, length=length, device=self._device)

    def _times(
        self, name: str, implementations: Sequence[str], phase: Phase, rows: int, length: int
    ) -> dict[str, float]:
        if self._calibration is None:
            return {}
        parameters = self.members[name].own_parameters
        times = {
            each: self._calibration.seconds(
                mechanism=name,
                parameters=parameters,
                implementation=each,
                phase=phase,
                rows=rows,
                length=length,
            )
            for each in implementations
        }
        return {each: seconds for each, seconds in times.items() if seconds is not None}


def chosen_implementation(
    declared: Mechanism, parameters: Any, *, phase: Phase, rows: int, length: int, causal: bool
) -> str:
    """The implementation that `auto` takes for a call on this device, by this device's own calibration if it has one.

    Args:
        declared: The mechanism.
        parameters: Its config.
        phase: Which call.
        rows: Batch size times query heads.
        length: L, or the tokens in the cache.
        causal: Whether the future is hidden.
    """
    chooser = Chooser([Member(declared=declared, parameters=parameters)], load_calibration(None))
    return chooser.choose(phase=phase, rows=rows, length=length, causal=causal)[1]
