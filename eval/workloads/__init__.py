"""What is timed: ops, layers, models and the device itself; here what all of them share.

Useful work: a multiply-add counts as 2. A backward pass counts as twice its forward pass: each matrix product has two
gradients, each as large as itself. What an implementation recomputes or masks away is not useful and counts as nothing.
"""

import collections
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from eval.bench import Workload
from eval.checks import Finding, verdict
from eval.rows import Cell, Work
from zoo.attention.function import function_of
from zoo.models import Model
from zoo.runtime.backend import parse_dtype
from zoo.training.loss import Arrays, summed_nats
from zoo.training.step import cast_floats

# Fields of a cell that no call depends on.
UNIMPORTANT = {"suite": "", "group": "", "variant": "", "role": "candidate", "execution": "latency"}


def workload_of(
    cell: Cell,
    function: Callable[..., Any],
    given: Sequence[mx.array],
    check: Callable[[Callable[..., Any]], Sequence[Finding]],
    *,
    computes: Hashable,
    useful_flops: int | None,
    inside_bytes: int | None = None,
) -> Workload:
    """The workload that calls a function, compiled if the cell says so, with the same arrays again and again.

    Args:
        cell: What is measured.
        function: Of the arrays that are `given`.
        given: What it is called with.
        check: From the function that is timed to what the gate finds.
        computes: As `computed_function`.
        useful_flops: Of a call.
        inside_bytes: What a call has to hold at least besides arguments and results; None where nobody asks.
    """
    timed = mx.compile(function) if cell.compiled else function
    outputs = function(*given)
    tokens = None if cell.level == "device" else cell.batch_size * cell.length
    return Workload(
        call=functools.partial(timed, *given),
        check=lambda: verdict(check(timed)),
        work=work_of(outputs, useful_flops=useful_flops, tokens=tokens),
        function=computes,
        analytic_bytes=None if inside_bytes is None else inside_bytes + bytes_of([list(given), outputs]),
    )


def work_of(outputs: Any, *, useful_flops: int | None, tokens: int | None) -> Work:
    """The work of a call, with the nodes of the graph of its outputs (a tree of arrays, uncompiled, not evaluated).

    The `attention_path` is "fused" if the graph holds a fused kernel, "fallback" if it holds a softmax instead, and
    None if neither: `mx.fast.scaled_dot_product_attention` decides for itself whether it has a kernel for a call.
    """
    names = operations(outputs)
    fused = any(name.startswith("ScaledDotProductAttention") for name in names)
    return Work(
        useful_flops=useful_flops,
        tokens=tokens,
        graph_nodes=sum(names.values()),
        attention_path="fused" if fused else "fallback" if "Softmax" in names else None,
    )


def operations(outputs: Any) -> collections.Counter[str]:
    """Counts the operations, by MLX's names, that evaluating a tree of arrays would still run."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays_of(outputs))
    return collections.Counter(re.findall(r'label\s*=\s*"(\w+)[^"]*", shape=rectangle', text.getvalue()))


def named_arrays(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by their paths, such as `layers.0.weight`; what is no array is left out."""
    leaves: dict[str, Any] = dict(tree_flatten(tree))
    return {name: leaf for name, leaf in leaves.items() if isinstance(leaf, mx.array)}


def arrays_of(tree: Any) -> list[mx.array]:
    """The arrays of a tree, in order."""
    return list(named_arrays(tree).values())


def bytes_of(tree: Any) -> int:
    """Bytes of the arrays of a tree, evaluated or not."""
    return sum(array.nbytes for array in arrays_of(tree))


def are_finite(tree: Any) -> bool:
    """Whether every array of a tree is finite everywhere."""
    return all(mx.isfinite(array).all().item() for array in arrays_of(tree))


def scalar(array: mx.array) -> float:
    """The value of an array of one element."""
    return cast(float, array.item())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides a call: a cell, and what follows from it."""

    cell: Cell

    def changed(self, **changes: Any) -> Self:
        """The same with other values of fields of the cell."""
        return dataclasses.replace(self, cell=self.cell.model_copy(update=changes))

    @property
    def dtype(self) -> mx.Dtype:
        """Of arrays, weights and activations."""
        return parse_dtype(self.cell.dtype)

    @property
    def gradient(self) -> bool:
        """Whether a call makes gradients."""
        return self.cell.mode in ("forward_backward", "step")

    @property
    def forwards(self) -> int:
        """Forward passes that a call is worth."""
        return 3 if self.gradient else 1

    def normal(self, *shape: int, stream: int = 0) -> mx.array:
        """Standard-normal values, of each stream others, the same for every dtype but for their rounding; evaluated."""
        values = np.random.default_rng(self.cell.seed + stream).standard_normal(shape, dtype=np.float32)
        array = mx.array(values).astype(self.dtype)
        mx.eval(array)
        return array


def with_gradients(forward: Callable[..., mx.array]) -> Callable[..., tuple[mx.array, list[mx.array]]]:
    """From `(*arrays) -> y` to `(cotangent, *arrays) -> (y, gradients)`: those of the sum of y times the cotangent."""

    def backward(cotangent: mx.array, *arrays: mx.array) -> tuple[mx.array, list[mx.array]]:
        outputs, gradients = mx.vjp(forward, list(arrays), [cotangent])
        return outputs[0], gradients

    return backward


def mean_nats(model: Model, batch: Arrays) -> mx.array:
    """Loss of a training batch, per predicted token."""
    return summed_nats(model, batch, causal=model.config.causal) / batch["weights_P"].sum()


def loss_and_gradients(model: Model, batch: Arrays, dtype: mx.Dtype | None = None) -> tuple[mx.array, Any]:
    """`mean_nats` and its gradient of every parameter, with the weights cast to a dtype if one is given."""
    own = model.trainable_parameters()

    def loss(parameters: Any) -> mx.array:
        model.update(parameters if dtype is None else cast_floats(parameters, dtype))
        return mean_nats(model, batch)

    found: tuple[mx.array, Any] = mx.value_and_grad(loss)(own)
    model.update(own)
    return found


def computed_function(cell: Cell, exact_class: str) -> tuple[object, ...]:
    """Equal for two cells that compute the same values from the same arrays; `exact_class` is of the capabilities."""
    what = (cell.level, cell.mode, cell.model, cell.causal, cell.dtype, exact_class)
    heads = {"num_heads": cell.num_heads, "num_kv_heads": cell.num_kv_heads}
    shape = (cell.batch_size, cell.length, *heads.values(), cell.head_dim, cell.hidden_size)
    attention = () if cell.attention is None else (function_of(cell.attention_mapping, **heads),)
    return (*what, *shape, *attention)
