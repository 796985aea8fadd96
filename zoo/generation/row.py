"""One row of a generation: tokens in, text out, and when it ends."""

import time
from collections.abc import Collection, Sequence

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.config import GenerationConfig
from zoo.generation.result import FinishReason, GenerationResult, TextPiece
from zoo.generation.sampling import NO_TOKEN
from zoo.generation.stopping import StopScanner


class Row:
    """Follows one prompt from its tokens to its last piece of text."""

    def __init__(
        self,
        index: int,
        prompt_ids: Sequence[int],
        config: GenerationConfig,
        *,
        tokenizer: Tokenizer,
        max_seq_len: int | None,
        end_ids: Collection[int] = (),
    ) -> None:
        """Starts the clock of prompt number `index`.

        Args:
            index: Number of the prompt.
            prompt_ids: Its tokens, at least one.
            config: What ends the text.
            tokenizer: Makes text of tokens.
            max_seq_len: Most tokens that prompt and text may have together, or None.
            end_ids: Tokens that end the text besides the tokenizer's.
        """
        self.index = index
        self.prompt_ids = prompt_ids
        room = None if max_seq_len is None else max_seq_len - len(prompt_ids)
        self._limit, self._limit_reason = _limit(config.max_tokens, room)
        self._end_ids = {*tokenizer.end_ids, *end_ids} if config.stop_at_eos else set()
        self._detokenizer = tokenizer.streaming_detokenizer()
        self._scanner = StopScanner(config.stop)
        self._text: list[str] = []
        self._count = 0
        self._finish_reason: FinishReason | None = None
        self._started = self._prefilled = self._first = self._latest = time.perf_counter()

    @property
    def limit(self) -> int | None:
        """Most tokens that this row may generate, or None."""
        return self._limit

    @property
    def at_limit(self) -> bool:
        """Whether the next token is the last one whatever it is."""
        return self._limit is not None and self._count + 1 >= self._limit

    @property
    def ended(self) -> bool:
        """Whether no more tokens are wanted."""
        return self._finish_reason is not None

    def start(self) -> None:
        """Notes that reading the prompt begins now."""
        self._started = self._prefilled = time.perf_counter()

    def prefilled(self) -> None:
        """Notes that the scores after the prompt are there."""
        self._prefilled = time.perf_counter()

    def add(self, token: int, *, cache_bytes: int, interrupted: bool = False) -> TextPiece:
        """Takes the next generated token and returns the text that it makes certain.

        Args:
            token: The token.
            cache_bytes: What the row's caches hold now.
            interrupted: Whether this is to be the last one.

        Raises:
            UserError: If it is no token, because the model's scores are no numbers.
        """
        if token == NO_TOKEN:
            raise UserError(
                f"checkpoint must give scores that are numbers; got NaN for token {self._count + 1} of the text: its"
                " weights are no numbers, or too large for the dtype"
            )
        self._count += 1
        self._latest = time.perf_counter()
        if self._count == 1:
            self._first = self._latest
        text = ""
        if token in self._end_ids:
            self._finish_reason = "eos"
        else:
            self._detokenizer.add_token(token)
            text = self._scanner.feed(self._detokenizer.last_segment)
            if self._count == self._limit:
                self._finish_reason = self._limit_reason
            elif interrupted:
                self._finish_reason = "interrupted"
        if self.ended and not self._scanner.stopped:
            self._detokenizer.finalize()
            text += self._scanner.feed(self._detokenizer.last_segment)
            text += self._scanner.finish()
        if self._scanner.stopped:
            self._finish_reason = "stop"
        self._text.append(text)
        return TextPiece(row=self.index, text=text, result=self._result(cache_bytes) if self.ended else None)

    def cut_short(self, *, cache_bytes: int) -> TextPiece:
        """The last piece of a row that was interrupted before its first token."""
        self._finish_reason = "interrupted"
        return TextPiece(row=self.index, text="", result=self._result(cache_bytes))

    def _result(self, cache_bytes: int) -> GenerationResult:
        assert self._finish_reason is not None
        return GenerationResult(
            text="".join(self._text),
            finish_reason=self._finish_reason,
            prompt_tokens=len(self.prompt_ids),
            generated_tokens=self._count,
            prefill_seconds=self._prefilled - self._started,
            decode_seconds=self._latest - self._first,
            cache_bytes=cache_bytes,
        )


def _limit(max_tokens: int | None, room: int | None) -> tuple[int | None, FinishReason]:
    if room is not None and (max_tokens is None or room < max_tokens):
        return room, "max_seq_len"
    return max_tokens, "max_tokens"
