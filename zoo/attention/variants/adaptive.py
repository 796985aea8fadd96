"""Adaptive attention: one mechanism, computed by whichever of its implementations is fastest for the call at hand.

    y = mechanism(q, k, v), computed by argmin over implementations of seconds(phase, batch * heads, length)

The seconds come from a calibration of this device (`zoo.attention.calibration`), or from rules of thumb where there is
none (`zoo.attention.uncalibrated`). The choice depends on lengths and sizes alone, never on content; it is the same in
a compiled call and in an eager one. Nothing is approximated: all implementations of a mechanism compute one function.

With `allow_mechanisms` it may cross to other softmax mechanisms, and then it computes no single function any more:
which mechanism answers is decided by the number of tokens so far, the same for every phase, batch and head count. The
past still never sees the content of the future, but its values depend on how long the text is; and a text that is
decoded past a border between mechanisms differs from one that was read at once. Its cache is that of full attention,
which holds what any pattern asks for. Mechanisms with another cache, such as linear attention's state, are refused.

No paper: this is dispatch. Letters: B batch, L query length, S key length, N query heads, K key/value heads,
H head_dim.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.attention.calibration import Phase, load_calibration
from zoo.attention.choice import Chooser, Member, has_a_choice
from zoo.attention.choosing import ChoosingMixer
from zoo.attention.interface import Capabilities, LayerShape, Mixer
from zoo.attention.mechanism import GROUPING, HeadGrouping, Mechanism, Op, sample_qkv
from zoo.attention.registry import mechanism, mechanisms
from zoo.config import from_mapping, require
from zoo.ops import softmax
from zoo.ops.masks import MaskSpec

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveConfig(HeadGrouping):
    """What to choose among.

    Attributes:
        of: The mechanism to compute.
        parameters: Its parameters; with `allow_mechanisms`, each goes to all the mechanisms that have it.
        allow_mechanisms: Softmax mechanisms that it may cross to where they are faster.
        calibration: A file to choose by, as it is; None for this device's own, else the rules of thumb.
        phase: Whether calls without a cache are `training` or `forward` calls; None asks the layer, which is in
            training mode or not, and takes an op by itself for `training`, where a wrong choice costs most.
    """

    of: str = "softmax"
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    allow_mechanisms: tuple[str, ...] = ()
    calibration: str | None = None
    phase: Phase | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = [name for name, each in mechanisms().items() if has_a_choice(each)]
        must = "name a mechanism over queries, keys and values that has several implementations"
        require(self.of in choices, "of", must, self.of, allowed=choices)
        if self.allow_mechanisms:
            crossable = [name for name in choices if mechanism(name).reference is softmax.reference]
            must = "be empty unless `of` is a softmax mechanism, for only these share one kind of cache"
            require(self.of in crossable, "allow_mechanisms", must, list(self.allow_mechanisms), allowed=crossable)
            others = [name for name in crossable if name != self.of]
            must = f"name softmax mechanisms other than {self.of!r}, which can share its cache of keys and values"
            for name in self.allow_mechanisms:
                require(name in others, "allow_mechanisms", must, name, allowed=others)
        fields = {name: _own_fields(mechanism(name)) for name in (self.of, *self.allow_mechanisms)}
        known = sorted(set().union(*fields.values()))
        for name in self.parameters:
            require(name in known, "parameters", f"be those of {', '.join(fields)}", name, allowed=known)
        assert self.members

    @functools.cached_property
    def members(self) -> tuple[Member, ...]:
        """`of` and the mechanisms it may cross to, configured."""
        grouping = {name: getattr(self, name) for name in GROUPING}
        members = []
        for name in dict.fromkeys((self.of, *self.allow_mechanisms)):
            declared = mechanism(name)
            own = {key: value for key, value in self.parameters.items() if key in _own_fields(declared)}
            parameters = from_mapping(declared.config, {**grouping, **own}, path="attention.parameters")
            members.append(Member(declared=declared, parameters=parameters))
        return tuple(members)

    def chooser(self) -> Chooser:
        """A choice among the members by what is known now.

        Raises:
            UserError: If the named calibration is none.
        """
        return Chooser(self.members, load_calibration(self.calibration))


def _own_fields(declared: Mechanism) -> set[str]:
    return {field.name for field in dataclasses.fields(declared.config)} - set(GROUPING)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveSpec:
    """The op's last argument, for whichever mechanism is chosen."""

    config: AdaptiveConfig
    mask: MaskSpec
    head_dim: int
    slopes_N: mx.array | None

    def of(self, member: Member) -> Any:
        """The last argument of a member's op."""
        return member.declared.make_spec(member.parameters, self.mask, self.head_dim, self.slopes_N)


