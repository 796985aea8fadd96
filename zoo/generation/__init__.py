"""Generating text: one prompt streamed, or several in one batch, over mlx-lm's caches; chats; filling; classifying."""

from zoo.generation.batch import generate_batch, stream_batch
from zoo.generation.classifying import ClassifiedText, classify_text
from zoo.generation.config import GenerationConfig
from zoo.generation.context import Context, TextContext
from zoo.generation.conversation import Conversation
from zoo.generation.drafting import DraftedContext
from zoo.generation.filling import FilledText, Guess, fill_masks
from zoo.generation.prompt_cache import SavedContext, require_replaceable, save_context
from zoo.generation.quantizing import CacheQuantization
from zoo.generation.result import FinishReason, GenerationResult, TextPiece
from zoo.generation.single import generate_text, stream_text

__all__ = [
    "CacheQuantization",
    "ClassifiedText",
    "Context",
    "Conversation",
    "DraftedContext",
    "FilledText",
    "FinishReason",
    "GenerationConfig",
    "GenerationResult",
    "Guess",
    "SavedContext",
    "TextContext",
    "TextPiece",
    "classify_text",
    "fill_masks",
    "generate_batch",
    "generate_text",
    "require_replaceable",
    "save_context",
    "stream_batch",
    "stream_text",
]
