"""Peak memory of one call, from MLX's allocator, in a process of its own so that nothing else is counted."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from typing import Any

import mlx.core as mx


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


def _measure(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> int:
    call = prepare(*arguments)
    mx.eval(call())
    mx.clear_cache()
    mx.reset_peak_memory()
    mx.eval(call())
    return mx.get_peak_memory()
