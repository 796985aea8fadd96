"""A suite: a named set of groups to measure, and what to say of their rows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Row
from zoo.config import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridChoices:
    """The axes of what is measured; None means the suite's own choice.

    Attributes:
        levels: Of op, layer, model.
        modes: Of forward, forward_backward, step, prefill, decode.
        lengths: L, tokens.
        batch_sizes: B, rows of a batch.
        dtypes: Names.
        compiled: Of True, False.
        executions: Of latency, throughput.
        models: Names of YAMLs in configs/model.
    """

    levels: tuple[str, ...] | None = None
    modes: tuple[str, ...] | None = None
    lengths: tuple[int, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    compiled: tuple[bool, ...] | None = None
    executions: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteRequest(GridChoices):
    """What the user asked for.

    Attributes:
        variants: Mapping of each variant (name -> the whole mapping, as `zoo.attention.variant_from_mapping` takes it);
            None means the suite's own choice.
    """

    variants: Mapping[str, Mapping[str, Any]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """A named set of measurements.

    Attributes:
        name: As in `suite=NAME`.
        purpose: One line.
        groups: From a request to what is measured.
        summary: From the suite's rows, and nothing else, to a few JSON-ready figures.
        conclude: Keeps something beyond the rows once all are there, such as a calibration, and says on this machine
            alone what and where, JSON-ready; None for nothing.
    """

    name: str
    purpose: str
    groups: Callable[[SuiteRequest], Sequence[Group]]
    summary: Callable[[Sequence[Row]], list[dict[str, Any]]]
    conclude: Callable[[Sequence[Row]], Mapping[str, Any]] | None = None


def require_free(request: SuiteRequest, suite: str, free: Sequence[str]) -> None:
    """Refuses a request for what a suite decides itself.

    Args:
        request: What the user asked for.
        suite: Its name.
        free: Fields that the user may choose.

    Raises:
        UserError: Names the field, and those that are free.
    """
    for field in dataclasses.fields(request):
        if field.name not in free and getattr(request, field.name) is not None:
            choices = f"it leaves {', '.join(free)} open" if free else "it leaves nothing open"
            raise UserError(f"{field.name} must not be given to suite={suite}, which sets it itself; {choices}")
