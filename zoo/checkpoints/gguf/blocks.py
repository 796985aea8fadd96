"""The kinds of numbers in GGUF files, as arrays of MLX without a loss.

Blocks of 32 numbers along a row share their scales, which is MLX's affine quantization in groups of 32:

    Q4_0:  w = d (q - 8)      = d q + (-8 d)          d float16, q 4 bits
    Q4_1:  w = d q + m                                d, m float16
    Q8_0:  w = d p            = d (p + 128) - 128 d   d float16, p int8

Both sides are computed in float32, where d q has no rounding error, so the numbers are the same. A byte of the 4-bit
kinds holds number j of its block in the low half and number j + 16 in the high one; MLX keeps neighbours together.
"""

import dataclasses
import math
from typing import Literal

import mlx.core as mx
import numpy as np

GROUP_SIZE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to write numbers.

    Attributes:
        name: As other tools call it.
        num_values: Numbers in a block.
        num_bytes: Bytes of a block.
        bits: Of a quantized number; None of floating-point ones.
        dtype: Of floating-point numbers; None of quantized ones.
    """

    name: Literal["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"]
    num_values: int = 1
    num_bytes: int
    bits: int | None = None
    dtype: mx.Dtype | None = None

    def arrays(self, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...], int]]:
        """What `decoded` makes of a tensor: of each array its dtype as safetensors name it, its shape and its bytes."""
        count = math.prod(shape)
        if self.bits is None:
            return {"weight": (self.name, shape, count * self.num_bytes)}
        *rows, length = shape
        grouped = ("F32", (*rows, length // GROUP_SIZE), 4 * count // GROUP_SIZE)
        packed = ("U32", (*rows, length * self.bits // 32), count * self.bits // 8)
        return {"weight": packed, "scales": grouped, "biases": grouped}


# By ggml's numbers.
KINDS: dict[int, Kind] = {
    0: Kind(name="F32", num_bytes=4, dtype=mx.float32),
    1: Kind(name="F16", num_bytes=2, dtype=mx.float16),
    30: Kind(name="BF16", num_bytes=2, dtype=mx.bfloat16),
    2: Kind(name="Q4_0", num_values=GROUP_SIZE, num_bytes=18, bits=4),
    3: Kind(name="Q4_1", num_values=GROUP_SIZE, num_bytes=20, bits=4),
    8: Kind(name="Q8_0", num_values=GROUP_SIZE, num_bytes=34, bits=8),
}
# What else other tools write, to be named where it is refused.
OTHER_KINDS = {
    6: "Q5_0",
    7: "Q5_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


def decoded(kind: Kind, shape: tuple[int, ...], content: bytes) -> dict[str, mx.array]:
    """A tensor's bytes as arrays.

    Args:
        kind: How they are written.
        shape: The tensor's; rows of whole blocks.
        content: All its bytes.

    Returns:
        `weight`; of a quantized tensor packed as MLX packs it, with its `scales` and `biases` in float32.
    """
    if kind.dtype is not None:
        plain = mx.array(np.frombuffer(content, np.uint8)).view(kind.dtype)
        return {"weight": plain.reshape(shape)}
    blocks = np.frombuffer(content, np.uint8).reshape(-1, kind.num_bytes)
    num_scales = 2 if kind.name == "Q4_1" else 1
    packed = blocks[:, 2 * num_scales :]
    # What is not finite is refused by name when all arrays are there.
    with np.errstate(all="ignore"):
        numbers = np.ascontiguousarray(blocks[:, : 2 * num_scales]).view("<f2").astype(np.float32)
        scales = numbers[:, 0]
        biases = numbers[:, 1] if num_scales == 2 else scales * (-128 if kind.bits == 8 else -8)
    if kind.bits == 8:
        # p + 128, of the same eight bits.
        packed = packed ^ np.uint8(0x80)
    else:
        values = np.concatenate([packed & 0xF, packed >> 4], axis=1)
        packed = values[:, 0::2] | values[:, 1::2] << 4
    words = np.ascontiguousarray(packed).view("<u4")
    rows, grouped = shape[:-1], (*shape[:-1], shape[-1] // GROUP_SIZE)
    return {
        "weight": mx.array(words).reshape(*rows, -1),
        "scales": mx.array(scales).reshape(grouped),
        "biases": mx.array(biases).reshape(grouped),
    }
