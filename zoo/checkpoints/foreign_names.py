"""How other tools' adapter files name our modules, and what they hold where several of ours are one matrix there.

A GPT-2 has its queries, keys and values in one matrix of transformers and of mlx-lm, with one adapter:

    y = W x + scale · B A x,   W = [W_q; W_k; W_v],   B = [B_q; B_k; B_v]

Read, the three get the same A, and their part of B. Written, each different A is a part of theirs, and B has zeros
where another's part is: the rank is the sum of theirs, and that of all other adapters, which have zeros added.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.dora import DoRALinear

from zoo.checkpoints.huggingface.bert import Bert
from zoo.checkpoints.huggingface.gpt2 import GPT2, MLX_PREFIX
from zoo.checkpoints.huggingface.table import Module

_IN_BLOCK = re.compile(r"(?:model\.|transformer\.)?(?:layers|h)\.(\d+)\.(.+)")
_A, _B, _LENGTHS = "lora_a", "lora_b", "m"
_PEFT_PREFIX = "base_model.model."
_OF_A_HEAD = ("weight", "bias")


def place_in_block(name: str) -> tuple[int, str] | None:
    """Number of the block that a module is in, ours or theirs, and its path there; None outside of blocks."""
    found = _IN_BLOCK.fullmatch(name)
    return None if found is None else (int(found[1]), found[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignNames:
    """The names of another tool's files.

    Attributes:
        modules: Their modules, and ours.
        prefix: Of all names in a file.
        leaves: Their names of an adapter's arrays, by ours.
        turned: Whether matrices are outputs by inputs; ours are inputs by outputs, as mlx-lm's.
    """

    modules: tuple[Module, ...]
    prefix: str = ""
    leaves: Mapping[str, str] = dataclasses.field(default_factory=lambda: {each: each for each in (_A, _B, _LENGTHS)})
    turned: bool = False

    def ours_of(self, theirs: str) -> tuple[str, ...]:
        """Our names of the parameters that an array of a file is for; empty for one that is for none."""
        return self._by_theirs.get(theirs, ())

    def expected(self, own: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Arrays of the shapes that a file of these adapters has, by its names.

        Args:
            own: What the model trains, by name.
        """
        shapes = {}
        for theirs, ours in self._by_theirs.items():
            if all(name in own for name in ours):
                leaf, parts = ours[0].rpartition(".")[2], [own[name] for name in ours]
                whole = parts[0] if leaf == _A else mx.concatenate(parts, axis=-1)
                shapes[theirs] = self._turned(whole, leaf)
        return shapes

    def ours_from(self, arrays: Mapping[str, mx.array], own: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Our parameters from a file's arrays; `own` has their shapes."""
        read: dict[str, mx.array] = {}
        for theirs, array in arrays.items():
            ours = self.ours_of(theirs)
            leaf = ours[0].rpartition(".")[2]
            parts = [self._turned(array, leaf)] * len(ours)
            if len(ours) > 1 and leaf != _A:
                ends = [sum(own[name].shape[-1] for name in ours[: index + 1]) for index in range(len(ours) - 1)]
                parts = list(mx.split(parts[0], ends, axis=-1))
            read.update(zip(ours, parts, strict=True))
        return read

    def theirs_from(self, model: nn.Module) -> tuple[dict[str, mx.array], int]:
        """A file's arrays from what a model trains, and the rank of all adapters in it."""
        own = dict(tree_flatten(model.trainable_parameters()))
        found: dict[str, dict[str, mx.array]] = {}
        arrays: dict[str, mx.array] = {}
        for module in self.modules:
            if any(f"{name}.{_A}" in own for name in module.ours):
                found[module.theirs] = _merged(model, module.ours)
            elif not place_in_block(module.ours[0]):
                (ours,) = module.ours
                arrays |= {
                    f"{self.prefix}{module.theirs}.{leaf}": own[f"{ours}.{leaf}"]
                    for leaf in _OF_A_HEAD
                    if f"{ours}.{leaf}" in own
                }
        rank = max([model.adapters.lora.rank, *(parts[_A].shape[1] for parts in found.values())])
        for theirs, parts in found.items():
            missing = (0, rank - parts[_A].shape[1])
            parts[_A], parts[_B] = mx.pad(parts[_A], [(0, 0), missing]), mx.pad(parts[_B], [missing, (0, 0)])
            for leaf, array in parts.items():
                arrays[f"{self.prefix}{theirs}.{self.leaves[leaf]}"] = self._turned(array, leaf)
        return arrays, rank

    def covers(self, model: nn.Module) -> bool:
        """Whether all adapters of a model have a name there."""
        named = {f"{name}.{_A}" for module in self.modules for name in module.ours}
        own = dict(tree_flatten(model.trainable_parameters()))
        return all(name in named for name in own if name.rpartition(".")[2] == _A)

    def adapted(self, arrays: Collection[str]) -> list[str]:
        """Their modules that have adapters in a file."""
        suffix = f".{self.leaves[_A]}"
        return sorted(name.removeprefix(self.prefix).removesuffix(suffix) for name in arrays if name.endswith(suffix))

    @property
    def _by_theirs(self) -> dict[str, tuple[str, ...]]:
        table = {}
        for module in self.modules:
            leaves = self.leaves if place_in_block(module.ours[0]) else {each: each for each in _OF_A_HEAD}
            for leaf, their_leaf in leaves.items():
                table[f"{self.prefix}{module.theirs}.{their_leaf}"] = tuple(f"{name}.{leaf}" for name in module.ours)
        return table

    def _turned(self, array: mx.array, leaf: str) -> mx.array:
        return array.T if self.turned and leaf in (_A, _B) else array


def names_in_peft(model: nn.Module, known: Collection[str] = ()) -> ForeignNames:
    """PEFT's names, which follow those of transformers.

    Args:
        model: Any.
        known: Names in a file that is to be read, which tell whether it adapts transformers' model without its heads.
    """
    config, base = model.config, "model."
    if config.family == "bert":
        base = Bert.prefix
        heads = {"pooler", "classifier"} if config.classifies else set()
        modules = [each for each in Bert().modules(config, ()) if each.ours[0] in heads or place_in_block(each.ours[0])]
    elif config.family == "gpt":
        base = GPT2.prefix
        modules = [each for each in GPT2().modules(config, ()) if place_in_block(each.ours[0])]
    else:
        own = [name for name, _ in model.named_modules() if place_in_block(name)]
        modules = [Module(theirs=f"{base}{name}", ours=(name,)) for name in own]
    if known and not any(name.startswith(f"{_PEFT_PREFIX}{base}") for name in known):
        modules = [dataclasses.replace(each, theirs=each.theirs.removeprefix(base)) for each in modules]
    leaves = {_A: "lora_A.weight", _B: "lora_B.weight", _LENGTHS: "lora_magnitude_vector"}
    return ForeignNames(modules=tuple(modules), prefix=_PEFT_PREFIX, leaves=leaves, turned=True)


def names_in_mlx_lm(model: nn.Module, known: Collection[str] | None = None) -> ForeignNames | None:
    """mlx-lm's names of a model that is stock there under other names than ours; None for any other.

    Args:
        model: Any.
        known: Names in a file that is to be read, which tell; None to ask the model itself.
    """
    if model.config.family != "gpt":
        return None
    family = GPT2()
    modules = tuple(each for each in family.modules(model.config, [MLX_PREFIX]) if place_in_block(each.ours[0]))
    names = ForeignNames(modules=modules)
    described = family.describe(model.config)
    stock = described is not None and family.in_mlx_lm(described)
    return names if (stock if known is None else any(names.ours_of(name) for name in known)) else None


def _merged(model: nn.Module, ours: Sequence[str]) -> dict[str, mx.array]:
    """One adapter of several of our modules, of which at least one has one."""
    modules = dict(model.named_modules())
    chosen = [modules[name] for name in ours]
    inputs: list[mx.array] = []
    places = []
    for module in chosen:
        array = module.get(_A)
        same = [place for place, known in enumerate(inputs) if array is not None and mx.array_equal(array, known)]
        if array is not None and not same:
            inputs.append(array)
        places.append(None if array is None else same[0] if same else len(inputs) - 1)
    rank = inputs[0].shape[1]
    blocks = []
    for module, place in zip(chosen, places, strict=True):
        if place is None:
            blocks.append(mx.zeros((rank * len(inputs), module.weight.shape[0])))
        else:
            blocks.append(mx.pad(module[_B], [(rank * place, rank * (len(inputs) - 1 - place)), (0, 0)]))
    merged = {_A: mx.concatenate(inputs, axis=1), _B: mx.concatenate(blocks, axis=1)}
    if any(_LENGTHS in module for module in chosen):
        lengths = [module if _LENGTHS in module else DoRALinear.from_base(module) for module in chosen]
        merged[_LENGTHS] = mx.concatenate([module[_LENGTHS] for module in lengths])
    return merged
