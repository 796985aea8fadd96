"""GGUF files of the Llama family, turned into what a folder in Hugging Face's layout holds; nothing in them is run."""

from zoo.checkpoints.gguf.load import is_file, load_file

__all__ = ["is_file", "load_file"]
