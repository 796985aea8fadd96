"""Adapters of other tools: mlx-lm's folders and PEFT's, read onto a model, and written.

    mlx-lm  model.layers.0.self_attn.q_proj.lora_a [in, r], lora_b [r, out]; scale
    PEFT    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight [r, in], lora_B.weight [out, r]; alpha / r

Both call DoRA's lengths a vector. Where the modules have other names there, as a BERT's in transformers and a GPT-2's
in both, `zoo.checkpoints.foreign_names` knows them.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.adapters import ADAPTER_CONFIG, ADAPTERS, names_in_file, weights_fingerprint
from zoo.checkpoints.foreign_names import ForeignNames, names_in_mlx_lm, names_in_peft, place_in_block
from zoo.checkpoints.history import History
from zoo.checkpoints.tensors import open_tensors, read_tensors, write_tensors
from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.config.errors import shortened
from zoo.config.files import open_regular, read_json_mapping
from zoo.models.adapters import AdapterKind, Adapters, LoRAConfig, QuantizationConfig, attach_adapters

logger = logging.getLogger(__name__)

PEFT_ADAPTERS = "adapter_model.safetensors"
# Others, as pissa, take something out of the base's weights.
_HARMLESS_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LoRAParameters:
    """`lora_parameters` of mlx-lm's `adapter_config.json`."""

    rank: int
    scale: float
    dropout: float = 0.0
    keys: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MLXConfig:
    """What counts of mlx-lm's `adapter_config.json`, which holds all of its command line besides."""

    num_layers: int
    lora_parameters: _LoRAParameters
    fine_tune_type: AdapterKind = "lora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PEFTConfig:
    """What counts of PEFT's `adapter_config.json`."""

    peft_type: str
    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    bias: str = "none"
    alpha_pattern: dict[str, Any] | None = None
    rank_pattern: dict[str, Any] | None = None
    init_lora_weights: Any = True

    def __post_init__(self) -> None:
        require(self.peft_type == "LORA", "peft_type", "be LORA", self.peft_type)
        require(self.bias == "none", "bias", "be none", self.bias)
        require(self.r >= 1, "r", "be at least 1", self.r)
        for name in ("alpha_pattern", "rank_pattern"):
            pattern = getattr(self, name)
            require(not pattern, name, "be empty, as all adapters have one size here", pattern)
        begins = self.init_lora_weights
        condition = "leave the base as it is"
        require(begins in _HARMLESS_BEGINNINGS, "init_lora_weights", condition, begins, allowed=_HARMLESS_BEGINNINGS)

    @property
    def scale(self) -> float:
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def load_adapters(
    model: nn.Module,
    folder: Path,
    *,
    base: str,
    quantization: QuantizationConfig | None = None,
    dtype: mx.Dtype | None = None,
    whole: tuple[str, ...] = (),
) -> None:
    """Gives a whole model the adapters of a folder, in place.

    Args:
        model: Without adapters.
        folder: As mlx-lm or PEFT writes it, or a checkpoint or a run of adapters.
        base: Where the model came from, for checkpoints of it.
        quantization: Of the frozen matrices.
        dtype: Of the frozen weights from now on; None leaves them theirs.
        whole: Parameters that are trained themselves, as `Adapters` has them; of the folder, if it has them.

    Raises:
        UserError: If there are none, they are of a kind that is not read, or they do not fit the model.
    """
    newest = History(folder / "checkpoints").newest()
    folder = folder if newest is None else newest
    fits_peft = (folder / PEFT_ADAPTERS).exists()
    if not fits_peft and not (folder / ADAPTERS).exists():
        raise UserError(f"adapters: {folder} must hold {ADAPTERS} or {PEFT_ADAPTERS}; it holds neither")
    path = folder / (PEFT_ADAPTERS if fits_peft else ADAPTERS)
    with open_regular(path, what="adapters") as stream:
        known = list(open_tensors(stream, path).entries)
    names = names_in_peft(model, known) if fits_peft else names_in_mlx_lm(model, known)
    if fits_peft:
        kind, lora = _peft_facts(folder)
    else:
        kind, lora = _mlx_facts(folder, len(model.layers))
    if names is not None:
        lora, heads = _placed(lora, names, known, path, model)
        whole = tuple(sorted({*whole, *heads}))
    fingerprint = weights_fingerprint(model, without=whole)
    adapters = Adapters(
        kind=kind, lora=lora, quantization=quantization, base=base, base_fingerprint=fingerprint, whole=whole
    )
    try:
        attach_adapters(model, adapters, dtype=dtype)
    except UserError as error:
        raise UserError(f"adapters: {folder}: {error}") from None
    own = dict(tree_flatten(model.trainable_parameters()))
    with open_regular(path, what="adapters") as stream:
        if names is None:
            ours = names_in_file(model, own, known)
            wanted = {theirs: own[name] for theirs, name in ours.items() if name not in whole or theirs in known}
        else:
            wanted = {
                theirs: array
                for theirs, array in names.expected(own).items()
                if theirs in known or not set(names.ours_of(theirs)) & set(whole)
            }
        arrays = read_tensors(stream, path, wanted, what="adapters of this model", same_dtypes=False)
    read = {ours[name]: each for name, each in arrays.items()} if names is None else names.ours_from(arrays, own)
    # A file may be in half precision; what is trained is float32.
    model.load_weights([(name, array.astype(own[name].dtype)) for name, array in read.items()], strict=False)
    mx.eval(model.parameters())


