"""Generating text: one prompt streamed, or several in one batch, over mlx-lm's caches and samplers."""

from zoo.generation.batch import generate_batch, stream_batch
from zoo.generation.config import GenerationConfig
from zoo.generation.result import FinishReason, GenerationResult, TextPiece
from zoo.generation.single import generate_text, stream_text

__all__ = [
    "FinishReason",
    "GenerationConfig",
    "GenerationResult",
    "TextPiece",
    "generate_batch",
    "generate_text",
    "stream_batch",
    "stream_text",
]
