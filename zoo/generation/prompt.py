"""Prompts as tokens, and whether a model can continue them."""

from collections.abc import Sequence

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.model import LanguageModel


def prompt_ids(prompt: str | Sequence[int], *, model: LanguageModel, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a prompt; of an empty one, the token that stands before a text.

    Args:
        prompt: Text, or tokens of this tokenizer.
        model: The model that is to continue it.
        tokenizer: Its tokenizer.

    Raises:
        UserError: If the prompt leaves no room for a token, or has tokens that the model does not know.
    """
    ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
    ids = ids or [tokenizer.start_id]
    limit = model.config.position_limit
    if limit is not None and len(ids) >= limit:
        raise UserError(f"prompt must have fewer tokens than model.max_seq_len = {limit}; got {len(ids)}")
    vocab_size = model.config.vocab_size
    unknown = next((token for token in ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise UserError(
            f"prompt must have tokens from 0 to {vocab_size - 1}, as model.vocab_size says; got {unknown};"
            " the tokenizer belongs to another model"
        )
    return ids
