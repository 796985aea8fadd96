"""Optimizers and learning-rate schedules, those of `mlx.optimizers`; here only which parameter gets which.

Weight decay acts on matrices alone: norms, biases and embeddings are left out. Muon (Jordan, 2024,
https://kellerjordan.github.io/posts/muon/) updates the matrices of the blocks and of an encoder's heads; embeddings,
the output projection and vectors go to AdamW. MLX's Muon adds its weight decay to the gradient, the others decay the
weight.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx import optimizers
from mlx.utils import tree_flatten

from zoo.config import UserError, from_mapping, require, require_within, to_mapping
from zoo.config.errors import shortened
from zoo.training.updates import AdamW, Lion, Muon

ScheduleName = Literal["cosine", "linear", "constant"]
Schedule = Callable[[mx.array], mx.array]

# What float32 tells from 0 and from infinity.
_RATES = (1e-30, 1e30)
# A denominator's epsilon: what float32 tells from 0, and what leaves something to learn.
_EPSILONS = (1e-30, 1.0)
# Each is three products of matrices in the graph of every step; five converge.
_MOST_NS_STEPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What every optimizer has.

    Attributes:
        learning_rate: Highest learning rate, reached after the warm-up.
        weight_decay: Strength of the decay of matrices.
        schedule: How the learning rate falls after the warm-up.
        warmup_fraction: Part of the run's steps in which the learning rate rises linearly.
        final_fraction: Learning rate of the last step, as a fraction of the highest; for falling schedules.
    """

    learning_rate: float
    weight_decay: float = 0.1
    schedule: ScheduleName = "cosine"
    warmup_fraction: float = 0.05
    final_fraction: float = 0.1

    def __post_init__(self) -> None:
        require_within(self, *_RATES, "learning_rate")
        require_within(self, 0.0, _RATES[1], "weight_decay")
        require(0 <= self.warmup_fraction < 1, "warmup_fraction", "be at least 0 and below 1", self.warmup_fraction)
        require(0 <= self.final_fraction <= 1, "final_fraction", "be in [0, 1]", self.final_fraction)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW: Loshchilov and Hutter, https://arxiv.org/abs/1711.05101, with bias correction.

    Attributes:
        betas: Decay rates of the running means of the gradient and of its square.
        eps: Added to the denominator.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_decay("betas", *self.betas)
        require_within(self, *_EPSILONS, "eps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig(OptimizerConfig):
    """Lion: Chen et al., https://arxiv.org/abs/2302.06675; wants a 3–10 times smaller learning rate than AdamW.

    Attributes:
        betas: Weights of the momentum in the update and in the momentum itself.
    """

    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_decay("betas", *self.betas)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for matrices, AdamW for the rest.

    Attributes:
        momentum: Of the orthogonalised update.
        nesterov: Whether that momentum is Nesterov's.
        ns_steps: Newton–Schulz iterations of the orthogonalisation.
        adamw_learning_rate: Highest learning rate of the rest, on the same schedule.
        adamw_betas: As for AdamW.
        adamw_eps: As for AdamW.
    """

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    adamw_learning_rate: float = 1e-3
    adamw_betas: tuple[float, float] = (0.9, 0.95)
    adamw_eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_decay("momentum", self.momentum)
        require_within(self, 1, _MOST_NS_STEPS, "ns_steps")
        require_within(self, *_RATES, "adamw_learning_rate")
        _require_decay("adamw_betas", *self.adamw_betas)
        require_within(self, *_EPSILONS, "adamw_eps")


def _require_decay(field: str, *rates: float) -> None:
    # As float32 sees them: what rounds to 1 there never forgets, and has a bias correction of 0.
    decays = all(rate >= 0 and np.float32(rate) < 1 for rate in rates)
    require(decays, field, "be at least 0 and below 1", list(rates) if len(rates) > 1 else rates[0])


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adamw": AdamWConfig, "lion": LionConfig, "muon": MuonConfig}


def optimizer_config_from_mapping(mapping: Mapping[str, Any], *, path: str = "optimizer") -> OptimizerConfig:
    """Builds an optimizer's config from a YAML: `name` and the fields of that optimizer.

    Raises:
        UserError: On an unknown optimizer, key or value.
    """
    rest = dict(mapping)
    name = rest.pop("name", None)
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise UserError(f"{path}: name must be an optimizer; got {shortened(name)} (choices: {', '.join(OPTIMIZERS)})")
    return from_mapping(OPTIMIZERS[name], rest, path=path)


def optimizer_config_as_mapping(config: OptimizerConfig) -> dict[str, Any]:
    """The plain mapping from which `optimizer_config_from_mapping` makes an equal config."""
    (name,) = (name for name, cls in OPTIMIZERS.items() if cls is type(config))
    return {"name": name, **to_mapping(config)}


def state_per_parameter(config: OptimizerConfig) -> tuple[int, int]:
    """Numbers that an optimizer keeps for each parameter of the blocks, and for each of the others.

    Vectors in the blocks, which Muon leaves to AdamW, are too few to count.
    """
    match config:
        case LionConfig():
            return 1, 1
        case MuonConfig():
            return 1, 2
        case _:
            return 2, 2


def build_optimizer(config: OptimizerConfig, model: nn.Module, *, steps: int) -> optimizers.MultiOptimizer:
    """Makes the optimizer of a model, its state included.

    Args:
        config: Which, and how.
        model: Its trainable parameters are optimized.
        steps: Length of the run, for the schedule.

    Returns:
        An optimizer whose first part has the matrices; `learning_rate` is that part's.
    """
    rate = learning_rate_schedule(config, config.learning_rate, steps)
    embeddings = _embedding_paths(model)

    def is_matrix(path: str, parameter: mx.array) -> bool:
        return parameter.ndim >= 2 and path not in embeddings

    def is_inner_matrix(path: str, parameter: mx.array) -> bool:
        return parameter.ndim == 2 and path not in embeddings and not path.startswith("lm_head")

    match config:
        case AdamWConfig():
            parts = [_adamw(rate, config.betas, config.eps, decay) for decay in (config.weight_decay, 0.0)]
            optimizer = optimizers.MultiOptimizer(parts, [is_matrix])
        case LionConfig():
            betas = list(config.betas)
            lions = [Lion(rate, betas=betas, weight_decay=decay) for decay in (config.weight_decay, 0.0)]
            optimizer = optimizers.MultiOptimizer(lions, [is_matrix])
        case MuonConfig():
            muon = Muon(
                rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                nesterov=config.nesterov,
                ns_steps=config.ns_steps,
            )
            rest_rate = learning_rate_schedule(config, config.adamw_learning_rate, steps)
            rest = _adamw(rest_rate, config.adamw_betas, config.adamw_eps, 0.0)
            optimizer = optimizers.MultiOptimizer([muon, rest], [is_inner_matrix])
        case _:
            raise AssertionError(f"no optimizer for {config!r}")
    optimizer.init(model.trainable_parameters())
    return optimizer


def learning_rate_schedule(config: OptimizerConfig, highest: float, steps: int) -> Schedule:
    """The learning rate as a function of the number of steps done.

    Args:
        config: Its shape.
        highest: Its highest value.
        steps: Length of the run.

    Returns:
        A function of an integer array; the first step already learns, and the last has `final_fraction`.
    """
    warmup = math.ceil(config.warmup_fraction * steps)
    falling = max(1, steps - 1 - warmup)
    end = highest * config.final_fraction
    match config.schedule:
        case "cosine":
            after = optimizers.cosine_decay(highest, falling, end)
        case "linear":
            after = optimizers.linear_schedule(highest, end, falling)
        case "constant":
            after = _constant(highest)
    if warmup == 0:
        return after
    # Begins at 1 / warmup of the highest, not at 0, where a step would change nothing.
    rising = optimizers.linear_schedule(highest / warmup, highest + highest / warmup, warmup)
    return optimizers.join_schedules([rising, after], [warmup])


def _constant(value: float) -> Schedule:
    def schedule(_step: mx.array) -> mx.array:
        return mx.full((), value, dtype=mx.float32)

    return schedule


def _adamw(rate: Schedule, betas: tuple[float, float], eps: float, decay: float) -> AdamW:
    return AdamW(rate, betas=list(betas), eps=eps, weight_decay=decay, bias_correction=True)


def _embedding_paths(model: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{name}.{path}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for path in dict(tree_flatten(module.parameters()))
    )
