"""Under which architecture a model can leave: a stock one where its function is the same, else one of its own.

    stock, in transformers and in mlx-lm   config.json alone
    stock, in transformers only            config.json, and a `model_file` that mlx-lm runs in place of its own code
    neither                                config.json of an architecture that only this `model_file` has

Stock tools that know nothing of a `model_file` then either compute the very function, or refuse the architecture.
"""

import dataclasses
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.huggingface.exported import DESCRIPTION, TENSORS, Exported, exported_names
from zoo.checkpoints.huggingface.family import Family
from zoo.checkpoints.huggingface.gpt2 import GPT2
from zoo.checkpoints.huggingface.load import FAMILIES
from zoo.checkpoints.huggingface.table import Tensor, tensors
from zoo.checkpoints.schemes import schemes_of
from zoo.config import UserError
from zoo.models import BertConfig, ModelConfig

MODEL_FILE = "attention_zoo_model.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is written.

    Attributes:
        config: `config.json`, but for what belongs to the tokenizer.
        table: The tensors.
        in_transformers: Whether transformers computes the same of it.
        in_mlx_lm: Whether mlx-lm's own code does.
    """

    config: dict[str, Any]
    table: list[Tensor]
    in_transformers: bool
    in_mlx_lm: bool

    @property
    def has_model_file(self) -> bool:
        """Whether mlx-lm needs a `model_file` for it."""
        return "model_file" in self.config

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        return str(self.config["model_type"])


def layout_of(model: nn.Module, *, preferred: str | None = None) -> Layout:
    """The layout of a whole model, without adapters.

    Args:
        model: Of `zoo.models`.
        preferred: The architecture to take if several fit: where the model comes from.

    Raises:
        UserError: If no other tool can compute it.
    """
    config: ModelConfig = model.config
    schemes, arrays = schemes_of(model), dict(tree_flatten(model.parameters()))
    family, described = _stock(config, preferred)
    if schemes and described is not None and not family.in_mlx_lm(described):
        # Nothing but MLX reads MLX's quantized weights.
        family, described = Exported(), Exported().describe(config)
    if described is None:
        raise UserError(
            f"format must be zoo for an encoder with attention {config.attention.name!r}; no other tool has it"
        )
    in_mlx_lm = family.in_mlx_lm(described)
    has_model_file = not in_mlx_lm and not isinstance(config, BertConfig)
    if has_model_file:
        described |= {DESCRIPTION: config.as_mapping(), "model_file": MODEL_FILE}
    own = exported_names(arrays) if isinstance(family, Exported) else ("model.",) if schemes else ()
    modules = list(family.modules(config, own))
    described |= _quantization({each.theirs: schemes[each.ours[0]] for each in modules if each.ours[0] in schemes})
    table = tensors(modules, arrays)
    if family.model_type == GPT2.model_type and in_mlx_lm:
        # As GPT-2 was published: mlx-lm turns its weights round under these names only.
        table = [dataclasses.replace(each, theirs=each.theirs.removeprefix(family.prefix)) for each in table]
    if has_model_file and family.embedding != Exported.embedding:
        described[TENSORS] = [[each.theirs, exported_names(each.ours), each.transposed] for each in table]
    return Layout(
        config=described,
        table=table,
        in_transformers=not isinstance(family, Exported) and not schemes,
        in_mlx_lm=in_mlx_lm,
    )


def _stock(config: ModelConfig, preferred: str | None) -> tuple[Family, dict[str, Any] | None]:
    for family in sorted(FAMILIES.values(), key=lambda each: each.model_type != preferred):
        described = family.describe(config)
        if described is not None:
            return family, described
    return Exported(), Exported().describe(config)


def _quantization(schemes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What MLX writes of quantized layers: how most of them are, then those that are otherwise."""
    if not schemes:
        return {}
    kinds = list(schemes.values())
    usual = max(kinds, key=kinds.count)
    mapping = {**usual, **{name: scheme for name, scheme in schemes.items() if scheme != usual}}
    return {"quantization": mapping, "quantization_config": mapping}
