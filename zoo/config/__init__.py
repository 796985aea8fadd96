"""Strict configuration: plain mappings become frozen dataclasses, and mistakes become one clear line."""

from zoo.config.errors import FieldError, UserError, require
from zoo.config.strict import from_mapping, to_mapping

__all__ = ["FieldError", "UserError", "from_mapping", "require", "to_mapping"]
