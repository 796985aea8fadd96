"""Says how good a trained model is: bits per byte, by position and length, masked tokens, recall."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import mlx.core as mx
from omegaconf import DictConfig, OmegaConf

from eval.quality import Score
from eval.quality.harness import HarnessConfig, harness
from eval.quality.run_rows import facts_of_checkpoint, quality_row, settings_of
from eval.quality.tasks import Evaluated, chosen_tasks, require_known
from eval.rows import only_writer
from recipes.held_out import held_out_data
from recipes.surgery import SurgeryConfig, operate, report
from zoo.attention.catalog import attention_json, series_name
from zoo.checkpoints import LoadedCheckpoint, content_name, load_checkpoint, locate, section
from zoo.config import MOST, from_mapping, require, require_within
from zoo.config.files import typed_path
from zoo.data import Data, ExampleData, SyntheticTask
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.models import Load, Model, ModelPrice
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.memory import require_room
from zoo.runtime.seeds import seed_everything

logger = logging.getLogger(__name__)

# Rows at a time, tokens of a row at most, and batches, for a checkpoint that does not say how it was trained.
_BATCH_SIZE, _LENGTH, _MAX_BATCHES = 8, 512, 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """`configs/evaluate.yaml`, composed.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run.
        tasks: Names of tasks, or None for all that fit.
        data: Corpus to take held-out text from, or keys to change in the one of the training, or None.
        trust_data: Whether to open the files, or the data set on the Hub, that a checkpoint names which was not
            trained by this user here.
        attention: Another variant or hybrid for the same weights, or None.
        layers: Numbers of the layers that get it; None for all.
        max_batches: Most batches of one figure; None for all; "auto" for as much text as the training's own
            evaluations looked at.
        batch_size: Rows at a time, or None for as many as in training.
        sequence_length: Tokens of a row, or None for as many as in training; where that is unknown, for 512.
        run_dir: Where the rows go.
        seed: Of whatever a task draws.
        device: Back end.
        dtype: Of the forward pass.
        allow_large: Whether to begin what will not fit into memory.
        compile: Whether graphs are compiled.
        harness: What to ask of lm-evaluation-harness.
    """

    run_dir: str
    checkpoint: str | None = None
    tasks: tuple[str, ...] | None = None
    data: dict[str, Any] | None = None
    trust_data: bool = False
    attention: dict[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    max_batches: int | Literal["auto"] | None = "auto"
    batch_size: int | None = None
    sequence_length: int | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    allow_large: bool = False
    compile: bool = True
    harness: HarnessConfig = dataclasses.field(default_factory=HarnessConfig)

    def __post_init__(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        require(bool(self.run_dir), "run_dir", "name a folder", self.run_dir)
        require_within(self, 1, MOST, "batch_size", "sequence_length")
        most = self.max_batches
        fits = most in (None, "auto") or 1 <= int(most) <= MOST
        require(fits, "max_batches", f"be at least 1 and at most {MOST}, or null", most)
        nothing = self.tasks == () and not self.harness.tasks
        require(not nothing, "tasks", "name at least one task, or be null for all that fit", [])
        require_known(self.tasks or ())


def main(config: DictConfig) -> dict[str, Any]:
    """Evaluates a checkpoint, and adds a row for each figure.

    Returns:
        `tasks`: one object per task with metric, value, standard_error, count, and all its figures as `details`;
        and `rows_path`.

    Raises:
        UserError: On a checkpoint that cannot be loaded, or a task that does not exist or does not fit it.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    recipe = _recipe({str(key): value for key, value in plain.items()})
    choose_backend(recipe.device)
    seed_everything(recipe.seed)
    assert recipe.checkpoint is not None
    checkpoint = typed_path(recipe.checkpoint, what="checkpoint")
    replaced = recipe.attention is not None and recipe.layers is None
    loaded = load_checkpoint(locate(checkpoint), allow_large=recipe.allow_large, replaced=replaced)
    operation = operate(cast(Model, loaded.model), recipe.attention, recipe.layers)
    loaded = dataclasses.replace(loaded, model=operation.model)
    data, others = held_out_data(recipe.data or {}, loaded, trust_data=recipe.trust_data)
    evaluated = _evaluated(recipe, loaded, data)
    if operation.surgery is not None:
        surgery = report(operation, (), None, SurgeryConfig(batches=0))
        evaluated = dataclasses.replace(evaluated, original=operation.original, surgery=surgery)
    _require_room_for(recipe, evaluated)
    tasks = chosen_tasks(evaluated, recipe.tasks)
    whose = _whose(recipe, loaded, evaluated, _label(evaluated, loaded, others))
    digest = _digest(recipe, loaded, evaluated)
    results = {}
    with only_writer(typed_path(recipe.run_dir, what="run_dir") / "rows.jsonl") as store:
        for task in tasks:
            logger.info("%s", task.name)
            scores = task.measure(evaluated)
            store.append(quality_row(whose, task.name, score, evaluated=digest) for score in scores)
            results[task.name] = _summary(scores)
        if recipe.harness.tasks:
            # What the harness asks is no content of ours.
            whose["measured_on"] = None
            for name, scores in harness(evaluated, recipe.harness).items():
                store.append([quality_row(whose, name, score, evaluated=digest) for score in scores])
                results[name] = _summary(scores)
    return {
        "checkpoint": str(loaded.folder),
        "attention": whose["variant"],
        "model": whose["model"],
        "data": whose["data"],
        "steps": whose.get("steps"),
        "tasks": results,
        "rows_path": str(store.path),
    }


