"""Chats with a checkpoint: each line of stdin is a turn, answered on stdout; in its own chat template if it has one."""

import dataclasses
import logging
import signal
import sys
from typing import Any

from omegaconf import DictConfig

from recipes.speaker import (
    SpeakerRecipe,
    draft_facts,
    drafted,
    load_speaker,
    open_context,
    save_context_of,
    speaker_mapping,
)
from recipes.streams import show
from zoo.config import UserError, from_mapping
from zoo.config.files import LIMIT_BYTES
from zoo.generation import Conversation, GenerationResult, SavedContext
from zoo.runtime.backend import parse_dtype
from zoo.training.signals import StopRequest, handled

_log = logging.getLogger(__name__)

_PROMPT = "> "


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatRecipe(SpeakerRecipe):
    """`configs/chat.yaml`, composed.

    Attributes:
        system: What the model is told before everything else, or None.
    """

    system: str | None = None


def main(config: DictConfig) -> dict[str, Any]:
    """Answers line after line, until stdin ends. Ctrl-C ends an answer; a second one, or SIGTERM, the chat.

    Returns:
        `text`, the last answer, `turns`, how many there were, `cache_bytes` and `messages`, with `results`, one object
        for each turn.

    Raises:
        UserError: On impossible choices, a checkpoint that cannot chat, or a turn that its template refuses or its
            positions have no room for.
    """
    recipe = from_mapping(ChatRecipe, speaker_mapping(config), path="chat")
    speaker = load_speaker(recipe)
    speaker.model.set_dtype(parse_dtype(recipe.dtype))
    if not speaker.model.config.causal:
        raise UserError(
            f"checkpoint must hold a language model to chat with; got a {speaker.model.config.family} model, which is"
            " an encoder"
        )
    own, saved = open_context(recipe, speaker, returns=True)
    context = drafted(recipe, speaker, own)
    conversation = Conversation(speaker.model, speaker.tokenizer, recipe, context, recipe.system)
    if saved is not None:
        conversation.messages = _messages_of(recipe, saved)
    if not conversation.has_template:
        _log.warning("the checkpoint has no chat template: it goes on from what is said as from any text")
    results: list[dict[str, Any]] = []
    try:
        interrupted = _chat(conversation, results)
    finally:
        conversation.close()
    if conversation.messages:
        context.return_to(len(context.tokens))
        save_context_of(recipe, speaker, own, messages=conversation.messages)
    num_answers = _num_answers(conversation)
    return {
        "text": conversation.messages[-1]["content"] if num_answers else "",
        "turns": num_answers,
        "cache_bytes": context.nbytes,
        "messages": conversation.messages,
        "results": results,
        "has_template": conversation.has_template,
        **draft_facts(context),
        "interrupted": interrupted,
        **speaker.about,
    }


def _messages_of(recipe: ChatRecipe, saved: SavedContext) -> list[dict[str, Any]]:
    if saved.messages is None:
        raise UserError(f"prompt_cache: {recipe.prompt_cache} must be of a chat; it is of a text")
    if recipe.system is not None:
        raise UserError("system must be null with prompt_cache=: that chat has begun")
    return saved.messages


def _chat(conversation: Conversation, results: list[dict[str, Any]]) -> bool:
    """Answers until there is nothing more to answer; returns whether a signal ended it."""
    try:
        with handled(_end, signal.SIGTERM, signal.SIGHUP):
            while (line := _next_line(len(results) + 1)) is not None:
                if not line.strip():
                    continue
                with StopRequest() as request:
                    results.append(_answer(conversation, line, request))
                if request.name not in (None, signal.SIGINT.name):
                    return True
    except KeyboardInterrupt:
        if _num_answers(conversation) > len(results):
            # It was in the middle of one.
            show("\n")
        return True
    return False


def _answer(conversation: Conversation, line: str, request: StopRequest) -> dict[str, Any]:
    result: GenerationResult | None = None
    for piece in conversation.answer(line, interrupted=request.requested):
        show(piece.text)
        result = piece.result
    assert result is not None
    if not result.text.endswith("\n"):
        show("\n")
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "reused_tokens": conversation.reused_tokens,
        "generated_tokens": result.generated_tokens,
        "prefill_tokens_per_second": result.prefill_tokens_per_second,
        "decode_tokens_per_second": result.decode_tokens_per_second,
        "cache_bytes": result.cache_bytes,
    }


def _num_answers(conversation: Conversation) -> int:
    return sum(message["role"] == "assistant" for message in conversation.messages)


def _next_line(turn: int) -> str | None:
    """What the user says next, without its line end; None at the end of stdin."""
    # Python has no stdin where its descriptor is closed.
    if sys.stdin is None:
        raise UserError("stdin must be open: what is said is read from it")
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            # Its import gives `input` arrow keys and a history; a terminal's alone.
            import readline  # noqa: F401

            return input(_PROMPT)
        content = sys.stdin.buffer.readline(LIMIT_BYTES + 1)
    except EOFError:
        print(file=sys.stderr)
        return None
    except OSError as error:
        raise UserError(f"stdin must be readable; got {error.strerror or error}") from None
    if len(content) > LIMIT_BYTES:
        raise UserError(f"stdin must have lines of at most {LIMIT_BYTES} bytes; turn {turn} has more")
    try:
        return content.decode("utf-8").rstrip("\r\n") if content else None
    except UnicodeDecodeError as error:
        raise UserError(f"stdin must hold UTF-8 text; in turn {turn}, byte {error.start + 1} is none") from None


def _end(number: int, frame: object) -> None:
    """Ends the chat as Ctrl-C ends it between two answers."""
    raise KeyboardInterrupt
