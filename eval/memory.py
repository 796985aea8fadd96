"""Peak memory of a call, from MLX's allocator, in a process of its own so that nothing else is counted."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from typing import Any

import mlx.core as mx

# On a CPU MLX's main thread allocates ahead of the thread that computes and frees, so the peak varies from call to
# call, the more the busier the machine. Its maximum settles: it is taken until so many calls have not raised it.
_PATIENCE, _MAX_CALLS = 4, 16


def peak_bytes_in_fresh_process(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> int:
    """Peak bytes that a call needs beyond what its inputs hold.

    Args:
        prepare: A module-level function; called with `arguments` in the new process, it returns the call to measure.
        arguments: Picklable.

    Returns:
        Bytes at the peak, inputs and outputs included.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_measure, prepare, arguments).result()


def peak_bytes_of_calls(call: Callable[[], object]) -> int:
    """Most bytes that MLX's allocator holds at one time during a call, after a first one that compiles.

    Everything that lives in this process counts: the call's inputs and weights, but also what has nothing to do with
    it, so that a process of its own is the place to ask.

    Args:
        call: Returns arrays, which are evaluated and dropped.
    """
    mx.eval(call())
    peak, unchanged = 0, 0
    for _ in range(_MAX_CALLS):
        # A GPU's cached buffers would be counted again when they are reused for other sizes.
        mx.clear_cache()
        mx.reset_peak_memory()
        mx.eval(call())
        # A call that allocates nothing leaves the peak at zero, whatever its inputs hold.
        now = max(mx.get_peak_memory(), mx.get_active_memory())
        unchanged = unchanged + 1 if now <= peak else 0
        peak = max(peak, now)
        if unchanged == _PATIENCE:
            break
    return peak


def _measure(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> int:
    return peak_bytes_of_calls(prepare(*arguments))
