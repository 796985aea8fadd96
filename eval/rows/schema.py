"""What a row holds, as pydantic models; the JSON Schema of `Row` is published with every file of rows.

Every key is always written, null where it does not apply, so that tables of rows have the same columns everywhere.
Times are seconds, sizes bytes, losses nats per token unless a name says otherwise.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from eval.rows.cell import AttentionJson, Cell, Count, Figure, FigureOrNone, Name, Positive, Seconds, Seed, Strict
from zoo.config.errors import shortened
from zoo.config.files import parse_json
from zoo.runtime.versions import describe

SCHEMA_VERSION = 1
Status = Literal["ok", "incorrect", "skipped", "out_of_memory", "crashed", "unavailable"]
Kind = Literal["speed", "quality"]
Budget = Literal["equal_tokens", "equal_seconds", "checkpoint"]
# SHA-256 of a content, as `zoo.data.identity` takes it.
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# Of two times that are within `Seconds`.
Ratio = Annotated[float, Field(ge=1e-30, le=1e30)]


class Machine(Strict):
    """Where a row was measured."""

    device: Name = Field(description="the device by its own name, never a guess")
    backend: Name
    cores: Count
    blas: Name
    blas_threads: Count | None
    native: Name | None = Field(default=None, description="instruction set of the compiled kernels; null without them")
    platform: Name
    python: Name
    attention_zoo: Name | None
    mlx: Name | None
    mlx_lm: Name | None
    numpy: Name | None
    commit: Name | None
    uncommitted_changes: bool | None


class Correctness(Strict):
    """The check that came before the clock, in the same run."""

    passed: bool
    checks: str = Field(description="what was compared with what")
    max_error: FigureOrNone = Field(description="largest error relative to the tolerance's scale; null if none applies")
    tolerance: FigureOrNone


class Samples(Strict):
    """What the clock said."""

    first_call_seconds: Seconds = Field(description="compilation included; in no other figure")
    warmup_calls: Count
    calls_per_sample: Positive = Field(description="a sample is the mean of this many calls")
    samples_seconds: list[Seconds] = Field(min_length=1, description="seconds per call, one sample a round")
    rounds_id: Name | None = Field(default=None, description="names the rounds; samples of equal ones pair by index")


class Timing(Samples):
    """Raw samples and what follows from them alone."""

    median_seconds: Seconds
    mean_seconds: Seconds
    interval_low: Seconds | None = Field(description="95 % bootstrap interval of the median; null for one sample")
    interval_high: Seconds | None
    coefficient_of_variation: FigureOrNone


class Comparison(Strict):
    """Against the baseline of the same group, paired round by round."""

    baseline: Name = Field(description="the baseline's variant")
    same_function: bool = Field(description="false: two different functions are compared")
    ratio: Ratio = Field(description="median of time / baseline's time; below 1 is faster")
    ratio_low: Ratio | None
    ratio_high: Ratio | None
    p_value: FigureOrNone = Field(description="Welch's t-test on log seconds, not corrected")


class Memory(Strict):
    """Bytes, from MLX's allocator in a process of its own."""

    peak_bytes: Count | None
    cache_bytes: Count | None = Field(default=None, description="held by the decoding cache, measured")
    analytic_bytes: Count | None = Field(default=None, description="the least that must be held, by formula")
    analytic_cache_bytes: Count | None = None


class Work(Strict):
    """How much useful work a call is, and how much of the device it uses."""

    useful_flops: Count | None = Field(description="projections and allowed scores only; a multiply-add counts as 2")
    tokens: Count | None = Field(default=None, description="tokens that one call processes")
    graph_nodes: Count | None = Field(default=None, description="operations of one uncompiled call")
    attention_path: Name | None = Field(default=None, description="fused or fallback, where MLX decides")
    peak_flops_per_second: FigureOrNone = Field(default=None, description="measured matrix product peak of this device")
    utilisation: FigureOrNone = Field(default=None, description="useful FLOPs per second over that peak")
    bandwidth_bytes_per_second: FigureOrNone = Field(default=None, description="measured copy of this device")
    bandwidth_share: FigureOrNone = Field(default=None, description="analytic_bytes per second over that bandwidth")


class CurvePoint(Strict):
    """One evaluation during training."""

    tokens: Count
    seconds: Annotated[float, Field(ge=0, le=1e15)]
    value: Figure


# Begins the metrics that training itself reports of its held-out data.
_OF_TRAINING = "val_"


