"""What a row holds, as pydantic models; `json_schema()` is the published JSON Schema.

Every key is always written, null where it does not apply, so that tables of rows have the same columns everywhere.
Times are seconds, sizes bytes, losses nats per token unless a name says otherwise.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from eval.rows.cell import Cell, Strict
from zoo.runtime.versions import describe

SCHEMA_VERSION = 1
Status = Literal["ok", "incorrect", "skipped", "out_of_memory", "crashed", "unavailable"]
Kind = Literal["speed", "quality"]
Regime = Literal["equal_tokens", "equal_seconds", "checkpoint"]


class Machine(Strict):
    """Where a row was measured."""

    device: str = Field(description="the device by its own name, never a guess")
    backend: str
    cores: int
    blas: str
    blas_threads: int | None
    platform: str
    python: str
    attention_zoo: str | None
    mlx: str | None
    mlx_lm: str | None
    numpy: str | None
    commit: str | None
    uncommitted_changes: bool | None


class Correctness(Strict):
    """The check that came before the clock, in the same run."""

    passed: bool
    checks: str = Field(description="what was compared with what")
    max_error: float | None = Field(description="largest error relative to the tolerance's scale; null if none applies")
    tolerance: float | None


class Timing(Strict):
    """Raw samples and what follows from them alone."""

    first_call_seconds: float = Field(description="compilation included; in no other figure")
    warmup_calls: int
    calls_per_sample: int = Field(description="a sample is the mean of this many calls")
    samples_seconds: list[float] = Field(description="seconds per call, one sample a round")
    rounds_id: str | None = Field(
        default=None, description="names the rounds that the samples come from; only rows of equal ids pair by index"
    )
    median_seconds: float
    mean_seconds: float
    interval_low: float | None = Field(description="95 % bootstrap interval of the median; null for one sample")
    interval_high: float | None
    coefficient_of_variation: float | None


class Comparison(Strict):
    """Against the baseline of the same group, paired round by round."""

    baseline: str = Field(description="the baseline's variant")
    same_function: bool = Field(description="false: two different functions are compared")
    ratio: float = Field(description="median of time / baseline's time; below 1 is faster")
    ratio_low: float | None
    ratio_high: float | None
    p_value: float | None = Field(description="Welch's t-test on log seconds, not corrected")


class Memory(Strict):
    """Bytes, from MLX's allocator in a process of its own."""

    peak_bytes: int | None
    cache_bytes: int | None = Field(default=None, description="held by the decoding cache, measured")
    analytic_bytes: int | None = Field(default=None, description="by formula, beside the measured ones")
    analytic_cache_bytes: int | None = None


class Work(Strict):
    """How much useful work a call is, and how much of the device it uses."""

    useful_flops: int | None = Field(description="projections and allowed scores only; a multiply-add counts as 2")
    tokens: int | None = Field(default=None, description="tokens that one call processes")
    graph_nodes: int | None = Field(default=None, description="operations of one uncompiled call")
    attention_path: str | None = Field(default=None, description="fused or fallback, where MLX decides")
    peak_flops_per_second: float | None = Field(default=None, description="measured matrix product peak of this device")
    utilisation: float | None = Field(default=None, description="useful FLOPs per second over that peak")
    bandwidth_bytes_per_second: float | None = Field(default=None, description="measured copy of this device")
    bandwidth_share: float | None = Field(
        default=None, description="analytic_bytes per second, the least that must move, over that bandwidth"
    )


class CurvePoint(Strict):
    """One evaluation during training."""

    tokens: int
    seconds: float
    value: float


# Begins the metrics that training itself reports of its held-out data.
_OF_TRAINING = "val_"


class Quality(Strict):
    """How good a trained model is at one task, under one setting."""

    task: str
    metric: str = Field(description="for example bits_per_byte, accuracy, perplexity")
    value: float | None
    standard_error: float | None
    count: int | None = Field(description="what the value is an average of: tokens or examples")
    variant: str
    attention: str | None = Field(description="the variant's whole mapping as JSON")
    model: str
    data: str
    regime: Regime
    seed: int
    steps: int | None = None
    tokens: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    num_parameters: int | None = None
    length: int | None = Field(default=None, description="tokens of the context, where the task varies it")
    num_pairs: int | None = None
    depth: float | None = Field(default=None, description="where in the context the answer lies, from 0 to 1")
    position: int | None = Field(default=None, description="first position of the bin, where losses go by position")
    curve: list[CurvePoint] = Field(default_factory=list, description="validation values during training")

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


class Row(Strict):
    """One measured fact."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    identity: str = Field(description="names what was measured; the newest row of an identity counts")
    status: Status
    reason: str | None = Field(default=None, description="why the status is not ok")
    flags: list[str] = Field(default_factory=list, description="for example overhead_bound, constant_spread")
    recorded_at: str = Field(description="UTC, ISO 8601")
    machine: Machine
    cell: Cell | None = None
    correctness: Correctness | None = None
    timing: Timing | None = None
    comparison: Comparison | None = None
    memory: Memory | None = None
    work: Work | None = None
    quality: Quality | None = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one line of a rows file."""
    return Row.model_json_schema()


def current_machine() -> Machine:
    """This process's machine."""
    return machine_of(describe())


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """The machine that `zoo.runtime.versions.describe` told of, here or in the folder of a run."""
    versions = facts["versions"]
    return Machine(
        device=facts["device"],
        backend=facts["backend"],
        cores=facts["cores"],
        blas=facts["blas"]["name"],
        blas_threads=facts["blas"]["num_threads"],
        platform=facts["platform"],
        python=facts["python"],
        attention_zoo=versions["attention-zoo"],
        mlx=versions["mlx"],
        mlx_lm=versions["mlx-lm"],
        numpy=versions["numpy"],
        commit=facts["commit"],
        uncommitted_changes=facts["uncommitted_changes"],
    )
