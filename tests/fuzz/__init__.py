"""Hostile inputs for everything that reads what comes from outside."""

import zoo  # noqa: F401 - before MLX
