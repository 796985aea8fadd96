"""Shared set-up: the runtime's BLAS is in place before anything imports MLX, and random tests repeat."""

import os

# Workers of pytest-xdist share the cores; with a thread pool each they would fight over them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis

import zoo  # noqa: F401

# The same examples in every run, and no deadline: a shared machine may stall.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
