"""Models for other tools: Hugging Face's layout under a stock architecture, or with a file of code of its own."""

from zoo.checkpoints.export.folder import export_model, stored_dtype
from zoo.checkpoints.export.layout import MODEL_FILE, Layout, layout_of

__all__ = ["MODEL_FILE", "Layout", "export_model", "layout_of", "stored_dtype"]
