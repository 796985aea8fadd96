"""Continues one prompt, streamed to stdout, or several in one batch; an encoder fills masks, or says what a text is."""

import dataclasses
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from threading import Timer
from typing import Any

import mlx.core as mx
from omegaconf import DictConfig

from recipes.launch import LaunchConfig, launched, watched
from recipes.speaker import (
    Speaker,
    SpeakerRecipe,
    draft_facts,
    drafted,
    load_speaker,
    open_context,
    save_context_of,
    speaker_mapping,
)
from recipes.streams import show
from zoo.config import UserError, from_mapping, require
from zoo.config.files import LIMIT_BYTES, typed_path
from zoo.generation import (
    ClassifiedText,
    FilledText,
    GenerationResult,
    TextPiece,
    classify_text,
    fill_masks,
    stream_batch,
    stream_text,
)
from zoo.models import Load, ModelConfig, ModelPrice
from zoo.models.sharding import shard
from zoo.runtime.backend import parse_dtype
from zoo.runtime.memory import require_room
from zoo.runtime.processes import Processes, connected
from zoo.training.signals import StopRequest

_log = logging.getLogger(__name__)

# How long a prompt that does not come is waited for without a word.
_SILENT_SECONDS = 1.0
_OF_ONE_TEXT = ("prompt_cache", "save_prompt_cache", "kv_bits", "draft_checkpoint")
_NOT_SHARED = ("prompt_cache", "save_prompt_cache", "draft_checkpoint")
# Tokens after which several processes ask each other whether to stop.
_ASKED_EVERY = 16
# Of probabilities, how many are shown; the JSON has them all.
_SHOWN_CLASSES = 5
# An encoder reads a text at once.
_OF_ENCODERS = {"decode_tokens_per_second": None, "cache_bytes": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateRecipe(SpeakerRecipe):
    """`configs/generate.yaml`, composed.

    Attributes:
        prompt: Text to continue, possibly empty.
        prompts: Texts to continue in one batch.
        prompt_file: File that holds the prompt; "-" for standard input.
        text_pair: For a classifier, a second text to be classified with the prompt.
        launch: Processes that share the model.
    """

    prompt: str | None = None
    prompts: tuple[str, ...] | None = None
    prompt_file: str | None = None
    text_pair: str | None = None
    launch: LaunchConfig = dataclasses.field(default_factory=LaunchConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("prompt", "prompts", "prompt_file") if getattr(self, name) is not None]
        require(len(given) == 1, "prompt", "be given in exactly one way: prompt=, prompts=[…] or prompt_file=", given)
        require(self.prompts != (), "prompts", "hold at least one text", [])
        for name in _OF_ONE_TEXT:
            alone = self.prompts is None or getattr(self, name) is None
            require(alone, name, "be null with prompts=[…]: it is for one text", getattr(self, name))
        for name in _NOT_SHARED if self.launch.number > 1 else ():
            require(getattr(self, name) is None, name, "be null with several processes", getattr(self, name))
        piped = self.launch.number > 1 and self.prompt_file == "-"
        require(not piped, "prompt_file", "be a file with several processes", self.prompt_file)


def main(config: DictConfig) -> dict[str, Any]:
    """Streams the text to stdout; of several prompts each text when it is finished. Ctrl-C and SIGTERM end the texts.

    Returns:
        The command contract's keys, `finish_reason` and `interrupted`; for `prompts`, lists of texts and reasons, sums
        of tokens and bytes, and `results`, one object for each prompt. For an encoder, the filled text and `guesses`;
        for a classifier, the label as text, and `probabilities`.

    Raises:
        UserError: On impossible choices, a checkpoint that cannot be loaded, or a prompt that its model cannot
            continue or fill.
    """
    recipe = from_mapping(GenerateRecipe, speaker_mapping(config), path="generate")
    if recipe.launch.wanted:
        return launched(recipe.launch)
    processes = connected()
    prompts = (_prompt(recipe),) if recipe.prompts is None else recipe.prompts
    speaker = load_speaker(recipe)
    model, tokenizer = speaker.model, speaker.tokenizer
    dtype = parse_dtype(recipe.dtype)
    _require_fitting(recipe, model.config)
    _require_room_for(recipe, model.config, [len(tokenizer.encode(prompt)) for prompt in prompts], dtype)
    if processes.group is not None:
        shard(model, processes.group)
    model.set_dtype(dtype)
    with watched(processes, recipe.launch), StopRequest() as request:
        interrupted = _agreed(request, processes)
        if not model.config.causal:
            results = [_encoded(recipe, speaker, prompt) for prompt in prompts]
            facts = _print_encoded(results, single=recipe.prompts is None)
        elif recipe.prompts is None:
            facts = _continue(recipe, speaker, prompts[0], interrupted)
        else:
            pieces = stream_batch(model, tokenizer, prompts, recipe, interrupted=interrupted)
            facts = _print_batch(pieces, len(prompts))
    return {**facts, "interrupted": "interrupted" in facts["finish_reason"], **speaker.about}


def _agreed(request: StopRequest, processes: Processes) -> Callable[[], bool]:
    """Whether to stop, asked for each token; several processes give the same answer."""
    if processes.size == 1:
        return request.requested
    questions, stops = itertools.count(), False

    def agreed() -> bool:
        nonlocal stops
        if next(questions) % _ASKED_EVERY == 0:
            stops = processes.sums(float(request.requested()))[0] > 0
        return stops

    return agreed


def _require_room_for(recipe: GenerateRecipe, config: ModelConfig, lengths: Sequence[int], dtype: mx.Dtype) -> None:
    """Refuses prompts that do not fit into memory; what is generated grows as far as it goes, and is not priced."""
    price, longest = ModelPrice(config), max(1, *lengths)
    step = min(recipe.prefill_step_size, longest) if config.causal else longest
    # A step's scores of all that was read before, and their softmax.
    scores = 2 * config.num_heads * step * longest * dtype.size
    needed = scores + price.forward_activations(Load(batch_size=1, length=step, dtype=dtype))
    if config.causal:
        needed += price.cache_bytes(Load(batch_size=len(lengths), length=longest, dtype=dtype))
    require_room(needed, "the prompts", allow_large=recipe.allow_large, remedy="shorten the longest, or give fewer")


def _prompt(recipe: GenerateRecipe) -> str:
    if recipe.prompt_file is None:
        assert recipe.prompt is not None
        return recipe.prompt
    # It may well be a pipe, as `<(command)` is one, to which nobody may ever write.
    waiting = Timer(_SILENT_SECONDS, _log.warning, ["waiting for prompt_file=%s to be written", recipe.prompt_file])
    waiting.daemon = True
    waiting.start()
    try:
        if recipe.prompt_file == "-":
            # Python has no stdin where its descriptor is closed.
            require(sys.stdin is not None, "prompt_file", "be a file where stdin is closed", recipe.prompt_file)
            content = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            with typed_path(recipe.prompt_file, what="prompt_file").open("rb") as stream:
                content = stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"prompt_file must be readable; got {recipe.prompt_file!r} ({error.strerror or error})"
        ) from None
    finally:
        waiting.cancel()
    if len(content) > LIMIT_BYTES:
        raise UserError(f"prompt_file must have at most {LIMIT_BYTES} bytes; {recipe.prompt_file!r} has more")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"prompt_file must hold UTF-8 text; got {recipe.prompt_file!r}, byte {error.start + 1} is none"
        ) from None


