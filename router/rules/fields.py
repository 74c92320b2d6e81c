"""The fields of a rule in a document, and how a rule is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packetcloud.router.rules.errors import RuleFieldError
from packetcloud.router.rules.making import make_match, make_rule
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    Action,
    Direction,
    Mode,
    Pattern,
    Rule,
)
from packetcloud.router.rules.values import (
    ASKED_SIDS,
    FLAG,
    NAMES,
    PAYLOAD_TYPES,
    PRIORITY,
    SERVICE,
    SIZE,
    TEXT_NAME,
    TIME,
    Kind,
    WrongElementError,
    word,
)

MAX_PATTERNS_COUNT = 16
"""Of one rule."""
MAX_PATTERN_BYTES = 1024
MAX_COMBINATIONS_COUNT = 65_536
"""Of one rule: names and types of all its sets multiplied; each is an entry of the table."""

CheckPattern = Callable[[Pattern], str | None]
"""Tells why a pattern cannot be used; None: it can."""


class Needed(StrEnum):
    """How many of its patterns a rule needs."""

    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table in a document."""

    kind: Kind
    about: str
    """One line for the page and the schema."""
    is_required: bool = False


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

RULE_FIELDS = {
    "name": Field(TEXT_NAME, "unique in its set", is_required=True),
    "service": Field(SERVICE, "where matching chunks go", is_required=True),
    "action": Field(word(Action), "`visit` the service, or `pass` it by; default `visit`"),
    "mode": Field(word(Mode), "`shadow` counts and has no effect; default: the set's"),
    "priority": Field(PRIORITY, "the larger wins; default 0"),
    "valid_from": Field(TIME, "from then on; default: the set's"),
    "valid_until": Field(TIME, "not from then on; default: the set's"),
    "source": Field(NAMES, "GUIDs of sources"),
    "destination": Field(NAMES, "GUIDs of destinations"),
    "sid": Field(ASKED_SIDS, "what the chunk asks for next"),
    "payload_type": Field(PAYLOAD_TYPES, "types of the payload"),
    "ingress": Field(NAMES, "GUIDs of the neighbours that the chunk came from"),
    "size_min": Field(SIZE, "payload bytes; default 0"),
    "size_max": Field(SIZE, "payload bytes, itself included; default: no limit"),
    "direction": Field(
        word(Direction),
        "`both`: source and destination may be the other way round; default `both`",
    ),
    "patterns": Field(PATTERNS, "what stands in the payload"),
    "patterns_needed": Field(word(Needed), "`any` or `all` of the patterns; default `any`"),
}
_READERS = {key: field.kind.read for key, field in RULE_FIELDS.items()}
_NONE: frozenset[Any] = frozenset()
_BOTH, _FORWARD, _VISIT = Direction.BOTH, Direction.FORWARD, Action.VISIT
"""A lookup in an enum takes as long as one of these reads."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the head of a document says for all its rules."""

    mode: Mode = Mode.ACTIVE
    valid_from_s: float = -math.inf
    valid_until_s: float = math.inf


def read_rule(record: Mapping[str, Any], defaults: Defaults, check_pattern: CheckPattern) -> Rule:
    """Make a rule of the fields in a document.

    Raises:
        RuleFieldError: a key is unknown or missing, or a value is not allowed.
    """
    values: dict[str, Any] = {}
    try:
        for key, value in record.items():
            values[key] = _READERS[key](value)
        rule_name, service = values["name"], values["service"]
    except (KeyError, ValueError):
        read_fields(record, RULE_FIELDS)
        raise AssertionError("the careful reader took what the quick one refused") from None
    get = values.get
    sources, destinations = get("source", _NONE), get("destination", _NONE)
    rule = make_rule(
        rule_name,
        service,
        make_match(
            sources,
            destinations,
            get("sid", _NONE),
            get("payload_type", _NONE),
            get("ingress", _NONE),
            get("size_min", 0),
            get("size_max", MAX_SIZE_BYTES),
            get("patterns", ()),
            "patterns_needed" in values and values["patterns_needed"] is Needed.ALL,
            get("direction", _BOTH) if sources or destinations else _FORWARD,
        ),
        get("action", _VISIT),
        get("mode", defaults.mode),
        get("priority", 0),
        get("valid_from", defaults.valid_from_s),
        get("valid_until", defaults.valid_until_s),
    )
    _refuse_contradictions(rule, values, defaults, check_pattern)
    return rule


def read_fields(
    record: Mapping[str, Any], fields: Mapping[str, Field], prefix: str = ""
) -> dict[str, Any]:
    """Return the values of a table by key, each as its kind reads it.

    Raises:
        RuleFieldError: a key is unknown or missing, or a value is not allowed.
    """
    values = {}
    for key, value in record.items():
        field = fields.get(key)
        if field is None:
            raise RuleFieldError(f"{prefix}{shown(key, '')}", _unknown(fields))
        try:
            values[key] = field.kind.read(value)
        except WrongElementError as error:
            wrong = f"[{error.index}] = {shown(error.value)}: allowed: {field.kind.allowed}"
            raise RuleFieldError(prefix + key, wrong) from None
        except ValueError:
            raise RuleFieldError(
                prefix + key, f" = {shown(value)}: allowed: {field.kind.allowed}"
            ) from None
    for key, field in fields.items():
        if field.is_required and key not in values:
            raise RuleFieldError(prefix + key, f": missing; allowed: {field.kind.allowed}")
    return values


def shown(value: object, quote: str = '"') -> str:
    """Return a value as an error shows it: printable and short."""
    text = (
        quote + value.encode("unicode_escape").decode() + quote
        if isinstance(value, str)
        else ascii(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown(fields: Mapping[str, Field]) -> str:
    return f": unknown key; allowed: {', '.join(fields)}"


def _refuse_contradictions(
    rule: Rule, values: Mapping[str, Any], defaults: Defaults, check_pattern: CheckPattern
) -> None:
    """Refuse what is right field by field and wrong together. Raises: RuleFieldError."""
    match = rule.match
    if match.size_min > match.size_max:
        raise RuleFieldError("size_max", f" = {match.size_max}: allowed: size_min or more")
    if rule.valid_from_s >= rule.valid_until_s:
        raise RuleFieldError("valid_until", ": allowed: a time after valid_from")
    if rule.valid_from_s < defaults.valid_from_s:
        raise RuleFieldError("valid_from", ": allowed: the set's valid_from or later")
    if rule.valid_until_s > defaults.valid_until_s:
        raise RuleFieldError("valid_until", ": allowed: the set's valid_until or earlier")
    if "patterns_needed" in values and not match.patterns:
        raise RuleFieldError("patterns_needed", ": there are no patterns; leave it out")
    combinations = (
        (len(match.sources) or 1)
        * (len(match.destinations) or 1)
        * (len(match.sids) or 1)
        * (len(match.payload_types) or 1)
        * (len(match.ingress) or 1)
    )
    if combinations > MAX_COMBINATIONS_COUNT:
        raise RuleFieldError(
            "source, destination, sid, payload_type, ingress",
            f": {combinations} combinations; allowed: {MAX_COMBINATIONS_COUNT}, "
            "so write several rules",
        )
    for index, pattern in enumerate(match.patterns):
        problem = check_pattern(pattern)
        if problem is not None:
            raise RuleFieldError(f"patterns[{index}]", f": {problem}")
