"""Adapters from elsewhere: mlx-lm's folders and PEFT's, read onto a model; and PEFT's, written.

    mlx-lm  model.layers.0.self_attn.q_proj.lora_a [in, r], lora_b [r, out]; scale
    PEFT    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight [r, in], lora_B.weight [out, r]; alpha / r

Both call DoRA's lengths a vector. PEFT's names are those of transformers, which the Llama family here has too, and BERT
not. A GPT-2 has its queries, keys and values in one matrix there, and PEFT one adapter for the three: not read.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.adapters import ADAPTER_CONFIG, ADAPTERS, names_in_file, weights_fingerprint
from zoo.checkpoints.history import History
from zoo.checkpoints.huggingface.bert import Bert
from zoo.checkpoints.tensors import open_tensors, read_tensors, write_tensors
from zoo.config import UserError, from_mapping, require, to_mapping
from zoo.config.errors import shortened
from zoo.config.files import open_regular, read_json_mapping
from zoo.models.adapters import AdapterKind, Adapters, LoRAConfig, QuantizationConfig, attach_adapters

PEFT_ADAPTERS = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
_PEFT_LEAVES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
_OF_A_BLOCK = re.compile(r"layers\.(\d+)\.(.+)")


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

    def __post_init__(self) -> None:
        require(self.peft_type == "LORA", "peft_type", "be LORA", self.peft_type)
        require(self.bias == "none", "bias", "be none", self.bias)
        require(self.r >= 1, "r", "be at least 1", self.r)

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
    modules = _peft_modules(model) if fits_peft else {}
    if fits_peft:
        kind, lora, heads = _peft_facts(folder, modules, len(model.layers))
        whole = tuple(sorted({*whole, *heads}))
    else:
        kind, lora = _mlx_facts(folder, len(model.layers))
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
        known = open_tensors(stream, path).entries
        stream.seek(0)
        names = names_in_file(model, own, known)
        if fits_peft:
            names = {_peft_name(name, modules): name for name in own if name.rpartition(".")[0] in modules}
        wanted = {
            foreign: _turned(own[name], foreign)
            for foreign, name in names.items()
            if name not in whole or foreign in known
        }
        arrays = read_tensors(stream, path, wanted, what="adapters of this model", same_dtypes=False)
    model.load_weights([(names[name], _turned(array, name)) for name, array in arrays.items()], strict=False)
    mx.eval(model.parameters())


def write_peft(folder: Path, model: nn.Module) -> None:
    """Writes an adapted model's adapters into a new folder as PEFT reads them.

    Args:
        folder: Is made.
        model: Of the Llama family or a BERT, with adapters and nothing else that is trained but a classifier's head.

    Raises:
        OSError: If it cannot be written.
    """
    adapters: Adapters = model.adapters
    lora, modules = adapters.lora, _peft_modules(model)
    own = {_peft_name(name, modules): each for name, each in dict(tree_flatten(model.trainable_parameters())).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / PEFT_ADAPTERS, {name: _turned(each, name) for name, each in own.items()})
    adapted = {name.removeprefix(_PEFT_PREFIX).removesuffix(".lora_A.weight") for name in own if ".lora_A." in name}
    task = "CAUSAL_LM" if model.config.causal else "SEQ_CLS" if model.config.classifies else None
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": adapters.base,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": lora.dropout,
        # By their whole names: a BERT has three that end in "dense" in each block.
        "target_modules": sorted(adapted),
        "modules_to_save": ["classifier", "pooler"] if task == "SEQ_CLS" else None,
        "use_dora": adapters.kind == "dora",
        "bias": "none",
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _peft_modules(model: nn.Module) -> dict[str, str]:
    """The modules that PEFT's files hold something of: our names, and transformers'.

    Raises:
        UserError: If they are not the same modules there.
    """
    if model.config.family == "bert":
        heads = {"pooler", "classifier"} if model.config.classifies else set()
        pairs = {each.ours[0]: each.theirs for each in Bert().modules(model.config, ())}
        return {ours: theirs for ours, theirs in pairs.items() if ours in heads or _OF_A_BLOCK.fullmatch(ours)}
    if model.config.family != "llama":
        raise UserError(
            f"adapters: PEFT's must be of a Llama or a BERT; got a {model.config.family}, which has queries, keys and "
            "values in one matrix there (those of mlx-lm are read)"
        )
    return {name: f"model.{name}" for name, _ in model.named_modules() if _OF_A_BLOCK.fullmatch(name)}


def _peft_name(name: str, modules: Mapping[str, str]) -> str:
    """A parameter's name in PEFT."""
    module, _, leaf = name.rpartition(".")
    return f"{_PEFT_PREFIX}{modules[module]}.{_PEFT_LEAVES.get(leaf, leaf)}"


def _turned(array: mx.array, foreign: str) -> mx.array:
    """PEFT keeps its matrices the other way round."""
    return array.T if foreign.endswith(("lora_A.weight", "lora_B.weight")) else array


def _mlx_facts(folder: Path, num_layers: int) -> tuple[AdapterKind, LoRAConfig]:
    config = _read(folder, _MLXConfig, (("lora_parameters", _LoRAParameters),))
    found = config.lora_parameters
    # mlx-lm takes 0 and less for all.
    count = config.num_layers if 0 < config.num_layers < num_layers else None
    return config.fine_tune_type, _lora(folder, {**to_mapping(found), "num_layers": count})


def _peft_facts(
    folder: Path, modules: Mapping[str, str], num_layers: int
) -> tuple[AdapterKind, LoRAConfig, tuple[str, ...]]:
    """Kind and size of the adapters, and our names of parameters that are saved whole."""
    config = _read(folder, _PEFTConfig)
    path = folder / PEFT_ADAPTERS
    with open_regular(path, what="adapters") as stream:
        names = list(open_tensors(stream, path).entries)
    of_adapters = {
        f"{_PEFT_PREFIX}{theirs}.{leaf}": ours for ours, theirs in modules.items() for leaf in _PEFT_LEAVES.values()
    }
    of_heads = {
        f"{_PEFT_PREFIX}{theirs}.{leaf}": f"{ours}.{leaf}"
        for ours, theirs in modules.items()
        for leaf in ("weight", "bias")
        if not _OF_A_BLOCK.fullmatch(ours)
    }
    keys: dict[int, set[str]] = {}
    heads = []
    for name in names:
        found = _OF_A_BLOCK.fullmatch(of_adapters.get(name, ""))
        if found is not None:
            keys.setdefault(int(found[1]), set()).add(found[2])
        elif name in of_heads:
            heads.append(of_heads[name])
        else:
            raise UserError(f"adapters: {path} must hold adapters of the model's blocks alone; got {shortened(name)}")
    last = list(range(num_layers - len(keys), num_layers))
    if not keys or sorted(keys) != last or any(each != keys[last[0]] for each in keys.values()):
        raise UserError(
            f"adapters: {path} must adapt the same layers of each of the last blocks, of {num_layers}; got blocks "
            f"{shortened(sorted(keys))}"
        )
    fields = {
        "rank": config.r,
        "scale": config.scale,
        "dropout": config.lora_dropout,
        "keys": sorted(keys[last[0]]),
        "num_layers": None if len(keys) == num_layers else len(keys),
    }
    return ("dora" if config.use_dora else "lora"), _lora(folder, fields), tuple(heads)


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
