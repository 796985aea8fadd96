"""Runs the text of our Metal kernels on the processor, with `metal_on_cpu.h` in the place of Apple's language.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import ctypes
import dataclasses
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from zoo.ops.kernels import attention
from zoo.ops.kernels.attention import INPUTS, OUTPUTS, THREADS, TILE, kernel_text
from zoo.ops.softmax import ScoreSpec

COMPILER = shutil.which("g++")
_HERE = Path(__file__).parent
_TYPES = {np.dtype(np.float32): "metal_on_cpu::real", np.dtype(np.int32): "int32_t", np.dtype(np.uint8): "uint8_t"}
# What a text says -> what it is to say instead, to plant a fault.
Fault = tuple[str, str]
# A kernel by its name, as it is or with a fault.
Kernel = tuple[str, Fault | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave.

    Attributes:
        problem: What went wrong, empty if nothing did.
        arrays: Outputs by name.
    """

    problem: str
    arrays: Mapping[str, np.ndarray]


def run(
    kernel: Kernel, arrays: Mapping[str, np.ndarray], folder: Path, *, together: Sequence[Kernel] | None = None
) -> Outcome:
    """Runs a kernel.

    Args:
        kernel: The kernel.
        arrays: All its inputs.
        folder: For what is compiled; libraries that are there already are used.
        together: What is compiled in one go, the kernel among it: most of what is compiled is the headers. None for all
            kernels as they are.
    """
    name, _ = kernel
    _, N, L, H = arrays["q"].shape
    B, K, S, _ = arrays["k"].shape
    shapes = {"log_sums": (B, N, L), "dk": (B, K, S, H), "dv": (B, K, S, H)}
    outputs = {each: np.full(shapes.get(each, (B, N, L, H)), np.nan, dtype=np.float32) for each in OUTPUTS[name]}
    given = [np.ascontiguousarray(arrays[each]) for each in INPUTS[name]] + [*outputs.values()]
    tiles, heads = (-(-S // TILE), K) if name == "attention_keys" else (-(-L // TILE), N)
    kinds = {each: _TYPES[array.dtype] for each, array in {**arrays, **outputs}.items()}
    kernels = [(each, None) for each in INPUTS] if together is None else together
    function: Callable[..., bytes] = getattr(_compiled(kernels, H, kinds, folder), f"kernel_{kernels.index(kernel)}")
    function.restype = ctypes.c_char_p
    pointers = (ctypes.c_void_p * len(given))(*(each.ctypes.data for each in given))
    extents = (ctypes.c_long * len(given))(*(each.size for each in given))
    problem = function(pointers, extents, tiles, heads, B).decode()
    return Outcome(problem=problem, arrays=outputs)


def _compiled(kernels: Sequence[Kernel], H: int, kinds: Mapping[str, str], folder: Path) -> ctypes.CDLL:
    source = f"""
#include "{_HERE / "metal_on_cpu.h"}"
constexpr int HEAD_DIM = {H};
constexpr long metal_on_cpu_memory_size = (HEAD_DIM < 64 ? HEAD_DIM : 64) * ({TILE} + 1);
""" + "".join(_function(f"kernel_{index}", *kernel, kinds) for index, kernel in enumerate(kernels))
    stem = folder / hashlib.sha256((source + (_HERE / "metal_on_cpu.h").read_text()).encode()).hexdigest()[:16]
    library = stem.with_suffix(".so")
    if not library.exists():
        stem.with_suffix(".cpp").write_text(source)
        assert COMPILER is not None
        # Each kernel defines the macros of its header anew, of which it warns where a fault changed one. A fault runs
        # once, in less time than it takes to optimise it.
        optimisation = "-O0" if any(fault for _, fault in kernels) else "-O1"
        flags = ["-std=c++20", optimisation, "-fPIC", "-shared", "-w"]
        subprocess.run([COMPILER, *flags, str(stem.with_suffix(".cpp")), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def _function(symbol: str, name: str, fault: Fault | None, kinds: Mapping[str, str]) -> str:
    """What MLX makes of a kernel, in C++, with its arrays as arguments, and with its place in the grid."""
    header, body = kernel_text(name, "metal")
    if fault is not None:
        changed = header.replace(*fault), body.replace(*fault)
        assert changed != (header, body), f"the text holds no {fault[0]!r}"
        header, body = changed
    arrays = [(each, "const ") for each in INPUTS[name]] + [(each, "") for each in OUTPUTS[name]]
    # What this call does not have, another kernel's outputs, are numbers.
    typed = [(each, constant, kinds.get(each, "metal_on_cpu::real")) for each, constant in arrays]
    buffers = "".join(
        f"  const metal_on_cpu::Buffer<{constant}{kind}> "
        f'{each}(static_cast<{kind}*>(arrays[{index}]), extents[{index}], "{each}");\n'
        for index, (each, constant, kind) in enumerate(typed)
    )
    return f"""
{header}
extern "C" const char* {symbol}(void** arrays, const long* extents, int groups_x, int groups_y, int groups_z) {{
{buffers}
  return metal_on_cpu::run(
      {THREADS}, groups_x, groups_y, groups_z, metal_on_cpu_memory_size,
      [=](Place thread_position_in_threadgroup, int thread_index_in_simdgroup, int simdgroup_index_in_threadgroup,
          Place threadgroup_position_in_grid) {{
{body}
      }});
}}
"""


def inputs_of(spec: ScoreSpec, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All inputs that the kernels of one call have, but those that other kernels give them."""
    N, L = arrays["q"].shape[1:3]
    K, S = arrays["k"].shape[1:3]
    call = attention._Call(spec, num_heads=N, num_kv_heads=K, query_length=L, key_length=S)
    sinks = spec.sink_logits(N)
    return {
        **{name: np.array(each) for name, each in call._arrays.items()},
        **arrays,
        "sinks": np.full((N,), -np.inf, dtype=np.float32) if sinks is None else np.array(sinks.astype(mx.float32)),
    }


def forward_and_backward(
    spec: ScoreSpec, arrays: Mapping[str, np.ndarray], dy: np.ndarray, folder: Path
) -> tuple[dict[str, np.ndarray], list[str]]:
    """y, dq, dk and dv of all three kernels, one after the other, and what went wrong in each."""
    given = inputs_of(spec, arrays)
    forward = run(("attention_forward", None), given, folder)
    y, log_sums = forward.arrays["y"], forward.arrays["log_sums"]
    given |= {"dy": dy, "log_sums": log_sums, "deltas": (dy * y).sum(-1).astype(np.float32)}
    queries, keys = (run((name, None), given, folder) for name in ("attention_queries", "attention_keys"))
    found = {"y": y, **queries.arrays, **keys.arrays}
    return found, [each.problem for each in (forward, queries, keys)]
