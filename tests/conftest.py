"""Shared set-up: the runtime's BLAS is in place before anything imports MLX."""

import zoo  # noqa: F401
