"""Tasks of EleutherAI's lm-evaluation-harness, an optional package.

https://github.com/EleutherAI/lm-evaluation-harness
"""

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

from eval.quality.evaluated import Evaluated
from eval.quality.score import Score
from zoo.config import UserError, require
from zoo.config.files import typed_path

_PACKAGE = "lm_eval"


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
        if self.tasks and importlib.util.find_spec(_PACKAGE) is None:
            raise UserError("harness.tasks: lm-eval must be installed; run: pip install -e '.[harness]'")
        if self.folder is not None and not typed_path(self.folder, what="harness.folder").is_dir():
            raise UserError(f"harness.folder must be a folder; got {self.folder!r}")


def harness(evaluated: Evaluated, config: HarnessConfig) -> dict[str, list[Score]]:
    """Asks a language model the harness's tasks.

    Args:
        evaluated: A language model of text.
        config: Which tasks, and how.

    Returns:
        The figures of each task, in the harness's own order, accuracy first where there is one.

    Raises:
        UserError: If the model is none of text, a task does not exist, or its examples cannot be had.
    """
    # Both need the optional package.
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from eval.quality.harness_model import HarnessModel

    if not evaluated.causal or evaluated.tokenizer is None:
        raise UserError(
            f"harness.tasks need a language model of text; the checkpoint is a {evaluated.family} model"
            f" of {evaluated.data}"
        )
    folder = None if config.folder is None else str(typed_path(config.folder, what="harness.folder"))
    manager = TaskManager(include_path=folder)
    for name in config.tasks:
        if not manager.match_tasks([name]):
            raise UserError(f"harness.tasks must be known to lm-eval; got {name!r} (`lm-eval ls tasks` lists them)")
    try:
        found = simple_evaluate(
            model=HarnessModel(evaluated.model, evaluated.tokenizer),
            tasks=list(config.tasks),
            num_fewshot=config.num_shots,
            limit=config.limit,
            task_manager=manager,
            log_samples=False,
            random_seed=evaluated.seed,
            numpy_random_seed=evaluated.seed,
            torch_random_seed=evaluated.seed,
            fewshot_random_seed=evaluated.seed,
        )
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"harness.tasks: the examples could not be had; {reason}") from None
    assert found is not None, "one process has all results"
    counts = found["n-samples"]
    return {
        name: scores_of(values, counts[name]["effective"] if name in counts else None)
        for name, values in found["results"].items()
    }


def scores_of(values: Mapping[str, Any], count: int | None) -> list[Score]:
    """The scores of a task, from keys such as "acc,none" and "acc_stderr,none"; accuracy first."""
    scores = []
    for key, value in values.items():
        metric, _, how = key.partition(",")
        if not how or metric.endswith("_stderr"):
            continue
        error = values.get(f"{metric}_stderr,{how}")
        scores.append(
            Score(
                metric=metric if how == "none" else f"{metric} ({how})",
                value=float(value),
                standard_error=float(error) if isinstance(error, int | float) else None,
                count=count,
            )
        )
    return sorted(scores, key=lambda score: score.metric != "acc")
