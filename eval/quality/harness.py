"""Tasks of EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), if installed."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from eval.quality import Score
from eval.quality.tasks import LANGUAGE_MODEL, Evaluated
from zoo.config import UserError, require
from zoo.config.files import typed_path
from zoo.data import Tokenizer
from zoo.generation import GenerationConfig, generate_text
from zoo.training.likelihood import Likelihood

# Tokens, for tasks that do not say how much to generate.
_MAX_GENERATED = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class HarnessConfig:
    """What to ask of the harness.

    Attributes:
        tasks: Names of its tasks.
        limit: Most examples of a task, or None for all.
        num_shots: Examples shown before the question, or None for the task's own number.
        folder: Where further tasks are described, as YAML files of the harness, or None.
    """

    tasks: tuple[str, ...] = ()
    limit: int | None = None
    num_shots: int | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, "limit", "be at least 1 or null", self.limit)
        require(self.num_shots is None or self.num_shots >= 0, "num_shots", "be at least 0 or null", self.num_shots)
        if self.tasks and importlib.util.find_spec("lm_eval") is None:
            raise UserError("harness.tasks: lm-eval must be installed; run: pip install -e '.[harness]'")
        if self.folder is not None and not typed_path(self.folder, what="harness.folder").is_dir():
            raise UserError(f"harness.folder must be a folder; got {self.folder!r}")


def harness(evaluated: Evaluated, config: HarnessConfig) -> dict[str, list[Score]]:
    """Asks a language model of text the harness's tasks; the figures of each, accuracy first where there is one.

    Raises:
        UserError: If the model is none of text, a task does not exist, or its examples cannot be had.
    """
    # Of the optional package.
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class HarnessModel(HarnessAnswers, LM):
        """The model as the harness knows models."""

    if any(not need.is_met(evaluated) for need in LANGUAGE_MODEL):
        family, data = evaluated.model.config.family, evaluated.data.name
        raise UserError(f"harness.tasks need a language model of text; the checkpoint is a {family} model of {data}")
    manager = TaskManager(include_path=config.folder and str(typed_path(config.folder, what="harness.folder")))
    for name in config.tasks:
        if not manager.match_tasks([name]):
            raise UserError(f"harness.tasks must be known to lm-eval; got {name!r} (`lm-eval ls tasks` lists them)")
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    try:
        found = simple_evaluate(
            model=HarnessModel(evaluated.model, evaluated.tokenizer),
            tasks=list(config.tasks),
            num_fewshot=config.num_shots,
            limit=config.limit,
            task_manager=manager,
            log_samples=False,
            **dict.fromkeys(seeds, evaluated.seed),
        )
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"harness.tasks: the examples could not be had; {reason}") from None
    assert found is not None, "one process has all results"
    counts = {name: each["effective"] for name, each in found["n-samples"].items()}
    return {name: harness_scores(values, counts.get(name)) for name, values in found["results"].items()}


def harness_scores(values: Mapping[str, Any], count: int | None) -> list[Score]:
    """The scores of a task, from keys such as "acc,none" and "acc_stderr,none"; accuracy first."""
    scores = []
    for key, value in values.items():
        metric, _, how = key.partition(",")
        if not how or metric.endswith("_stderr"):
            continue
        error = values.get(f"{metric}_stderr,{how}")
        known = float(error) if isinstance(error, int | float) else None
        name = metric if how == "none" else f"{metric} ({how})"
        scores.append(Score(metric=name, value=float(value), standard_error=known, count=count))
    return sorted(scores, key=lambda score: score.metric != "acc")


class HarnessAnswers:
    """Answers the harness's three kinds of requests; its `LM` is a second base class, which this file cannot name."""

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
        wanted, limit = int(choices.get("max_gen_toks", _MAX_GENERATED)), self._model.config.position_limit
        prompt = self.tokenizer.encode_prompt(context)
        if limit is not None:
            wanted = min(wanted, limit // 2)
            prompt = prompt[-(limit - wanted) :]
        until = choices.get("until") or ()
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        temperature = float(choices.get("temperature", 0.0)) if choices.get("do_sample") else 0.0
        config = GenerationConfig(max_tokens=wanted, temperature=temperature, stop=stop)
        return generate_text(self._model, self.tokenizer, prompt, config).text
