"""Builds a model from a GGUF file: it becomes what a folder in Hugging Face's layout holds, and is read as that is."""

import tempfile
from pathlib import Path

from zoo.checkpoints.gguf.config import config_of
from zoo.checkpoints.gguf.header import MAGIC, read_header
from zoo.checkpoints.gguf.tokenizer import read_tokenizer
from zoo.checkpoints.gguf.weights import StoredWeights
from zoo.checkpoints.huggingface import model_of
from zoo.config import UserError
from zoo.config.files import open_regular
from zoo.data.tokenizers import Tokenizer
from zoo.models import Model


def is_file(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name or by how it begins."""
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    with open_regular(path, what="checkpoint") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def load_file(path: Path, *, allow_large: bool) -> tuple[Model, Tokenizer]:
    """The model of a file and its tokenizer.

    Args:
        path: The file.
        allow_large: Whether to load what will not fit into memory.

    Raises:
        UserError: If the file is malformed, or something in it is not read here, or memory is short.
    """
    header = read_header(path)
    config = config_of(header, path)
    weights = StoredWeights(header, path)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = read_tokenizer(header, Path(folder))
    if tokenizer.vocab_size > config["vocab_size"]:
        sizes = f"{config['vocab_size']} for {tokenizer.vocab_size} tokens"
        raise UserError(f"{header.where} must have a vocabulary of at least the tokenizer's size; got {sizes}")
    return model_of(config, weights, path, where=header.where, allow_large=allow_large), tokenizer
