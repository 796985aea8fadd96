"""A cell: what is measured, in a form that can be planned, sent to another process, stored and repeated.

Letters: B batch, L query length, S key length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["device", "op", "layer", "model"]
Mode = Literal["forward", "forward_backward", "step", "prefill", "decode", "null", "matmul", "copy"]
Role = Literal["candidate", "baseline", "control"]
Execution = Literal["latency", "throughput"]


class Strict(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(Strict):
    """One thing to measure under one setting.

    Cells of one group are timed against each other, round by round, and compared with the group's baseline.
    """

    suite: str = Field(description="suite that asked for it")
    group: str = Field(description="cells of one suite and group are timed against each other")
    builder: str = Field(description="how it is built: a key of eval.speed.builders.BUILDERS")
    variant: str = Field(description="name of the series in tables, for example swa or swa(window_size=32)")
    attention: str | None = Field(default=None, description="the variant's whole mapping as JSON, its name included")
    role: Role = "candidate"
    level: Level
    mode: Mode
    model: str | None = Field(default=None, description="a YAML of configs/model, for cells of a whole model")
    batch_size: int = 1
    length: int = Field(description="L: tokens, or queries; for decode the tokens already in the cache")
    num_heads: int = 8
    num_kv_heads: int | None = Field(default=None, description="the model's own grouping; null: as num_heads")
    head_dim: int = 64
    hidden_size: int | None = Field(default=None, description="null: num_heads * head_dim")
    causal: bool = True
    dtype: str = "float32"
    compiled: bool = True
    execution: Execution = Field(
        default="latency", description="latency: each call evaluated; throughput: many calls, one evaluation"
    )
    seed: int = 0
    detail: str = Field(default="", description="what else the builder needs to know, for example a layout's name")

    @property
    def identity(self) -> str:
        """Names the cell: equal settings, equal name, in every process and on every machine."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def attention_mapping(self) -> dict[str, Any]:
        """The variant's mapping, as `zoo.attention.variant_from_mapping` takes it.

        Raises:
            ValueError: If the cell has no attention.
        """
        if self.attention is None:
            raise ValueError(f"the cell {self.variant!r} of suite {self.suite!r} has no attention")
        return json.loads(self.attention)
