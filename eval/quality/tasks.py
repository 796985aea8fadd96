"""The tasks that a trained model can be asked, and which of them fit it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from eval.quality.evaluated import Evaluated, HeldOutExamples, HeldOutText
from eval.quality.generated import ablation, generated_needle, generated_recall
from eval.quality.language import classification, extrapolation, language, masked, positions
from eval.quality.recall import recall
from eval.quality.score import Score
from eval.quality.surgery import surgery
from zoo.config import UserError
from zoo.data.synthetic import SYNTHETIC_TASKS


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityTask:
    """A task.

    Attributes:
        name: As in `tasks=[NAME]`.
        unfit: Why the task does not fit what is evaluated; None if it does.
        measure: The figures, the one that stands for the task first.
        on_request: Whether it is left out where no task is named.
    """

    name: str
    unfit: Callable[[Evaluated], str | None]
    measure: Callable[[Evaluated], Sequence[Score]]
    on_request: bool = False


def _unless_language_model(evaluated: Evaluated) -> str | None:
    return _unless_text(evaluated) or (
        None if evaluated.causal else f"it asks for the next token; a {evaluated.family} model is an encoder"
    )


def _unless_running_text(evaluated: Evaluated) -> str | None:
    reason = _unless_language_model(evaluated)
    if reason is None and not isinstance(evaluated.text, HeldOutText):
        reason = "it asks for running text, and examples are rows of their own; choose one, as data=text"
    return reason


def _unless_classifier(evaluated: Evaluated) -> str | None:
    if isinstance(evaluated.text, HeldOutExamples) and evaluated.text.classes:
        return None
    return "it asks what texts are, a classifier and about texts with labels"


def _unless_encoder(evaluated: Evaluated) -> str | None:
    reason = _unless_text(evaluated)
    if reason is None and evaluated.causal:
        reason = f"it asks for hidden tokens; a {evaluated.family} model reads left to right"
    if reason is None and not evaluated.model.config.masked_token_head:
        reason = "it asks for hidden tokens; this encoder has no masked-token head"
    return reason


def _unless_text(evaluated: Evaluated) -> str | None:
    if evaluated.text is not None:
        return None
    return f"it asks for text; the model was trained on {evaluated.data}, whose tokens are none"


def _unless_exchanged(evaluated: Evaluated) -> str | None:
    reason = _unless_text(evaluated)
    return reason or (
        "it asks what exchanging the attention did; choose one, as in attention=swa"
        if evaluated.original is None
        else None
    )


def _unless_decoding(evaluated: Evaluated) -> str | None:
    able = [layer.self_attn.capabilities.decode for layer in evaluated.model.layers]
    return _unless_language_model(evaluated) or (None if all(able) else "its attention cannot write token by token")


def _unless_writing_after_text(evaluated: Evaluated) -> str | None:
    return _unless_decoding(evaluated) or _unless_running_text(evaluated)


_TEXT_TASKS = (
    QualityTask(name="language", unfit=_unless_language_model, measure=language),
    QualityTask(name="positions", unfit=_unless_running_text, measure=positions),
    QualityTask(name="extrapolation", unfit=_unless_running_text, measure=extrapolation),
    QualityTask(name="masked", unfit=_unless_encoder, measure=masked),
    QualityTask(name="classification", unfit=_unless_classifier, measure=classification),
    QualityTask(name="surgery", unfit=_unless_exchanged, measure=surgery, on_request=True),
    QualityTask(name="ablation", unfit=_unless_language_model, measure=ablation, on_request=True),
    QualityTask(name="generated_recall", unfit=_unless_decoding, measure=generated_recall, on_request=True),
    QualityTask(name="generated_needle", unfit=_unless_writing_after_text, measure=generated_needle, on_request=True),
)


def _unless_trained_on(name: str) -> Callable[[Evaluated], str | None]:
    def unfit(evaluated: Evaluated) -> str | None:
        if evaluated.data == name:
            return None
        return f"its tokens mean nothing to a model that was trained on {evaluated.data}; train with data={name}"

    return unfit


def all_tasks() -> Mapping[str, QualityTask]:
    """Every task by its name."""
    synthetic = (QualityTask(name=name, unfit=_unless_trained_on(name), measure=recall) for name in SYNTHETIC_TASKS)
    return {task.name: task for task in (*_TEXT_TASKS, *synthetic)}


def chosen_tasks(evaluated: Evaluated, names: Sequence[str] | None) -> list[QualityTask]:
    """The tasks of these names, or all that fit.

    Raises:
        UserError: On an unknown name, or a task that does not fit; says why.
    """
    tasks = all_tasks()
    if names is None:
        return [task for task in tasks.values() if not task.on_request and task.unfit(evaluated) is None]
    require_known(names)
    for name in names:
        reason = tasks[name].unfit(evaluated)
        if reason is not None:
            raise UserError(f"tasks: {name} must fit the checkpoint; {reason}")
    return [tasks[name] for name in names]


def require_known(names: Sequence[str]) -> None:
    """Refuses names of no task.

    Raises:
        UserError: Lists the tasks.
    """
    tasks = all_tasks()
    for name in names:
        if name not in tasks:
            raise UserError(f"tasks must be known ones; got {name!r} (choices: {', '.join(tasks)})")
