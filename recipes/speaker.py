"""What `generate.py` and `chat.py` share: the model that speaks, and how it was asked for."""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zoo.attention import variant_from_mapping
from zoo.checkpoints import load_model
from zoo.config import UserError, require, require_within
from zoo.config.files import typed_path
from zoo.data import Tokenizer
from zoo.generation import (
    CacheQuantization,
    Context,
    DraftedContext,
    GenerationConfig,
    SavedContext,
    TextContext,
    require_replaceable,
    save_context,
)
from zoo.runtime import blas
from zoo.runtime.backend import choose_backend, dtype_name, parse_dtype
from zoo.runtime.versions import device_label

# All of them are judged in one pass; more than a few are never all right.
_MOST_DRAFT_TOKENS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerRecipe(GenerationConfig):
    """The keys that both have.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        attention: Another variant or hybrid for the same weights, or None.
        layers: Numbers of the layers that get it, or None for all.
        adapters: Folder of adapters for these weights, or None.
        prompt_cache: File of what the model has read before, or None.
        save_prompt_cache: File for what it has read, or None.
        kv_bits: Bits of each number in the caches' keys and values, or None to keep them as they are.
        kv_group_size: Numbers that share a scale there, or None for what fits.
        draft_checkpoint: A smaller model of the same tokenizer that guesses the text first, or None.
        num_draft_tokens: How many tokens it guesses at a time.
        device: Back end.
        dtype: Of weights and caches.
        allow_large: Whether to begin what will not fit into memory.
    """

    checkpoint: str | None = None
    attention: dict[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    adapters: str | None = None
    prompt_cache: str | None = None
    save_prompt_cache: str | None = None
    kv_bits: int | None = None
    kv_group_size: int | None = None
    draft_checkpoint: str | None = None
    num_draft_tokens: int = 3
    device: str = "auto"
    dtype: str = "auto"
    allow_large: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        for name in ("adapters", "prompt_cache", "save_prompt_cache", "draft_checkpoint"):
            require(getattr(self, name) != "", name, "be a path", "")
        if self.quantization is None:
            require(self.kv_group_size is None, "kv_group_size", "be null without kv_bits", self.kv_group_size)
        require_within(self, 1, _MOST_DRAFT_TOKENS, "num_draft_tokens")

    @property
    def quantization(self) -> CacheQuantization | None:
        """How keys and values are kept, if not as they are."""
        return None if self.kv_bits is None else CacheQuantization(bits=self.kv_bits, group_size=self.kv_group_size)


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
    loaded, tokenizer = load_model(
        checkpoint, attention=attention, layers=recipe.layers, allow_large=recipe.allow_large
    )
    model: Any = loaded
    if recipe.adapters is not None:
        # Late: few texts are written with adapters, and mlx-lm's take a while to import.
        from zoo.checkpoints.foreign_adapters import load_adapters

        if model.adapters is not None:
            raise UserError(
                "adapters must be null: the checkpoint has adapters of its own (convert.py puts them into it)"
            )
        load_adapters(model, typed_path(recipe.adapters, what="adapters"), base=recipe.checkpoint)
        model.eval()
    about = {
        "checkpoint": recipe.checkpoint,
        "attention": model.config.attention.name,
        "implementation": model.config.implementations(
            phase="decode" if model.config.causal else "forward", batch_size=1, length=1
        ),
        "num_parameters": model.num_parameters(),
        "dtype": dtype_name(dtype),
        "device": device_label(),
        "blas": blas.active().name,
    }
    return Speaker(model=model, tokenizer=tokenizer, about=about)


def open_context(recipe: SpeakerRecipe, speaker: Speaker, *, returns: bool) -> tuple[Context, SavedContext | None]:
    """A context for a model in its final dtype, and the prompt cache that it comes from, if any.

    Args:
        recipe: `prompt_cache`, `save_prompt_cache` and `kv_bits` matter here.
        speaker: The model.
        returns: Whether an empty context has to be able to return.

    Raises:
        UserError: If the prompt cache is malformed or of another model, there is no place for another, or the model's
            caches cannot be quantized.
    """
    quantization = recipe.quantization
    if recipe.save_prompt_cache is not None:
        require_replaceable(typed_path(recipe.save_prompt_cache, what="save_prompt_cache"))
    if recipe.prompt_cache is None:
        return Context(speaker.model, returns=returns, quantization=quantization), None
    path = typed_path(recipe.prompt_cache, what="prompt_cache")
    saved = SavedContext(path, model=speaker.model, tokenizer=speaker.tokenizer, quantization=quantization)
    return saved.context, saved


def drafted(recipe: SpeakerRecipe, speaker: Speaker, context: Context) -> Context | DraftedContext:
    """The context, guessed by `draft_checkpoint` first if there is one.

    Raises:
        UserError: If that cannot be loaded, or does not go with the model.
    """
    if recipe.draft_checkpoint is None:
        return context
    path = typed_path(recipe.draft_checkpoint, what="draft_checkpoint")
    model, tokenizer = load_model(path, allow_large=recipe.allow_large)
    model.set_dtype(parse_dtype(recipe.dtype))
    return DraftedContext(
        context, model, tokenizers=(speaker.tokenizer, tokenizer), num_draft_tokens=recipe.num_draft_tokens
    )


def draft_facts(context: TextContext) -> dict[str, int]:
    """How well a draft guessed, for the result; nothing without one."""
    if not isinstance(context, DraftedContext):
        return {}
    return {"draft_tokens": context.num_guessed, "accepted_draft_tokens": context.num_accepted}


def save_context_of(recipe: SpeakerRecipe, speaker: Speaker, context: Context, **more: Any) -> None:
    """Writes `save_prompt_cache`, if that is asked for; `more` as `save_context` takes it."""
    if recipe.save_prompt_cache is not None:
        path = typed_path(recipe.save_prompt_cache, what="save_prompt_cache")
        save_context(path, context, model=speaker.model, tokenizer=speaker.tokenizer, **more)


def plain_mapping(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as a plain mapping, of a script whose attention need not be chosen.

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
    return mapping


def speaker_mapping(config: DictConfig) -> dict[str, Any]:
    """The composed configuration of a speaker, for `from_mapping`.

    Raises:
        UserError: As `plain_mapping`.
    """
    mapping = plain_mapping(config)
    stop = mapping.get("stop")
    mapping["stop"] = [] if stop is None else [stop] if isinstance(stop, str) else stop
    return mapping