def _require_room_for(recipe: EvaluateRecipe, evaluated: Evaluated) -> None:
    load = Load(batch_size=evaluated.batch_size, length=evaluated.sequence_length, dtype=evaluated.dtype)
    needed = ModelPrice(evaluated.model.config).forward_activations(load)
    remedy = "make batch_size or sequence_length smaller"
    require_room(needed, "a batch of the evaluation", allow_large=recipe.allow_large, remedy=remedy)


def _recipe(mapping: dict[str, Any]) -> EvaluateRecipe:
    data = mapping.get("data")
    corpus = data.get("corpus") if isinstance(data, dict) else None
    if isinstance(corpus, str) and corpus in SYNTHETIC_TASKS:
        # The YAML of a synthetic task says how to train on it as well.
        mapping = {key: value for key, value in mapping.items() if key not in ("training", "optimizer")}
    return from_mapping(EvaluateRecipe, mapping, path="evaluate")


def _evaluated(recipe: EvaluateRecipe, loaded: LoadedCheckpoint, data: Data) -> Evaluated:
    """The model and its held-out data, at the sizes of its training unless others are asked for."""
    model: Any = loaded.model
    training = section(loaded.config, "training")
    if isinstance(data, SyntheticTask):
        length = data.length
    else:
        length = recipe.sequence_length or _size(training, "sequence_length") or min(_LENGTH, model.config.max_seq_len)
    return Evaluated(
        model=model,
        data=data,
        sequence_length=length,
        batch_size=recipe.batch_size or _size(training, "batch_size") or _BATCH_SIZE,
        **_limits(recipe, training, of_text=not isinstance(data, SyntheticTask)),
        seed=recipe.seed,
        dtype=_dtype(recipe, loaded),
        compile=recipe.compile,
    )


def _dtype(recipe: EvaluateRecipe, loaded: LoadedCheckpoint) -> mx.Dtype:
    """By "auto" that of the training."""
    trained = loaded.config.get("dtype")
    if recipe.dtype != "auto" or trained is None:
        return parse_dtype(recipe.dtype)
    return parse_dtype(trained, field="checkpoint: run.dtype")


def _label(evaluated: Evaluated, loaded: LoadedCheckpoint, others: Sequence[str]) -> str:
    """The data's name, with all that is asked otherwise than in training: figures of two labels are never pooled."""
    others = [*others, *_asked_otherwise(evaluated, loaded)]
    return f"{evaluated.data.name} ({', '.join(others)})" if others else evaluated.data.name


