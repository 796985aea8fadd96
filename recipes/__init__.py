"""The application: recipes that compose a configuration, assemble the parts and run them. Only here is Hydra known."""

import zoo  # noqa: F401 - puts the BLAS in place before any module here imports MLX
