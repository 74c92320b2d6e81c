"""The fields of a payload pattern in a document."""

from __future__ import annotations

from typing import Any

from packetcloud.router.rules.errors import RuleFieldError
from packetcloud.router.rules.records import Field, read_fields
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.values import FLAG, SIZE, Kind, WrongElementError

MAX_PATTERNS_COUNT = 16
"""Of one rule."""
MAX_PATTERN_BYTES = 1024


def _read_patterns(value: Any) -> tuple[Pattern, ...]:
    if type(value) is dict:
        value = [value]
    if type(value) is not list or not 1 <= len(value) <= MAX_PATTERNS_COUNT:
        raise ValueError
    return tuple(_pattern(index, one) for index, one in enumerate(value))


def _pattern(index: int, record: object) -> Pattern:
    """Raises: WrongElementError, RuleFieldError."""
    where = f"patterns[{index}]"
    if type(record) is not dict:
        raise WrongElementError(index, record)
    values = read_fields(record, PATTERN_FIELDS, f"{where}.")
    forms = [form for form in ("text", "hex", "regex") if form in values]
    if len(forms) != 1:
        raise RuleFieldError(where, ": allowed: exactly one of text, hex, regex")
    expression = values[forms[0]]
    start, end = values.get("from", 0), values.get("to")
    is_regex = forms == ["regex"]
    if end is not None and end < start + (1 if is_regex else len(expression)):
        raise RuleFieldError(where, ": nothing fits between from and to; allowed: a larger to")
    return Pattern(expression, is_regex, values.get("ignore_case", False), start, end)


def _read_expression(value: Any) -> bytes:
    if type(value) is not str:
        raise ValueError
    return _of_allowed_length(value.encode())


def _read_hex_expression(value: Any) -> bytes:
    if type(value) is not str or " " in value:
        raise ValueError
    expression = bytes.fromhex(value)
    if 2 * len(expression) != len(value):
        raise ValueError
    return _of_allowed_length(expression)


def _of_allowed_length(expression: bytes) -> bytes:
    if not 1 <= len(expression) <= MAX_PATTERN_BYTES:
        raise ValueError
    return expression


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN_BYTES}
_HEX_SCHEMA = {"type": "string", "pattern": f"^([0-9A-Fa-f]{{2}}){{1,{MAX_PATTERN_BYTES}}}$"}
_TEXT = Kind(_read_expression, f"a text of 1 to {MAX_PATTERN_BYTES} bytes in UTF-8", _TEXT_SCHEMA)
PATTERN_FIELDS = {
    "text": Field(_TEXT, "the text itself, in UTF-8"),
    "hex": Field(
        Kind(
            _read_hex_expression,
            f"1 to {MAX_PATTERN_BYTES} bytes, two hexadecimal digits each",
            _HEX_SCHEMA,
        ),
        "the bytes themselves",
    ),
    "regex": Field(_TEXT, "a regular expression over bytes; `.` is any byte"),
    "ignore_case": Field(FLAG, "letters of either case match; default false"),
    "from": Field(SIZE, "a match begins at this byte of the payload or later; default 0"),
    "to": Field(SIZE, "a match ends before this byte; default: anywhere"),
}
_PATTERN_SCHEMA = {"$ref": "#/$defs/pattern"}
PATTERNS = Kind(
    _read_patterns,
    f"a pattern, or a list of 1 to {MAX_PATTERNS_COUNT} patterns",
    {
        "anyOf": [
            _PATTERN_SCHEMA,
            {
                "type": "array",
                "items": _PATTERN_SCHEMA,
                "minItems": 1,
                "maxItems": MAX_PATTERNS_COUNT,
            },
        ]
    },
)
