"""A chat: messages in, answers out, and a context that keeps what was said so that each turn reads only what is new."""

from collections.abc import Callable, Generator
from typing import Any

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.config import GenerationConfig
from zoo.generation.context import TextContext
from zoo.generation.model import LanguageModel
from zoo.generation.result import TextPiece
from zoo.generation.single import stream_text


class Conversation:
    """A chat with one model.

    With the checkpoint's chat template, the model reads exactly what the template makes of all messages. Without one,
    it goes on from what was said as plain text: each message of the user begins a new line.

    Attributes:
        messages: What was said, as `role` and `content`.
        has_template: Whether the checkpoint has a chat template.
        reused_tokens: Tokens of the last turn's prompt that did not have to be read again.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: GenerationConfig,
        context: TextContext,
        system: str | None,
    ) -> None:
        """Begins with nothing said.

        Args:
            model: A language model.
            tokenizer: Its tokenizer.
            config: How answers are written.
            context: Keeps what was said; can return.
            system: What the model is told before everything else, or None.
        """
        self._model, self._tokenizer, self._config, self._context = model, tokenizer, config, context
        self._template = tokenizer.chat_template()
        self.has_template = self._template is not None
        self.messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self.reused_tokens = 0
        self._end_ids = self._ends_of_answers()

    def answer(self, text: str, *, interrupted: Callable[[], bool] = lambda: False) -> Generator[TextPiece, None, None]:
        """Takes what the user says and streams the answer; pieces and errors as `stream_text` has them.

        What was said of an answer stays part of the conversation, however it ended. A turn that cannot be read
        changes nothing.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        ids = self._read_as(messages)
        kept = _num_common(self._context.tokens, ids)
        # At least one token has to be read for an answer to follow.
        self._context.return_to(min(kept, len(ids) - 1))
        self.reused_tokens = len(self._context.tokens)
        pieces = stream_text(
            self._model,
            self._tokenizer,
            ids[self.reused_tokens :],
            self._config,
            context=self._context,
            end_ids=self._end_ids,
            interrupted=interrupted,
        )
        said = {"role": "assistant", "content": ""}
        for piece in pieces:
            if not said["content"]:
                self.messages = [*messages, said]
            said["content"] += piece.text
            yield piece

    def close(self) -> None:
        """Ends the process that renders the template."""
        if self._template is not None:
            self._template.close()

    def _read_as(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens that the model reads before it answers."""
        if self._template is not None:
            ids = self._tokenizer.encode_marked(self._template.render(messages, add_generation_prompt=True))
        else:
            breaks = ["\n" if message["role"] == "user" and index else "" for index, message in enumerate(messages)]
            said = [before + message["content"] for before, message in zip(breaks, messages, strict=True)]
            ids = self._tokenizer.encode_prompt("".join(said))
        return ids or [self._tokenizer.start_id]

    def _ends_of_answers(self) -> set[int]:
        """The token by which the template ends an answer, which need not be the one that ends a document."""
        if self._template is None:
            return set()
        content = "an answer"
        try:
            text = self._template.render(
                [{"role": "user", "content": "a question"}, {"role": "assistant", "content": content}]
            )
        except UserError:
            # A template may want other messages than these; what it makes of the real ones shows then.
            return set()
        after = self._tokenizer.encode_marked(text.rpartition(content)[2].lstrip())
        special = [token for token in after[:1] if not self._tokenizer.token_bytes_V[token]]
        return set(special)


def _num_common(first: list[int], second: list[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
