"""Strict configuration: plain mappings become frozen dataclasses, and mistakes become one clear line."""

from zoo.config.errors import MOST, FieldError, UserError, require, require_within
from zoo.config.strict import from_mapping, to_mapping

__all__ = ["MOST", "FieldError", "UserError", "from_mapping", "require", "require_within", "to_mapping"]
