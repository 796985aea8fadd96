"""A mixer that hands each call to whichever implementation is chosen for it: `adaptive`, and `implementation: auto`.

The choice depends on lengths and sizes alone, never on content, so that a compiled call chooses as an eager one does.
"""

import functools
import logging
from typing import Any

import mlx.core as mx

from zoo.attention.calibration import Phase
from zoo.attention.choice import Chooser
from zoo.attention.interface import Cache, Capabilities, LayerShape, Mixer
from zoo.attention.mechanism import Op
from zoo.config import UserError
from zoo.ops.masks import MaskSpec

logger = logging.getLogger(__name__)


class ChoosingMixer(Mixer):
    """The mixers of a chooser's members, in each of their implementations."""

    def __init__(
        self,
        capabilities: Capabilities,
        chooser: Chooser,
        shape: LayerShape,
        *,
        phase: Phase | None = None,
        keeper: Mixer | None = None,
    ) -> None:
        """Makes the mixers to choose among.

        Args:
            capabilities: What all of them together can do.
            chooser: Names one for a call.
            shape: The model around it.
            phase: Of calls without a cache; None asks the layer, which is in training mode or not.
            keeper: Makes the cache, which all of them can use; None for the first mixer.
        """
        super().__init__(capabilities, shape)
        self._phase = phase
        self._chooser = chooser
        self._mixers = {
            (member.declared.name, name): member.declared.make_mixer(member.parameters, name, shape)
            for member in chooser.members.values()
            for name in member.implementations(causal=shape.causal)
        }
        self._keeper = keeper or next(iter(self._mixers.values()))

    def learned(self) -> dict[str, mx.array]:
        return dict(self._keeper.learned())

    def __call__(self, *inputs: mx.array, mask: MaskSpec, cache: Cache | None, training: bool) -> mx.array:
        B, N, L, _ = inputs[0].shape
        phase: Phase = self._phase or ("training" if training else "forward")
        if cache is not None:
            phase = "decode" if L == 1 else "forward"
        length = L + mask.offset if isinstance(mask.offset, int) else L
        if len(self._chooser.members) > 1 and not isinstance(mask.offset, int):
            raise UserError(
                "attention: prompts of different lengths must not share a batch, since each length may have another "
                "mechanism (attention.allow_mechanisms); generate from one prompt at a time"
            )
        chosen = self._chooser.choose(phase=phase, rows=B * N, length=length, causal=mask.causal)
        _say_what_computes(phase, *chosen)
        return self._mixers[chosen](*inputs, mask=mask, cache=cache, training=training)

    def flops(self, *, query_length: int, key_length: int) -> int:
        chosen = self._chooser.choose(
            phase="forward", rows=self.shape.num_heads, length=key_length, causal=self.shape.causal
        )
        return self._mixers[chosen].flops(query_length=query_length, key_length=key_length)

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        rows = batch_size * self.shape.num_heads
        chosen = self._chooser.choose(phase="training", rows=rows, length=length, causal=self.shape.causal)
        return self._mixers[chosen].kept_numbers(batch_size=batch_size, length=length)

    def make_cache(self) -> Cache:
        return self._keeper.make_cache()

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        return self._keeper.cache_bytes(batch_size=batch_size, length=length, dtype=dtype)


def choosing_op(chooser: Chooser, *, phase: Phase = "training") -> Op:
    """The op of a chooser of one member, in whichever implementation is chosen for the sizes at hand."""
    (member,) = chooser.members.values()

    def op(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, *rest: Any) -> mx.array:
        spec = rest[-1]
        _, name = chooser.choose(
            phase=phase,
            rows=q_BNLH.shape[0] * q_BNLH.shape[1],
            length=k_BKSH.shape[2],
            causal=spec.mask.causal,
        )
        return member.declared.implementations[name](member.parameters)(q_BNLH, k_BKSH, v_BKSH, *rest)

    return op


@functools.cache
def _say_what_computes(phase: Phase, mechanism: str, implementation: str) -> None:
    # A training's result says it too; whoever asks for a text waits for nothing else.
    level = logging.INFO if phase == "training" else logging.DEBUG
    logger.log(
        level, "attention: %s is computed by its implementation %s in %s calls", mechanism, implementation, phase
    )
