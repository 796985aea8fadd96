"""A model of ours as lm-evaluation-harness asks it.

Imports lm-eval, an optional package: import this module late.
"""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from tqdm import tqdm

from eval.quality.likelihood import Likelihood
from zoo.data import Tokenizer
from zoo.generation import GenerationConfig, generate_text

# Tokens, for tasks that do not say how much to generate.
_MAX_GENERATED = 8192


class HarnessModel(LM):
    """Answers the harness's three kinds of requests."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        """Takes a causal model in evaluation mode and its tokenizer."""
        super().__init__()
        self._model = model
        self.tokenizer = tokenizer
        self._likelihood = Likelihood(model, tokenizer)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.fingerprint)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each answer after its context, and whether it is what greedy decoding gives."""
        return [self._likelihood.of_answer(*request.args) for request in tqdm(requests, disable=disable_tqdm)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts."""
        return [self._likelihood.of_text(request.args[0]) for request in tqdm(requests, disable=disable_tqdm)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first of the texts to stop at."""
        return [self._continuation(*request.args) for request in tqdm(requests, disable=disable_tqdm)]

    def _continuation(self, context: str, choices: dict[str, Any]) -> str:
        wanted = int(choices.get("max_gen_toks", _MAX_GENERATED))
        prompt = self.tokenizer.encode_prompt(context)
        limit = self._model.config.position_limit
        if limit is not None:
            wanted = min(wanted, limit // 2)
            prompt = prompt[-(limit - wanted) :]
        until = choices.get("until") or []
        config = GenerationConfig(
            max_tokens=wanted,
            temperature=float(choices.get("temperature", 0.0)) if choices.get("do_sample") else 0.0,
            stop=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        )
        return generate_text(self._model, self.tokenizer, prompt, config).text
