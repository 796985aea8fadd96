"""Which tensor of a checkpoint holds which arrays of ours: one table for both directions.

A family lists its modules; from them and from the arrays that our model has come the tensors, whatever a module's
arrays are: weight and bias, and of a quantized one scales and biases as well.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import mlx.core as mx


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """A module of a checkpoint.

    Attributes:
        theirs: Its name there.
        ours: Its name here; of several, which it holds one after the other along its outputs.
        transposed: Whether its weight is inputs by outputs, as GPT-2's are; ours are outputs by inputs.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a checkpoint; the attributes are those of `Module`."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False

    def shape(self, arrays: Mapping[str, mx.array]) -> tuple[int, ...]:
        """Its shape where ours are these."""
        first, *others = (arrays[name].shape for name in self.ours)
        shape = (first[0] + sum(each[0] for each in others), *first[1:])
        return shape[::-1] if self.transposed else shape

    def ours_from(self, array: mx.array, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Our arrays from the checkpoint's; `arrays` has their shapes."""
        array = array.T if self.transposed else array
        if len(self.ours) == 1:
            return {self.ours[0]: array}
        lengths = [arrays[name].shape[0] for name in self.ours]
        ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        return dict(zip(self.ours, mx.split(array, ends[:-1]), strict=True))

    def theirs_from(self, arrays: Mapping[str, mx.array]) -> mx.array:
        """The checkpoint's tensor from our arrays."""
        parts = [arrays[name] for name in self.ours]
        array = mx.concatenate(parts) if len(parts) > 1 else parts[0]
        return array.T if self.transposed else array


def tensors(modules: Iterable[Module], arrays: Mapping[str, mx.array]) -> list[Tensor]:
    """The tensors of a checkpoint.

    Args:
        modules: Of the family; one that names a single array of ours stands for that.
        arrays: All that our model has, by name.

    Returns:
        One tensor for each array of a module that our model has.
    """
    table = []
    for module in modules:
        first = module.ours[0]
        if first in arrays:
            table.append(Tensor(theirs=module.theirs, ours=module.ours))
            continue
        for leaf in (name.removeprefix(f"{first}.") for name in arrays if name.rpartition(".")[0] == first):
            table.append(
                Tensor(
                    theirs=f"{module.theirs}.{leaf}",
                    ours=tuple(f"{each}.{leaf}" for each in module.ours),
                    transposed=module.transposed and leaf == "weight",
                )
            )
    return table
