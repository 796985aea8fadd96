"""Checks a value against a JSON Schema: the keywords that ours uses, and an error for any other."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

ANNOTATIONS = {"title", "description", "default", "$defs"}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
BOUNDS = {
    "minimum": ((int, float), lambda value, bound: value >= bound),
    "maximum": ((int, float), lambda value, bound: value <= bound),
    "maxLength": (str, lambda value, bound: len(value) <= bound),
    "pattern": (str, lambda value, pattern: re.search(pattern, value) is not None),
    "minItems": (list, lambda value, bound: len(value) >= bound),
}


def faults(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str = "row") -> Iterator[str]:
    """What in the value breaks the schema; nothing where it holds."""
    for keyword, argument in schema.items():
        if keyword in ANNOTATIONS:
            continue
        if keyword == "$ref":
            yield from faults(value, definitions[argument.removeprefix("#/$defs/")], definitions, where)
        elif keyword == "anyOf":
            if all(any(faults(value, each, definitions, where)) for each in argument):
                yield f"{where}: none of the alternatives holds"
        elif keyword == "type":
            misread = isinstance(value, bool) and argument in ("integer", "number")
            if misread or not isinstance(value, TYPES[argument]):
                yield f"{where}: no {argument}"
        elif keyword in ("enum", "const"):
            if value not in (argument if keyword == "enum" else [argument]):
                yield f"{where}: {value!r} is not among {argument}"
        elif keyword in BOUNDS:
            kind, holds = BOUNDS[keyword]
            if isinstance(value, kind) and not isinstance(value, bool) and not holds(value, argument):
                yield f"{where}: {value!r} breaks {keyword} {argument}"
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else []):
                yield from faults(item, argument, definitions, f"{where}[{index}]")
        elif isinstance(value, dict) and keyword in ("properties", "required", "additionalProperties"):
            yield from _object_faults(value, schema, keyword, definitions, where)
        elif keyword not in ("properties", "required", "additionalProperties"):
            raise NotImplementedError(f"keyword {keyword!r}")


def _object_faults(
    value: dict[str, Any], schema: Mapping[str, Any], keyword: str, definitions: Mapping[str, Any], where: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    if keyword == "required":
        yield from (f"{where}: {name} is missing" for name in schema["required"] if name not in value)
    elif keyword == "properties":
        for name in value.keys() & properties.keys():
            yield from faults(value[name], properties[name], definitions, f"{where}.{name}")
    elif schema["additionalProperties"] is False:
        yield from (f"{where}: {name} is unknown" for name in value.keys() - properties.keys())
    else:
        raise NotImplementedError("additionalProperties other than false")