def _asked_otherwise(evaluated: Evaluated, loaded: LoadedCheckpoint) -> list[str]:
    training = section(loaded.config, "training")
    if not evaluated.is_text or not training:
        return []
    batches, batch_size = _size(training, "eval_batches", _MAX_BATCHES), _size(training, "batch_size") or _BATCH_SIZE
    own_rows = None if batches is None else batches * batch_size
    as_trained = dataclasses.replace(evaluated, max_batches=None, max_rows=own_rows)
    asked = {
        "dtype": (dtype_name(evaluated.dtype), loaded.config.get("dtype")),
        "sequence_length": (evaluated.sequence_length, _size(training, "sequence_length")),
        "rows": (evaluated.num_text_rows(), as_trained.num_text_rows()),
    }
    if isinstance(evaluated.data, ExampleData):
        # Batches are cut where rows are of about one length, so that another size looks at other rows.
        asked["batch_size"] = (evaluated.batch_size, _size(training, "batch_size"))
    return [f"{key}={own}" for key, (own, trained) in asked.items() if trained not in (None, own)]


def _size(training: Mapping[str, Any], field: str, default: int | None = None) -> int | None:
    """A size that a checkpoint says it was trained with; the default if it does not say."""
    value = training.get(field, default)
    fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
    require(fits, f"checkpoint: run.training.{field}", "be at least 1 or null", value)
    return value


def _limits(recipe: EvaluateRecipe, training: Mapping[str, Any], *, of_text: bool) -> dict[str, Any]:
    """How much is looked at: by "auto" the very rows that the training's own evaluations looked at."""
    if recipe.max_batches != "auto":
        return {"max_batches": recipe.max_batches}
    if not of_text:
        return {"max_batches": _MAX_BATCHES}
    batches = _size(training, "eval_batches", _MAX_BATCHES)
    return {"max_rows": None if batches is None else batches * (_size(training, "batch_size") or _BATCH_SIZE)}


def _whose(recipe: EvaluateRecipe, loaded: LoadedCheckpoint, evaluated: Evaluated, label: str) -> dict[str, Any]:
    """Whose figures they are, and what the training was, as fields of `Quality`."""
    config = evaluated.model.config
    facts = facts_of_checkpoint(loaded.folder, loaded.training_state)
    trained = section(section(loaded.config, "model"), "attention", path="run.model.")
    exchanged = recipe.attention is not None and trained != config.attention.as_mapping()
    # What the training cost and how it went is another attention's.
    forgotten: dict[str, Any] = {"tokens_per_second": None, "peak_bytes": None, "curve": []} if exchanged else {}
    return {
        **facts,
        **settings_of(loaded.config, attention=trained if exchanged else None),
        **forgotten,
        "num_parameters": evaluated.model.num_parameters(),
        "variant": series_name(config.attention),
        "attention": attention_json(config.attention),
        "model": facts.get("model") or config.family,
        "data": label,
        "budget": "checkpoint",
        "seed": _seed(loaded, recipe.seed),
        "measured_on": evaluated.data.identity.validation,
    }


def _seed(loaded: LoadedCheckpoint, default: int) -> int:
    seed = loaded.config.get("seed", default)
    fits = isinstance(seed, int) and not isinstance(seed, bool)
    require(fits, "checkpoint: run.seed", "be a whole number", seed)
    return int(seed)


def _digest(recipe: EvaluateRecipe, loaded: LoadedCheckpoint, evaluated: Evaluated) -> str:
    """Names the weights, the data and how they are asked, which no row's description tells apart for certain."""
    content = content_name(loaded.folder)
    asked = [evaluated.sequence_length, evaluated.max_batches, evaluated.max_rows, dtype_name(evaluated.dtype)]
    asked += [evaluated.batch_size, evaluated.seed, recipe.harness.limit, recipe.harness.num_shots]
    data = evaluated.data
    rows = None if isinstance(data, SyntheticTask) else list(data.row_settings.values())
    return hashlib.sha256(content + json.dumps([data.identity.as_mapping(), rows, asked]).encode()).hexdigest()


def _summary(scores: Sequence[Score]) -> dict[str, Any]:
    """The figure that stands for a task, and all of them, without the keys that do not apply."""
    first = scores[0]
    details = [
        {key: value for key, value in dataclasses.asdict(score).items() if value is not None or key == "value"}
        for score in scores
    ]
    return {
        "metric": first.metric,
        "value": first.value,
        "standard_error": first.standard_error,
        "count": first.count,
        "details": details,
    }