def mixer_of(config: AdaptiveConfig, implementation: str, shape: LayerShape) -> Mixer:
    """A mixer of whichever implementation is chosen for a call."""
    keeper, capabilities = None, capabilities_of(config, implementation)
    if config.allow_mechanisms:
        full = mechanism("softmax")
        keeper = full.make_mixer(full.config(), next(iter(full.implementations)), shape)
        _say_that_it_crosses(capabilities.exact_class)
    return ChoosingMixer(capabilities, config.chooser(), shape, phase=config.phase, keeper=keeper)


@functools.cache
def _say_that_it_crosses(exact_class: str) -> None:
    logger.warning("adaptive attention may cross mechanisms by length: it is no longer one function (%s)", exact_class)


def capabilities_of(config: AdaptiveConfig, implementation: str = "calibrated") -> Capabilities:
    """Those of the mechanism, in any of its implementations; of several mechanisms, what all of them can do."""
    widest = []
    for member in config.members:
        able = [
            member.declared.capabilities(member.parameters, name) for name in member.declared.implementations_here()
        ]
        causal, bidirectional = any(one.causal for one in able), any(one.bidirectional for one in able)
        widest.append(dataclasses.replace(able[0], causal=causal, bidirectional=bidirectional))
    if len(widest) == 1:
        return widest[0]
    return Capabilities(
        causal=all(one.causal for one in widest),
        bidirectional=all(one.bidirectional for one in widest),
        decode=all(one.decode for one in widest),
        exact_class=f"adaptive({'|'.join(one.exact_class for one in widest)})",
        trimmable=True,
        padding=all(one.padding for one in widest),
        segments=all(one.segments for one in widest),
        grouped_heads=all(one.grouped_heads for one in widest),
        alibi=all(one.alibi for one in widest),
    )


def op_of(config: AdaptiveConfig) -> Op:
    """The op `(q_BNLH, k_BKSH, v_BKSH, AdaptiveSpec) -> y_BNLH`."""
    chooser = config.chooser()
    ops = {
        (member.declared.name, name): member.declared.implementations[name](member.parameters)
        for member in config.members
        for name in member.declared.implementations_here()
    }

    def op(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: AdaptiveSpec) -> mx.array:
        chosen = chooser.choose(
            phase=config.phase or "training",
            rows=q_BNLH.shape[0] * q_BNLH.shape[1],
            length=k_BKSH.shape[2],
            causal=spec.mask.causal,
        )
        return ops[chosen](q_BNLH, k_BKSH, v_BKSH, spec.of(chooser.members[chosen[0]]))

    return op


def reference(q_BNLH: np.ndarray, k_BKSH: np.ndarray, v_BKSH: np.ndarray, spec: AdaptiveSpec) -> np.ndarray:
    """That of the mechanism which the length chooses, float64."""
    members = spec.config.members
    member = members[0] if len(members) == 1 else _member_at(spec.config, k_BKSH.shape[2])
    y_BNLH: np.ndarray = member.declared.reference(q_BNLH, k_BKSH, v_BKSH, spec.of(member))
    return y_BNLH


def _member_at(config: AdaptiveConfig, length: int) -> Member:
    chooser = config.chooser()
    return chooser.members[chooser.mechanism(length)]


def spec_of(config: AdaptiveConfig, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None = None) -> AdaptiveSpec:
    """The op's last argument."""
    return AdaptiveSpec(config=config, mask=mask, head_dim=head_dim, slopes_N=slopes_N)


def _stands_for(config: AdaptiveConfig) -> tuple[Mechanism, Any]:
    """The mechanism among whose implementations it chooses; itself where it crosses, a function of its own."""
    member = config.members[0]
    return (MECHANISM, config) if config.allow_mechanisms else (member.declared, member.parameters)


MECHANISM = Mechanism(
    name="adaptive",
    config=AdaptiveConfig,
    implementations={"calibrated": op_of},
    capabilities=capabilities_of,
    mixer=mixer_of,
    make_spec=spec_of,
    reference=reference,
    sample_inputs=sample_qkv,
    tuning=("phase",),
    stands_for=_stands_for,
)