def write_peft(folder: Path, model: nn.Module) -> bool:
    """Writes an adapted model's adapters into a new folder as PEFT reads them.

    Args:
        folder: Is made.
        model: With adapters and nothing else that is trained but a classifier's head.

    Returns:
        Whether transformers has a place for all of them, which it has not for what the projections of another
        attention learnt in a GPT-2 or a BERT; nothing is written otherwise.

    Raises:
        OSError: If it cannot be written.
    """
    adapters: Adapters = model.adapters
    names = names_in_peft(model)
    if not names.covers(model):
        logger.warning("no adapters are left for PEFT: transformers has no place for those of this attention")
        return False
    arrays, rank = names.theirs_from(model)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / PEFT_ADAPTERS, arrays)
    task = "CAUSAL_LM" if model.config.causal else "SEQ_CLS" if model.config.classifies else None
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": adapters.base,
        "r": rank,
        "lora_alpha": adapters.lora.scale * rank,
        "lora_dropout": adapters.lora.dropout,
        # By their whole names: a BERT has three that end in "dense" in each block.
        "target_modules": names.adapted(arrays),
        "modules_to_save": ["classifier", "pooler"] if task == "SEQ_CLS" else None,
        "fan_in_fan_out": model.config.family == "gpt",
        "use_dora": adapters.kind == "dora",
        "bias": "none",
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return True


def write_mlx_lm(folder: Path, model: nn.Module) -> bool:
    """Writes an adapted model's adapters as mlx-lm reads them onto a stock model whose modules are named otherwise.

    Others need no such file: the one of their checkpoint is mlx-lm's.

    Args:
        folder: Is made.
        model: With adapters.

    Returns:
        Whether this is such a model; nothing is written otherwise.

    Raises:
        OSError: If it cannot be written.
    """
    names = names_in_mlx_lm(model)
    if names is None:
        return False
    adapters: Adapters = model.adapters
    arrays, rank = names.theirs_from(model)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / ADAPTERS, arrays)
    lora = adapters.lora
    places = [place_in_block(each) for each in names.adapted(arrays)]
    keys = {place[1] for place in places if place}
    config = {
        "fine_tune_type": adapters.kind,
        "num_layers": len(model.layers) if lora.num_layers is None else lora.num_layers,
        "lora_parameters": {"rank": rank, "scale": lora.scale, "dropout": lora.dropout, "keys": sorted(keys)},
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return True


def _mlx_facts(folder: Path, num_layers: int) -> tuple[AdapterKind, LoRAConfig]:
    config = _read(folder, _MLXConfig, (("lora_parameters", _LoRAParameters),))
    found = config.lora_parameters
    # mlx-lm takes 0 and less for all.
    count = config.num_layers if 0 < config.num_layers < num_layers else None
    return config.fine_tune_type, _lora(folder, {**to_mapping(found), "num_layers": count})


def _peft_facts(folder: Path) -> tuple[AdapterKind, LoRAConfig]:
    config = _read(folder, _PEFTConfig)
    sizes = {"rank": config.r, "scale": config.scale, "dropout": config.lora_dropout}
    return ("dora" if config.use_dora else "lora"), _lora(folder, sizes)


def _placed(
    lora: LoRAConfig, names: ForeignNames, known: Sequence[str], path: Path, model: nn.Module
) -> tuple[LoRAConfig, list[str]]:
    """The adapters with their places, which the file tells by its names, and our names of what is saved whole."""
    keys: dict[int, set[str]] = {}
    heads = []
    for theirs in known:
        ours = names.ours_of(theirs)
        if not ours:
            raise UserError(f"adapters: {path} must hold adapters of the model's blocks alone; got {shortened(theirs)}")
        for name in ours:
            place = place_in_block(name)
            if place is None:
                heads.append(name)
            else:
                keys.setdefault(place[0], set()).add(place[1].rpartition(".")[0])
    num_layers = len(model.layers)
    last = list(range(num_layers - len(keys), num_layers))
    must = f"adapters: {path} must adapt the same layers of each of the last blocks, of {num_layers}"
    if not keys or sorted(keys) != last:
        raise UserError(f"{must}; got blocks {shortened(sorted(keys))}")
    usual = set().union(*keys.values())
    for block, found in keys.items():
        # Another attention has other layers.
        there = usual & {name for name, _ in model.layers[block].named_modules()}
        if found != there:
            raise UserError(
                f"{must}; got {shortened(sorted(found))} in block {block}, which has {shortened(sorted(there))}"
            )
    layers = None if len(keys) == num_layers else len(keys)
    return dataclasses.replace(lora, keys=tuple(sorted(usual)), num_layers=layers), heads


def _read(folder: Path, cls: type[Any], nested: tuple[tuple[str, type[Any]], ...] = ()) -> Any:
    """The fields of a dataclass from a file that has others too."""
    path = folder / ADAPTER_CONFIG
    mapping = _known(cls, read_json_mapping(path, what="adapters"))
    for name, inner in nested:
        if isinstance(mapping.get(name), Mapping):
            mapping[name] = _known(inner, mapping[name])
    return from_mapping(cls, mapping, path=f"adapters: {path}")


def _known(cls: type[Any], mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: mapping[field.name] for field in dataclasses.fields(cls) if field.name in mapping}


def _lora(folder: Path, fields: Mapping[str, Any]) -> LoRAConfig:
    return from_mapping(LoRAConfig, fields, path=f"adapters: {folder / ADAPTER_CONFIG}")