def _require_fitting(recipe: GenerateRecipe, config: ModelConfig) -> None:
    fits = recipe.text_pair is None or (config.classifies and recipe.prompts is None)
    require(fits, "text_pair", "be null but for one prompt of a classifier", recipe.text_pair)
    if config.causal:
        return
    _require_no_caches(recipe)


def _require_no_caches(recipe: GenerateRecipe) -> None:
    for name in _OF_ONE_TEXT:
        if getattr(recipe, name) is not None:
            raise UserError(f"{name} must be null: the checkpoint is an encoder, which reads a text as a whole")


def _continue(recipe: GenerateRecipe, speaker: Speaker, prompt: str, interrupted: Callable[[], bool]) -> dict[str, Any]:
    """Continues one prompt, after what a prompt cache holds, and saves what was read."""
    model, tokenizer = speaker.model, speaker.tokenizer
    own, saved = open_context(recipe, speaker, returns=recipe.save_prompt_cache is not None)
    if saved is None:
        ids = tokenizer.encode_prompt(prompt) or [tokenizer.start_id]
    else:
        ids = [*saved.pending, *tokenizer.encode(prompt)]
    before, context = list(own.tokens), drafted(recipe, speaker, own)
    result = _print_stream(stream_text(model, tokenizer, ids, recipe, context=context, interrupted=interrupted))
    if recipe.save_prompt_cache is not None:
        # The prompt without its last token, which whatever goes on from it has to read anew.
        context.return_to(len(before) + len(ids) - 1)
        save_context_of(recipe, speaker, own, pending=[*before, *ids][len(own.tokens) :])
    return {**_facts(result), "reused_tokens": len(before), **draft_facts(context)}


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
    prefill_seconds = sum(result.prefill_seconds for result in results)
    whole = all(result.prefill_seconds for result in results)
    after_first = sum(max(0, result.generated_tokens - 1) for result in results)
    # Prompts are read one after another, texts are written together.
    decode_seconds = max(result.decode_seconds for result in results)
    return {
        "text": [result.text for result in results],
        "finish_reason": [result.finish_reason for result in results],
        "prompt_tokens": prompt_tokens,
        "generated_tokens": sum(result.generated_tokens for result in results),
        "prefill_tokens_per_second": prompt_tokens / prefill_seconds if whole else None,
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


def _encoded(recipe: GenerateRecipe, speaker: Speaker, prompt: str) -> dict[str, Any]:
    """What an encoder makes of a prompt, as it stands in the result."""
    if speaker.model.config.classifies:
        found = classify_text(speaker.model, speaker.tokenizer, prompt, recipe.text_pair)
        says = {"text": found.label, "finish_reason": "classified", "probabilities": found.probabilities}
        return {**says, **_speed(found, 0)}
    filled = fill_masks(speaker.model, speaker.tokenizer, prompt)
    guesses = [[dataclasses.asdict(guess) for guess in each] for each in filled.guesses]
    return {"text": filled.text, "finish_reason": "filled", "guesses": guesses, **_speed(filled, len(guesses))}


def _speed(found: FilledText | ClassifiedText, generated_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": found.prompt_tokens,
        "generated_tokens": generated_tokens,
        "prefill_tokens_per_second": found.prompt_tokens / found.seconds,
        **_OF_ENCODERS,
    }


def _print_encoded(results: Sequence[dict[str, Any]], *, single: bool) -> dict[str, Any]:
    for number, facts in enumerate(results, start=1):
        chances = [f"{name} {chance:.4f}" for name, chance in facts.get("probabilities", {}).items()][:_SHOWN_CLASSES]
        text = facts["text"] + (f" ({', '.join(chances)})" if chances else "")
        show(text if single else f"--- prompt {number} of {len(results)}\n{text}")
        _end_line(text)
    if single:
        return results[0]
    sums = {key: sum(facts[key] for facts in results) for key in ("prompt_tokens", "generated_tokens")}
    seconds = sum(facts["prompt_tokens"] / facts["prefill_tokens_per_second"] for facts in results)
    lists = {
        key: [facts[key] for facts in results]
        for key in results[0]
        if not isinstance(results[0][key], int | float | None)
    }
    return {
        **lists,
        **sums,
        "prefill_tokens_per_second": sums["prompt_tokens"] / seconds,
        **_OF_ENCODERS,
        "results": list(results),
    }


def _end_line(text: str) -> None:
    """Ends the line that a text has begun, so that what follows stands on its own."""
    if text and not text.endswith("\n"):
        show("\n")