class Quality(Strict):
    """How good a trained model is at one task, under one setting."""

    task: Name
    metric: Name = Field(description="for example bits_per_byte, accuracy, perplexity")
    value: FigureOrNone
    standard_error: FigureOrNone
    count: Count | None = Field(description="what the value is an average of: tokens or examples")
    variant: Name
    attention: AttentionJson | None = Field(description="the variant's whole mapping as JSON")
    implementation: Name | None = Field(default=None, description="what computed the attention in training, if known")
    model: Name
    data: Name
    budget: Budget = Field(
        validation_alias=AliasChoices("budget", "regime"),  # what earlier versions wrote
        description="what it had in common with the trainings that it is compared with",
    )
    seed: Seed
    trained_on: Digest | None = Field(default=None, description="names the content trained on; null if unknown")
    measured_on: Digest | None = Field(default=None, description="names the held-out content of this figure")
    settings: str | None = Field(default=None, description="how it was trained, as JSON; not attention, data and seed")
    steps: Count | None = None
    tokens: Count | None = None
    train_seconds: FigureOrNone = None
    tokens_per_second: FigureOrNone = None
    peak_bytes: Count | None = None
    num_parameters: Count | None = None
    length: Positive | None = Field(default=None, description="tokens of the context, where the task varies it")
    num_pairs: Count | None = None
    depth: float | None = Field(default=None, ge=0, le=1, description="where in the context the answer lies")
    position: Count | None = Field(default=None, description="first position of the bin, where losses go by position")
    curve: list[CurvePoint] = Field(default_factory=list, description="validation values during training")
    surgery: str | None = Field(default=None, description="what exchanging a trained model's attention did, as JSON")

    @field_validator("settings")
    @classmethod
    def _settings_are_a_mapping(cls, settings: str | None) -> str | None:
        mapping = parse_json("{}" if settings is None else settings, where="settings")
        if not isinstance(mapping, dict) or not isinstance(mapping.get("training", {}), dict):
            raise ValueError(f"settings must be a mapping of sections; got {shortened(settings)}")
        return settings

    @property
    def is_of_training(self) -> bool:
        """Whether the training itself reported it, and no evaluation afterwards."""
        return self.metric.startswith(_OF_TRAINING)

    @property
    def quantity(self) -> str:
        """The metric's name, whether a training or an evaluation gave it."""
        return self.metric.removeprefix(_OF_TRAINING)

    @property
    def is_overall(self) -> bool:
        """Whether the figure is over all settings of its task."""
        return all(axis is None for axis in (self.length, self.num_pairs, self.depth, self.position))

    @property
    def settings_digest(self) -> str | None:
        """Names the settings."""
        return None if self.settings is None else hashlib.sha256(self.settings.encode()).hexdigest()[:16]

    @property
    def terms(self) -> tuple[int | None, str | None]:
        """What trainings of several variants share where they are compared: tokens, and how they were trained."""
        if self.budget == "equal_tokens":
            return self.tokens, self.settings
        if self.budget == "checkpoint" or self.settings is None:
            return None, None
        # Of equal seconds each variant makes as many steps as it can.
        mapping = json.loads(self.settings)
        mapping["training"] = {**mapping.get("training", {}), "steps": None}
        return None, json.dumps(mapping, sort_keys=True)

    @property
    def training(self) -> tuple[str | int | None, ...]:
        """What trainings of an experiment share that differ in their seed only."""
        limits = json.loads(self.settings or "{}").get("training", {})
        # By its time or its accuracy each seed ends after another number of steps.
        ends_itself = any(limits.get(limit) is not None for limit in ("max_seconds", "target_accuracy"))
        return self.variant, self.attention, self.budget, self.settings, None if ends_itself else self.steps


class Row(Strict):
    """One measured fact."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    kind: Kind
    identity: str = Field(description="names what was measured; the newest row of an identity counts")
    status: Status
    reason: str | None = Field(default=None, description="why the status is not ok")
    flags: list[Name] = Field(default_factory=list, description="for example overhead_bound, constant_spread")
    recorded_at: Name = Field(description="UTC, ISO 8601")
    machine: Machine
    cell: Cell | None = None
    correctness: Correctness | None = None
    timing: Timing | None = None
    comparison: Comparison | None = None
    memory: Memory | None = None
    work: Work | None = None
    quality: Quality | None = None

    @model_validator(mode="after")
    def _holds_what_its_kind_says(self) -> Self:
        own, other = (self.cell, self.quality) if self.kind == "speed" else (self.quality, self.cell)
        if own is None or other is not None:
            raise ValueError("a record of speed must have a cell, one of quality a quality, and neither both")
        return self


def current_machine() -> Machine:
    """This process's machine."""
    return machine_of(describe())


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """The machine that `zoo.runtime.versions.describe` told of, here or in the folder of a run."""
    versions = facts["versions"]
    as_told = ("device", "backend", "cores", "platform", "python", "commit", "uncommitted_changes")
    return Machine(
        **{name: facts[name] for name in as_told},
        native=facts.get("native"),
        blas=facts["blas"]["name"],
        blas_threads=facts["blas"]["num_threads"],
        attention_zoo=versions["attention-zoo"],
        mlx=versions["mlx"],
        mlx_lm=versions["mlx-lm"],
        numpy=versions["numpy"],
    )
