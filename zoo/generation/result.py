"""What a generation yields: pieces of text as they come, and the facts about each row at its end."""

import dataclasses
from typing import Literal

FinishReason = Literal["eos", "stop", "max_tokens", "max_seq_len", "interrupted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """One finished row.

    Attributes:
        text: The continuation, without the prompt.
        finish_reason: What ended it: the end-of-document token, a stop string, the number of tokens asked for, the
            longest sequence that the model's learned positions know, or the caller's wish.
        prompt_tokens: Tokens of the prompt.
        generated_tokens: Tokens sampled, the one that ended the text included.
        prefill_seconds: From the start of the prompt until its last scores were there; 0 if it was not read to its end.
        decode_seconds: From the first generated token to the last, the receiver's time between pieces included.
        cache_bytes: What the caches held at the end of the row; of a batch, the row's share.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    prefill_seconds: float
    decode_seconds: float
    cache_bytes: int

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Speed of reading the prompt; None where it was not read to its end."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else None

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Speed of writing after the first token; None where only one token was generated."""
        return (self.generated_tokens - 1) / self.decode_seconds if self.generated_tokens > 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPiece:
    """The next piece of a row's text.

    Attributes:
        row: Number of the prompt, from 0.
        text: What follows the row's earlier pieces; may be empty.
        result: Set on the row's last piece.
    """

    row: int
    text: str
    result: GenerationResult | None = None
