"""What a user may choose about generating text."""

import dataclasses

from zoo.config import require
from zoo.runtime.seeds import LIMIT as SEED_LIMIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How text is continued.

    Attributes:
        max_tokens: Most tokens to generate, or None to go on until something else ends the text.
        temperature: 0 takes the most probable token (greedy); larger values flatten the distribution.
        top_k: Sample among this many most probable tokens; 0 among all.
        top_p: Sample among the most probable tokens that together have this probability; 1 among all.
        min_p: Sample among tokens at least this fraction as probable as the most probable one; 0 among all.
        repetition_penalty: Divides the positive (multiplies the negative) scores of recent tokens; 1 leaves them.
        repetition_context_size: How many latest tokens, the prompt's included, count as recent.
        stop: Texts that end the generation; neither they nor what follows is part of the result.
        stop_at_eos: Whether the end-of-document token ends the text; if not, the text runs on past it.
        seed: Equal seeds give equal text; irrelevant when greedy.
        prefill_step_size: Prompt tokens processed at a time; bounds memory and does not change the text.
    """

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context_size: int = 20
    stop: tuple[str, ...] = ()
    stop_at_eos: bool = True
    seed: int = 0
    prefill_step_size: int = 512

    def __post_init__(self) -> None:
        require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "be at least 1 or null", self.max_tokens)
        require(0 <= self.temperature < float("inf"), "temperature", "be at least 0 and finite", self.temperature)
        require(self.top_k >= 0, "top_k", "be at least 0", self.top_k)
        require(0 < self.top_p <= 1, "top_p", "be in (0, 1]", self.top_p)
        require(0 <= self.min_p <= 1, "min_p", "be in [0, 1]", self.min_p)
        positive = 0 < self.repetition_penalty < float("inf")
        require(positive, "repetition_penalty", "be positive and finite", self.repetition_penalty)
        at_least_one = self.repetition_context_size >= 1
        require(at_least_one, "repetition_context_size", "be at least 1", self.repetition_context_size)
        require(all(self.stop), "stop", "hold no empty text", self.stop)
        require(0 <= self.seed < SEED_LIMIT, "seed", f"be at least 0 and below {SEED_LIMIT}", self.seed)
        require(self.prefill_step_size >= 1, "prefill_step_size", "be at least 1", self.prefill_step_size)
