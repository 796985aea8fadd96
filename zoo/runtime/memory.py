"""What MLX's allocator holds; not the process's resident memory, which counts the interpreter and its libraries too."""

import mlx.core as mx


def peak_bytes() -> int:
    """Most bytes held by arrays at one time since `reset_peak`, or since the process began."""
    return mx.get_peak_memory()


def active_bytes() -> int:
    """Bytes that arrays hold now."""
    return mx.get_active_memory()


def reset_peak() -> None:
    """Forgets the peak so far, and returns the buffers that the allocator kept for reuse."""
    mx.clear_cache()
    mx.reset_peak_memory()
