"""Measures and never trains: interleaved timing, peak memory, and the figures that follow from them."""
