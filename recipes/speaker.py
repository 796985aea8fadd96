"""What `generate.py` and `chat.py` share: the model that speaks, and how it was asked for."""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zoo.attention import variant_from_mapping
from zoo.checkpoints import load_model
from zoo.config import UserError, require
from zoo.config.files import typed_path
from zoo.data import Tokenizer
from zoo.generation import GenerationConfig
from zoo.runtime import blas
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.versions import device_label


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerRecipe(GenerationConfig):
    """The keys that both have.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        attention: Another variant or hybrid for the same weights, or None.
        device: Back end.
        dtype: Of weights and caches.
        allow_large: Whether to begin what will not fit into memory.
    """

    checkpoint: str | None = None
    attention: dict[str, Any] | None = None
    device: str = "auto"
    dtype: str = "auto"
    allow_large: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speaker:
    """A model that is ready to speak.

    Attributes:
        model: In the dtype asked for.
        tokenizer: Its tokenizer.
        about: What the result says of it.
    """

    model: Any
    tokenizer: Tokenizer
    about: dict[str, Any]


def load_speaker(recipe: SpeakerRecipe) -> Speaker:
    """Loads the model; its weights keep their dtype until `Speaker.model.set_dtype`.

    Raises:
        UserError: On an impossible choice, or a checkpoint that cannot be loaded.
    """
    choose_backend(recipe.device)
    dtype = parse_dtype(recipe.dtype)
    assert recipe.checkpoint is not None
    attention = None if recipe.attention is None else variant_from_mapping(recipe.attention)
    checkpoint = typed_path(recipe.checkpoint, what="checkpoint")
    loaded, tokenizer = load_model(checkpoint, attention=attention, allow_large=recipe.allow_large)
    model: Any = loaded
    about = {
        "checkpoint": recipe.checkpoint,
        "attention": model.config.attention.name,
        "num_parameters": model.num_parameters(),
        "dtype": dtype_name(dtype),
        "device": device_label(),
        "blas": blas.active().name,
    }
    return Speaker(model=model, tokenizer=tokenizer, about=about)


def speaker_mapping(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as a plain mapping, for `from_mapping`.

    Raises:
        UserError: If the attention's fields are given without a choice of attention.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    mapping = {str(key): value for key, value in plain.items()}
    attention = mapping.get("attention")
    if isinstance(attention, dict) and not attention.keys() & {"mechanism", "layer_pattern"}:
        fields = " ".join(f"attention.{key}={value}" for key, value in attention.items())
        raise UserError(f"attention must be chosen where its fields are; got {fields} (write attention=NAME {fields})")
    stop = mapping.get("stop")
    mapping["stop"] = [] if stop is None else [stop] if isinstance(stop, str) else stop
    return mapping
