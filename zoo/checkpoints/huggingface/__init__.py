"""Models in Hugging Face's layout: one file per family, from its config to ours and from its tensor names to ours."""

from zoo.checkpoints.huggingface.load import content_sums, is_folder, load_folder, model_of, read_config

__all__ = ["content_sums", "is_folder", "load_folder", "model_of", "read_config"]
