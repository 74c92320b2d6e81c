"""Validates as much of JSON Schema as the schema of rules uses, to compare it with the reader.

An unknown keyword is an error, so that none is passed over.
"""

from __future__ import annotations

import re
from typing import Any

_SILENT = {"title", "description", "$schema", "$defs", "type"}
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def is_valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Tell whether `value` is what `schema` allows; references are looked up in `root`."""
    if "type" in schema and not _has_type(value, schema["type"]):
        return False
    return all(_holds(keyword, value, schema, root) for keyword in schema if keyword not in _SILENT)


def _has_type(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name != "integer" or not isinstance(value, bool))


def _holds(keyword: str, value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    argument = schema[keyword]
    match keyword:
        case "$ref":
            return is_valid(value, root["$defs"][argument.rsplit("/", 1)[1]], root)
        case "anyOf":
            return any(is_valid(value, one, root) for one in argument)
        case "oneOf":
            return sum(is_valid(value, one, root) for one in argument) == 1
        case "not":
            return not is_valid(value, argument, root)
        case "const":
            return bool(value == argument)
        case "enum":
            return any(value == one and type(value) is type(one) for one in argument)
        case "minimum":
            return bool(value >= argument)
        case "maximum":
            return bool(value <= argument)
        case "minItems" | "minLength":
            return len(value) >= argument
        case "maxItems" | "maxLength":
            return len(value) <= argument
        case "pattern":
            # `$` is the end of the text in JSON Schema, and may stand before a line feed here.
            return re.search(argument.replace("$", r"\Z"), value) is not None
        case "items":
            return all(is_valid(one, argument, root) for one in value)
        case "required":
            return all(key in value for key in argument)
        case "properties":
            return all(
                is_valid(value[key], argument[key], root) for key in value if key in argument
            )
        case "additionalProperties":
            assert argument is False
            return value.keys() <= schema["properties"].keys()
    raise AssertionError(f"unknown keyword {keyword}")
