"""A cell: what is measured, in a form that can be planned, sent to another process, stored and repeated.

Letters: B batch, L query length, S key length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from zoo.attention.mechanism import GROUPING
from zoo.config.files import parse_json

Level = Literal["device", "op", "layer", "model", "processes"]
Mode = Literal["forward", "forward_backward", "step", "prefill", "decode", "null", "matmul", "copy", "all_sum"]
Role = Literal["candidate", "baseline", "control"]
Execution = Literal["latency", "throughput"]

# Wider than anything that is measured, and narrow enough that no sum, square or ratio of them overflows.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**63 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
Seconds = Annotated[float, Field(ge=1e-15, le=1e15)]
Figure = Annotated[float, Field(ge=-1e100, le=1e100)]
Name = Annotated[str, Field(max_length=1000)]


def _without_infinities(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# What is no number, such as the error of an output that is none, is no figure; a file cannot say it otherwise.
FigureOrNone = Annotated[Figure | None, BeforeValidator(_without_infinities)]


def _attention_json(text: str) -> str:
    """A variant's mapping, in which the keys that are read here are what they must be."""
    mapping = parse_json(text, where="attention")
    if not isinstance(mapping, dict):
        raise ValueError("attention must be a JSON object")
    for key, value in mapping.items():
        if key in ("name", "mechanism", "implementation", "of"):
            fits, rule = isinstance(value, str) and value.isprintable(), "be a printable text"
        elif key in GROUPING:
            fits, rule = type(value) is int and value >= 1, "be a whole number of at least 1"
        else:
            fits, rule = key != "parameters" or isinstance(value, dict), "be a JSON object"
        if value is not None and not fits:
            raise ValueError(f"attention.{key} must {rule}")
    return text


AttentionJson = Annotated[str, AfterValidator(_attention_json)]


class Strict(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(Strict):
    """One thing to measure under one setting.

    Cells of one group are timed against each other, round by round, and compared with the group's baseline.
    """

    suite: Name = Field(description="suite that asked for it")
    group: Name = Field(description="cells of one suite and group are timed against each other")
    builder: Name = Field(description="how it is built: a name of eval.workloads.registry")
    variant: Name = Field(description="name of the series in tables, for example swa or swa(window_size=32)")
    attention: AttentionJson | None = Field(
        default=None, description="the variant's whole mapping as JSON, with its name"
    )
    role: Role = "candidate"
    level: Level
    mode: Mode
    model: Name | None = Field(default=None, description="a YAML of configs/model, for cells of a whole model")
    batch_size: Positive = 1
    length: Positive = Field(description="L: tokens, or queries; for decode the tokens already in the cache")
    num_heads: Positive = 8
    num_kv_heads: Positive | None = Field(default=None, description="the model's own grouping; null: as num_heads")
    head_dim: Positive = 64
    hidden_size: Positive | None = Field(default=None, description="null: num_heads * head_dim")
    causal: bool = True
    dtype: Name = "float32"
    compiled: bool = True
    execution: Execution = Field(default="latency", description="each call evaluated, or (throughput) many together")
    seed: Seed = 0
    detail: Name = Field(default="", description="what else the builder needs to know, for example a layout's name")

    @property
    def identity(self) -> str:
        """Names the cell: equal settings, equal name, in every process and on every machine."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def attention_mapping(self) -> dict[str, Any]:
        """The variant's mapping, as `zoo.attention.variant_from_mapping` takes it; without any, a ValueError."""
        if self.attention is None:
            raise ValueError(f"the cell {self.variant!r} of suite {self.suite!r} has no attention")
        return json.loads(self.attention)
