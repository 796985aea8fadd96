"""Prompts as tokens, and whether a model can continue them."""

from collections.abc import Sequence

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.model import LanguageModel
from zoo.models import ModelConfig


def prompt_ids(
    prompt: str | Sequence[int], *, model: LanguageModel, tokenizer: Tokenizer, num_before: int = 0
) -> list[int]:
    """The tokens of a prompt; of an empty one, the token that stands before a text.

    Args:
        prompt: Text, or tokens of this tokenizer.
        model: The model that is to continue it.
        tokenizer: Its tokenizer.
        num_before: Tokens that the model has read already; a text then goes on where they end.

    Raises:
        UserError: If the prompt leaves no room for a token, or has tokens that the model does not know.
    """
    if not isinstance(prompt, str):
        ids = list(prompt)
    else:
        ids = tokenizer.encode(prompt) if num_before else tokenizer.encode_prompt(prompt)
    if not ids and num_before:
        raise UserError("prompt must have at least one token after those that were read before it; got none")
    ids = ids or [tokenizer.start_id]
    limit, total = model.config.position_limit, num_before + len(ids)
    if limit is not None and total >= limit:
        raise UserError(f"prompt must have fewer tokens than model.max_seq_len = {limit}; got {total}")
    vocab_size = model.config.vocab_size
    unknown = next((token for token in ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise UserError(
            f"prompt must have tokens from 0 to {vocab_size - 1}, as model.vocab_size says; got {unknown};"
            " the tokenizer belongs to another model"
        )
    return ids


def reads_whole(config: ModelConfig, length: int) -> bool:
    """Whether a prompt has to be read at once for its text to be that of the whole prompt.

    It is where a dynamic scaling turns positions by the length of what is read. Where the caches cannot forget the
    last token again, from which writing begins, a prompt is read in steps all the same.

    Args:
        config: Of the model.
        length: Tokens of the prompt, and of what was read before it.
    """
    if config.rope_scaling is None or "dynamic" not in config.rope_scaling.values():
        return False
    forgets = all(variant.capabilities.trimmable for variant in config.attention.variants())
    return config.positions == "rotary" and forgets and length > config.max_seq_len
