"""Every registered mechanism × implementation, with parameters small enough that short texts cross their borders."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

import mlx.core as mx
import numpy as np

from zoo.attention import Attention, Capabilities, LayerShape, mechanism, mechanism_names
from zoo.attention.mechanism import GROUPING, Mechanism
from zoo.ops.masks import MaskSpec

# Pairwise different and odd: equal sizes hide swapped axes.
NUM_HEADS, HEAD_DIM, HIDDEN_SIZE = 6, 10, 34
SHRUNK = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """One mechanism with one implementation and one set of parameters."""

    mechanism_name: str
    implementation: str
    parameters: Any
    label: str = ""

    def __str__(self) -> str:
        return f"{self.mechanism_name}-{self.implementation}{self.label}"

    @property
    def mechanism(self) -> Mechanism:
        return mechanism(self.mechanism_name)

    @property
    def capabilities(self) -> Capabilities:
        return self.mechanism.capabilities(self.parameters, self.implementation)

    @property
    def directions(self) -> list[bool]:
        """The values of `causal` that the mechanism declares."""
        declared = {True: self.capabilities.causal, False: self.capabilities.bidirectional}
        return [causal for causal, able in declared.items() if able]

    def op(self) -> Any:
        return self.mechanism.implementations[self.implementation](self.parameters)

    def samples(self, generator: np.random.Generator, *sizes: int) -> tuple[np.ndarray, ...]:
        """Float64 inputs of the op from (B, L, N, K, H)."""
        return self.mechanism.inputs(self.parameters, generator, *sizes)

    def spec(self, mask: MaskSpec, slopes_N: mx.array | None = None) -> Any:
        return self.mechanism.make_spec(self.parameters, mask, HEAD_DIM, slopes_N)

    def layer(self, *, causal: bool, **changes: Any) -> Attention:
        """A layer with random weights large enough that every path matters."""
        mx.random.seed(7)
        layer = self.mechanism.make_layer(self.parameters, self.implementation, layer_shape(causal=causal, **changes))
        mx.eval(layer.parameters())
        return layer

    def reach(self, length: int, *, causal: bool) -> np.ndarray:
        """bool [L, L]: which outputs (rows) depend on which inputs (columns), by the declared pattern."""
        query, key = np.arange(length)[:, None], np.arange(length)[None, :]
        pattern = self.mechanism.pattern
        allowed = np.ones((length, length), dtype=bool)
        if pattern is not None:
            allowed = np.broadcast_to(pattern(query, key, self.parameters), (length, length))
        return (allowed & (key <= query) if causal else allowed) | (query == key)


def layer_shape(*, causal: bool, **changes: Any) -> LayerShape:
    """The shape of a small model around the layer."""
    shape = LayerShape(
        hidden_size=HIDDEN_SIZE,
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_HEADS,
        head_dim=HEAD_DIM,
        causal=causal,
        max_seq_len=256,
        positions="none",
    )
    return dataclasses.replace(shape, **changes)


def parameter_sets(declared: Mechanism) -> list[tuple[str, Any]]:
    """Parameters to test: sizes shrunk, those that may be left out in both ways, and every choice of names."""
    hints = get_type_hints(declared.config)
    shrunk, choices = {}, []
    for field in dataclasses.fields(declared.config):
        default = getattr(declared.config(), field.name)
        if field.name in GROUPING:
            continue
        if isinstance(default, int) and not isinstance(default, bool) and default > SHRUNK:
            shrunk[field.name] = SHRUNK
        if get_origin(hints[field.name]) is Literal:
            choices.append((field.name, get_args(hints[field.name])))
        if default is None and int in get_args(hints[field.name]):
            choices.append((field.name, (None, SHRUNK)))
    if not choices:
        return [("", declared.config(**shrunk))]
    return [(f"-{value}", declared.config(**{**shrunk, name: value})) for name, values in choices for value in values]


CASES = [
    Case(name, implementation, parameters, label)
    for name in mechanism_names()
    for label, parameters in parameter_sets(mechanism(name))
    for implementation in mechanism(name).implementations_here()
]
CAUSAL = [case for case in CASES if case.capabilities.causal]
DECODING = [case for case in CASES if case.capabilities.decode]
DIRECTED = [(case, causal) for case in CASES for causal in case.directions]


def directed_id(value: Any) -> str:
    """Test ids such as `sliding_window-chunked` and `causal`."""
    return {True: "causal", False: "bidirectional"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def hidden_states(seed: int, batch_size: int, length: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Standard-normal x_BLD."""
    values = np.random.default_rng(seed).standard_normal((batch_size, length, HIDDEN_SIZE))
    return mx.array(values.astype(np.float32)).astype(dtype)
