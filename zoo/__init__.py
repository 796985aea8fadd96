"""Attention Zoo: trainable transformers on MLX whose attention comes from a registry."""

from typing import TYPE_CHECKING, Any

from zoo.runtime import allocator, blas, kernels, light_packages

# The one piece of work at import: it has to precede the first import of MLX and mlx-lm, which modules here import.
blas.activate()
allocator.activate()
kernels.activate()
light_packages.activate()

if TYPE_CHECKING:
    from zoo.attention.catalog import attention_names
    from zoo.checkpoints import load_model

__all__ = ["attention_names", "load_model"]


def __getattr__(name: str) -> Any:
    """Imports the two names above at first use, so that `import zoo` alone stays quick."""
    if name == "attention_names":
        from zoo.attention.catalog import attention_names

        return attention_names
    if name == "load_model":
        from zoo.checkpoints import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Shows these names where they are looked for, as a prompt does that completes them."""
    return sorted({*globals(), *__all__})
