"""What a model has read so far: the tokens, and the caches that hold them."""

import copy
import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from zoo.generation.model import LanguageModel
from zoo.generation.quantizing import CacheQuantization
from zoo.generation.sampling import LogitsProcessor, RowSampler
from zoo.layers.caches import KVCache

# As often as mlx-lm's own loop: caches that grow leave buffers behind that fit nothing any more.
STEPS_PER_CLEARING = 256


class TextContext(Protocol):
    """What text can go on from: a `Context`, or one whose text is guessed first."""

    @property
    def tokens(self) -> list[int]:
        """What was read."""

    @property
    def nbytes(self) -> int:
        """Bytes that the caches hold."""

    def read(self, ids: Sequence[int], *, step_size: int, interrupted: Callable[[], bool] = ...) -> bool:
        """Reads tokens; returns whether to go on."""

    def write(
        self, token: int, *, limit: int | None, sampler: RowSampler, processors: list[LogitsProcessor]
    ) -> Generator[int, None, None]:
        """Reads one more token and goes on from it."""

    def return_to(self, length: int) -> None:
        """Forgets tokens, so that at most the first `length` are left."""


class Context:
    """The beginning of a text, read once and gone on from.

    Attributes:
        model: Reads and writes.
        cache: One cache a layer.
        tokens: What they hold.
    """

    def __init__(
        self, model: LanguageModel, *, returns: bool = False, quantization: CacheQuantization | None = None
    ) -> None:
        """Begins empty.

        Args:
            model: Reads what is given.
            returns: Whether `return_to` will be called, which caches that cannot forget prepare for.
            quantization: How keys and values are kept, if not as they are.

        Raises:
            UserError: If the model's caches cannot be kept so.
        """
        self.model = model
        self._returns = returns
        self._quantization = quantization
        self.cache = self.make_cache()
        self.tokens: list[int] = []
        self._earlier: tuple[int, list[Any]] | None = None

    def make_cache(self) -> list[Any]:
        """Empty caches of the kind that this context has."""
        return self.model.make_cache() if self._quantization is None else self._quantization.make_cache(self.model)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches hold."""
        return sum(layer.nbytes for layer in self.cache)

    def read(self, ids: Sequence[int], *, step_size: int, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Reads tokens, `step_size` at a time; asks before and after each time, and returns whether to go on."""
        tokens = mx.array(list(ids), dtype=mx.int32)[None]
        # A step can be longer than any text.
        step_size = min(step_size, max(1, len(ids)))
        for start in range(0, len(ids), step_size):
            if interrupted():
                return False
            self.model(tokens[:, start : start + step_size], cache=self.cache)
            mx.eval([layer.state for layer in self.cache])
            mx.clear_cache()
            self.tokens += ids[start : start + step_size]
        # A window forgets until it is full, which the text to come may make it.
        if self._returns and not all(isinstance(layer, KVCache) for layer in self.cache):
            self._earlier = (len(self.tokens), copy.deepcopy(self.cache))
        return not interrupted()

    def write(
        self, token: int, *, limit: int | None, sampler: RowSampler, processors: list[LogitsProcessor]
    ) -> Generator[int, None, None]:
        """Reads one more token and goes on from it, a step ahead of whoever takes them, as mlx-lm does.

        Args:
            token: The last token of the prompt.
            limit: Most tokens to write, or None.
            sampler: Chooses the next token.
            processors: Change its scores before.

        Yields:
            The tokens written; each is part of the context when it is given out.
        """
        history = mx.array([], dtype=mx.int32)

        def choose_after(token_1: mx.array) -> mx.array:
            nonlocal history
            logits_1V = self.model(token_1[None], cache=self.cache)[:, -1]
            if processors:
                history = mx.concatenate([history, token_1])
                for processor in processors:
                    logits_1V = processor(history, logits_1V)
            chosen_1 = sampler(logits_1V)
            mx.async_eval(chosen_1)
            return chosen_1

        self.tokens.append(token)
        chosen_1 = choose_after(mx.array([token], dtype=mx.int32))
        for count in itertools.count() if limit is None else range(limit):
            # What is given out has been read.
            following_1 = choose_after(chosen_1)
            # Waited for where MLX lets other threads run: one of them watches the other processes.
            mx.eval(chosen_1)
            (written,) = np.array(chosen_1).tolist()
            self.tokens.append(written)
            yield written
            if count % STEPS_PER_CLEARING == 0:
                mx.clear_cache()
            chosen_1 = following_1

    def return_to(self, length: int) -> None:
        """Forgets tokens, so that at most the first `length` are left.

        Caches that cannot forget the last ones go back to the end of what was read last, or to nothing.
        """
        # An interruption may have left layers that read more, or less, than is noted.
        length = min(length, len(self.tokens), *(layer.offset for layer in self.cache))
        if all(layer.offset == length for layer in self.cache):
            pass
        elif all(layer.is_trimmable() for layer in self.cache):
            for layer in self.cache:
                layer.trim(layer.offset - length)
        elif self._earlier is not None and self._earlier[0] <= length:
            length, earlier = self._earlier
            self.cache = copy.deepcopy(earlier)
        else:
            length, self.cache = 0, self.make_cache()
        del self.tokens[length:]
