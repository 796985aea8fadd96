"""A model of ours as lm-evaluation-harness asks it, on top of mlx-lm's adapter.

mlx-lm's adapter judges continuations; where it does not serve is here: it loads models of its own formats, scores a
text longer than the model's positions in one piece, and generates with caches that not every attention has.

Imports lm-eval, an optional package: import this module late.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows
from mlx_lm.evaluate import MLXLM

from zoo.data import Tokenizer
from zoo.generation import GenerationConfig, generate_text
from zoo.training import token_nats
from zoo.training.evaluation import scalar

# As in mlx-lm, for tasks that do not say how much to generate.
_MAX_GENERATED = 8192


class HarnessModel(MLXLM):
    """Answers the harness's three kinds of requests."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        """Takes a causal model in evaluation mode and its tokenizer."""
        # Not the parent's, which loads a model of mlx-lm's from a folder or the Hub.
        LM.__init__(self)
        self._model = model
        self.tokenizer = tokenizer
        # Of a context that is too long the parent keeps the end.
        self._max_tokens = model.config.position_limit
        self.use_chat_template = False

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.fingerprint)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, each token once, in windows of the model's max_seq_len."""
        del disable_tqdm
        return [self._log_likelihood(self.tokenizer.encode(request.args[0])) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first of the texts to stop at."""
        del disable_tqdm
        return [self._continuation(*request.args) for request in requests]

    def _tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(self.tokenizer.encode_prompt(text)) for text in texts]

    def _log_likelihood(self, tokens: list[int]) -> float:
        windows = get_rolling_token_windows(
            token_list=tokens,
            prefix_token=self.tokenizer.eos_id,
            max_seq_len=self._model.config.max_seq_len,
            context_len=1,
        )
        total = 0.0
        for read, predicted in windows:
            logits_LV = self._model(mx.array([read]))[0]
            total -= scalar(token_nats(logits_LV[-len(predicted) :], mx.array(predicted)).sum())
        return total

    def _continuation(self, context: str, choices: dict[str, Any]) -> str:
        wanted = int(choices.get("max_gen_toks", _MAX_GENERATED))
        prompt = self.tokenizer.encode_prompt(context)
        limit = self._max_tokens
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
