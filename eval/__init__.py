"""Measures and never trains: interleaved timing, peak memory, and the figures that follow from them."""

import zoo  # noqa: F401 - puts the BLAS in place before any module here imports MLX
