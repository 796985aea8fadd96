"""Speculative decoding: a small model guesses the next tokens, and the large one judges all of them in one pass.

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", https://arxiv.org/abs/2211.17192. Where
we deviate: at every position the large model draws its own token, with the draw that it would have made without
guesses, and a guess counts if it is that token. So the text is the one that the large model writes alone, greedy or
sampled; the paper's acceptance keeps only the distribution. Guesses are made with the same draws, which makes them
agree as often as the two models do.

Letters: L tokens judged at once, V vocabulary.
"""

from collections.abc import Callable, Generator, Sequence

import mlx.core as mx
import numpy as np

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.context import Context
from zoo.generation.model import LanguageModel, evaluating, require_language_model
from zoo.generation.sampling import LogitsProcessor, RowSampler
from zoo.layers.caches import KVCache

_ROUNDS_PER_CLEARING = 64


class DraftedContext:
    """A context whose text is guessed by a smaller model first.

    Attributes:
        target: What the large model has read.
        num_guessed: Tokens that the small model proposed.
        num_accepted: Those of them that the large one would have written.
    """

    def __init__(
        self,
        target: Context,
        draft: LanguageModel,
        *,
        tokenizers: tuple[Tokenizer, Tokenizer],
        num_draft_tokens: int,
    ) -> None:
        """Takes the two models.

        Args:
            target: Of the large model; may have read something.
            draft: The small model.
            tokenizers: The large model's, and the small one's.
            num_draft_tokens: Guesses at a time, at least 1.

        Raises:
            UserError: If the tokenizers differ, a model cannot generate, or a cache cannot forget wrong guesses.
        """
        require_language_model(draft)
        tokenizer, its_tokenizer = tokenizers
        if tokenizer.fingerprint != its_tokenizer.fingerprint:
            raise UserError("draft_checkpoint must have the tokenizer of checkpoint; its tokenizer is another one")
        self.target, self._draft = target, Context(draft)
        _require_forgetting(target, "checkpoint")
        _require_forgetting(self._draft, "draft_checkpoint")
        self._num_draft_tokens = num_draft_tokens
        self._num_texts = tokenizer.vocab_size
        self.num_guessed = self.num_accepted = 0

    @property
    def tokens(self) -> list[int]:
        """What the large model's caches hold."""
        return self.target.tokens

    @property
    def nbytes(self) -> int:
        """Bytes that the caches of both models hold."""
        return self.target.nbytes + self._draft.nbytes

    def read(self, ids: Sequence[int], *, step_size: int, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Reads tokens with both models, as `Context.read` does."""
        if not self.target.read(ids, step_size=step_size, interrupted=interrupted):
            return False
        missed = self.tokens[len(self._draft.tokens) :]
        limit = self._draft.model.config.position_limit
        if limit is not None and len(self.tokens) >= limit:
            # It will guess no more.
            return True
        with evaluating(self._draft.model):
            return self._draft.read(missed, step_size=step_size, interrupted=interrupted)

    def return_to(self, length: int) -> None:
        """Forgets tokens, as `Context.return_to` does."""
        self.target.return_to(length)
        self._draft.return_to(len(self.tokens))

    def write(
        self, token: int, *, limit: int | None, sampler: RowSampler, processors: list[LogitsProcessor]
    ) -> Generator[int, None, None]:
        """Reads one more token and goes on from it; see `Context.write`.

        What it gives out last has not been read.
        """
        with evaluating(self._draft.model):
            yield from self._rounds(token, limit, sampler, processors)

    def _rounds(
        self, token: int, limit: int | None, sampler: RowSampler, processors: list[LogitsProcessor]
    ) -> Generator[int, None, None]:
        passed, written, rounds = [token], 0, 0
        while limit is None or written < limit:
            room = self._num_draft_tokens if limit is None else min(self._num_draft_tokens, limit - written - 1)
            guesses = self._guess(passed, room, written, sampler, processors)
            chosen = self._judge(passed, guesses, written, sampler, processors)
            # One wait a round.
            both = np.array(mx.concatenate([*guesses, chosen])).tolist()
            guessed, on_host = both[: len(guesses)], both[len(guesses) :]
            agreed = next((n for n, guess in enumerate(guessed) if guess != on_host[n]), len(guessed))
            self._settle([passed[-1], *guessed[:agreed]])
            self.num_guessed += len(guessed)
            self.num_accepted += agreed
            passed += on_host[: agreed + 1]
            written += agreed + 1
            yield from on_host[: agreed + 1]
            rounds += 1
            if rounds % _ROUNDS_PER_CLEARING == 0:
                mx.clear_cache()

    def _guess(
        self,
        passed: Sequence[int],
        count: int,
        written: int,
        sampler: RowSampler,
        processors: Sequence[LogitsProcessor],
    ) -> list[mx.array]:
        """The small model's next tokens, each int32 [1]."""
        model, cache = self._draft.model, self._draft.cache
        # What it has not read: the last token, and whatever the large model wrote after guesses that were all right.
        unread = [*self.tokens[len(self._draft.tokens) :], passed[-1]]
        limit = model.config.position_limit
        if limit is not None:
            count = min(count, limit - len(self.tokens) - 1)
        guesses: list[mx.array] = []
        ids, so_far = mx.array([unread], dtype=mx.int32), mx.array(list(passed), dtype=mx.int32)
        padding = self.target.model.config.vocab_size - self._num_texts
        for index in range(count):
            logits_1V = model(ids, cache=cache)[:, -1, : self._num_texts]
            if padding > 0:
                logits_1V = mx.pad(logits_1V, [(0, 0), (0, padding)], constant_values=-mx.inf)
            guess = _choose(logits_1V, so_far, written + index, sampler, processors)
            guesses.append(guess)
            ids, so_far = guess[None], mx.concatenate([so_far, guess])
        return guesses

    def _judge(
        self,
        passed: Sequence[int],
        guesses: Sequence[mx.array],
        written: int,
        sampler: RowSampler,
        processors: Sequence[LogitsProcessor],
    ) -> mx.array:
        """What the large model writes after the last token and after each guess, int32 [L]."""
        ids = mx.concatenate([mx.array([passed[-1]], dtype=mx.int32), *guesses])
        logits_LV = self.target.model(ids[None], cache=self.target.cache)[0]
        before = mx.array(list(passed[:-1]), dtype=mx.int32)
        return mx.concatenate(
            [
                _choose(
                    logits_LV[index : index + 1],
                    mx.concatenate([before, ids[: index + 1]]),
                    written + index,
                    sampler,
                    processors,
                )
                for index in range(len(guesses) + 1)
            ]
        )

    def _settle(self, read: list[int]) -> None:
        """Notes what was read to good purpose and lets both models forget the rest."""
        for context in (self.target, self._draft):
            tokens = [*self.tokens, *read] if context is self.target else self.tokens
            context.tokens = tokens[: context.cache[0].offset]
            context.return_to(len(tokens))


def _choose(
    logits_1V: mx.array,
    so_far: mx.array,
    step: int,
    sampler: RowSampler,
    processors: Sequence[LogitsProcessor],
) -> mx.array:
    for processor in processors:
        logits_1V = processor(so_far, logits_1V)
    sampler.step = step
    return sampler(logits_1V)


def _require_forgetting(context: Context, what: str) -> None:
    """Refuses caches that cannot forget the last tokens at any time.

    Raises:
        UserError: Names the attention and the cache.
    """
    other = next((layer for layer in context.cache if not isinstance(layer, KVCache)), None)
    if other is not None:
        name = context.model.config.attention.name
        raise UserError(
            f"{what} must have caches that can forget wrong guesses; attention {name!r} keeps a"
            f" {type(other).__name__}, which cannot (leave draft_checkpoint out)"
        )
