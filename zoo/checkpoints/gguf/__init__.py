"""GGUF files of the Llama family, turned into what a folder in Hugging Face's layout holds; nothing in them is run."""

from zoo.checkpoints.gguf.config import config_of
from zoo.checkpoints.gguf.header import MAGIC, Header, read_header
from zoo.checkpoints.gguf.tokenizer import read_tokenizer
from zoo.checkpoints.gguf.weights import read_weights

__all__ = ["MAGIC", "Header", "config_of", "read_header", "read_tokenizer", "read_weights"]
