"""Continues one prompt, streamed to stdout, or several in one batch."""

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipes.app import show
from zoo.attention import variant_from_mapping
from zoo.checkpoints import load_model
from zoo.config import UserError, from_mapping, require
from zoo.generation import GenerationConfig, GenerationResult, TextPiece, stream_batch, stream_text
from zoo.runtime import blas
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.versions import device_label


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateRecipe(GenerationConfig):
    """`configs/generate.yaml`, composed.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        prompt: Text to continue, possibly empty.
        prompts: Texts to continue in one batch.
        prompt_file: File that holds the prompt; "-" for standard input.
        attention: Another variant or hybrid for the same weights, or None.
        device: Back end.
        dtype: Of weights and caches.
    """

    checkpoint: str | None = None
    prompt: str | None = None
    prompts: tuple[str, ...] | None = None
    prompt_file: str | None = None
    attention: dict[str, Any] | None = None
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        given = [name for name in ("prompt", "prompts", "prompt_file") if getattr(self, name) is not None]
        require(len(given) == 1, "prompt", "be given in exactly one way: prompt=, prompts=[…] or prompt_file=", given)
        require(self.prompts != (), "prompts", "hold at least one text", [])


def main(config: DictConfig) -> dict[str, Any]:
    """Streams the text to stdout; of several prompts each text when it is finished.

    Returns:
        The command contract's keys and `finish_reason`; for `prompts`, lists of texts and reasons, sums of tokens
        and bytes, and `results`, one object for each prompt.

    Raises:
        UserError: On impossible choices, a checkpoint that cannot be loaded or is no language model's, or a prompt
            that it cannot continue.
    """
    recipe = _recipe(config)
    choose_backend(recipe.device)
    dtype = parse_dtype(recipe.dtype)
    prompts = (_prompt(recipe),) if recipe.prompts is None else recipe.prompts
    assert recipe.checkpoint is not None
    attention = None if recipe.attention is None else variant_from_mapping(recipe.attention)
    loaded, tokenizer = load_model(Path(recipe.checkpoint).expanduser(), attention=attention)
    model: Any = loaded
    model.set_dtype(dtype)
    about = {
        "checkpoint": recipe.checkpoint,
        "attention": model.config.attention.name,
        "num_parameters": model.num_parameters(),
        "dtype": dtype_name(dtype),
        "device": device_label(),
        "blas": blas.active().name,
    }
    if recipe.prompts is None:
        return {**_facts(_print_stream(stream_text(model, tokenizer, prompts[0], recipe))), **about}
    return {**_print_batch(stream_batch(model, tokenizer, prompts, recipe), len(prompts)), **about}


def _recipe(config: DictConfig) -> GenerateRecipe:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    mapping = {str(key): value for key, value in plain.items()}
    attention = mapping.get("attention")
    if isinstance(attention, dict) and not attention.keys() & {"mechanism", "layer_pattern"}:
        fields = " ".join(f"attention.{key}={value}" for key, value in attention.items())
        raise UserError(f"attention must be chosen where its fields are; got {fields} (write attention=NAME {fields})")
    stop = mapping.get("stop")
    mapping["stop"] = [] if stop is None else [stop] if isinstance(stop, str) else stop
    return from_mapping(GenerateRecipe, mapping, path="generate")


def _prompt(recipe: GenerateRecipe) -> str:
    if recipe.prompt_file is None:
        assert recipe.prompt is not None
        return recipe.prompt
    try:
        if recipe.prompt_file == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        return Path(recipe.prompt_file).expanduser().read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"prompt_file must be readable; got {recipe.prompt_file!r} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"prompt_file must hold UTF-8 text; got {recipe.prompt_file!r}, byte {error.start + 1} is none"
        ) from None


def _print_stream(pieces: Iterable[TextPiece]) -> GenerationResult:
    result = None
    for piece in pieces:
        show(piece.text)
        result = piece.result
    assert result is not None
    _end_line(result.text)
    return result


def _print_batch(pieces: Iterable[TextPiece], num_prompts: int) -> dict[str, Any]:
    finished: dict[int, GenerationResult] = {}
    for piece in pieces:
        if piece.result is None:
            continue
        finished[piece.row] = piece.result
        show(f"--- prompt {piece.row + 1} of {num_prompts}\n{piece.result.text}")
        _end_line(piece.result.text or " ")
    results = [finished[row] for row in range(num_prompts)]
    prompt_tokens = sum(result.prompt_tokens for result in results)
    after_first = sum(result.generated_tokens - 1 for result in results)
    # Prompts are read one after another, texts are written together.
    decode_seconds = max(result.decode_seconds for result in results)
    return {
        "text": [result.text for result in results],
        "finish_reason": [result.finish_reason for result in results],
        "prompt_tokens": prompt_tokens,
        "generated_tokens": sum(result.generated_tokens for result in results),
        "prefill_tokens_per_second": prompt_tokens / sum(result.prefill_seconds for result in results),
        "decode_tokens_per_second": after_first / decode_seconds if after_first else None,
        "cache_bytes": sum(result.cache_bytes for result in results),
        "results": [_facts(result) for result in results],
    }


def _facts(result: GenerationResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "generated_tokens": result.generated_tokens,
        "prefill_tokens_per_second": result.prefill_tokens_per_second,
        "decode_tokens_per_second": result.decode_tokens_per_second,
        "cache_bytes": result.cache_bytes,
    }


def _end_line(text: str) -> None:
    """Ends the line that a text has begun, so that what follows stands on its own."""
    if text and not text.endswith("\n"):
        show("\n")
