"""Values in documents of rules: how each kind is read, what is allowed, its part of the schema.

A reader takes what JSON gave and returns what the rule holds, or raises ValueError. All three,
reader, words and schema, stand side by side here so that they say the same; tests compare them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.names import GUID_BYTES, SID, SID_SEQUENCE, SID_ZERO
from packetcloud.chunk.timestamps import ALLOWED_TIME, TIME_PATTERN, parse_time
from packetcloud.router.rules.rule import MAX_SIZE_BYTES

MAX_NAME_CHARS = 128
"""Of a rule or a set: it is a label in tables, logs and metrics."""
MAX_NAMES_COUNT = 65_536
"""Names in one set of one rule."""
MAX_PRIORITY = 1_000_000
MAX_SERIAL = (1 << 63) - 1
_HEX_CHARS = 2 * GUID_BYTES
_NAME_TEXT = rf"^[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_NAME_CHARS - 1}}}$"
_is_name_text = re.compile(_NAME_TEXT[:-1]).fullmatch
_PAYLOAD_TYPES = {kind.name.lower(): int(kind) for kind in PayloadType}

Reader = Callable[[Any], Any]
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    read: Reader
    """Raises: ValueError."""
    allowed: str
    """In words, for errors and pages."""
    schema: Schema


class WrongElementError(ValueError):
    """An element of a list is not allowed."""

    def __init__(self, index: int, value: object) -> None:
        super().__init__()
        self.index = index
        self.value = value


def number(least: int, most: int, unit: str = "") -> Kind:
    """Return the kind of whole numbers within a range."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:  # a bool is no number here
            raise ValueError
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Kind(read, f"a whole number from {least} to {most}{unit}", schema)


def word(words: type[StrEnum]) -> Kind:
    """Return the kind of one of a few words."""
    members: Mapping[Any, StrEnum] = {member.value: member for member in words}

    def read(value: Any) -> StrEnum:
        if type(value) is str and value in members:
            return members[value]
        raise ValueError

    allowed = ", ".join(f'"{member}"' for member in members)
    return Kind(read, allowed, {"enum": list(members)})


def one_or_list(element: Kind, noun: str, most: int) -> Kind:
    """Return the kind of sets: one element, or a list of different ones; read as frozenset."""
    read_element = element.read

    def read(value: Any) -> frozenset[Any]:
        if type(value) is not list:
            return frozenset((read_element(value),))
        if not 1 <= len(value) <= most:
            raise ValueError
        elements = set()
        for index, one in enumerate(value):
            try:
                elements.add(read_element(one))
            except ValueError:
                raise WrongElementError(index, one) from None
        if len(elements) != len(value):
            raise ValueError
        return frozenset(elements)

    several = {"type": "array", "items": element.schema, "minItems": 1, "maxItems": most}
    return Kind(
        read,
        f"{element.allowed}, or a list of 1 to {most} different {noun}",
        {"anyOf": [element.schema, several]},
    )


def _read_text_name(value: Any) -> str:
    if type(value) is str and _is_name_text(value):
        return value
    raise ValueError


def _read_name(value: Any) -> bytes:
    if type(value) is str and len(value) == _HEX_CHARS:
        octets = bytes.fromhex(value)
        if len(octets) == GUID_BYTES:  # fromhex lets blanks between the bytes pass
            return octets
    raise ValueError


def _read_sid(value: Any) -> bytes:
    octets = _read_name(value)
    if octets == SID_SEQUENCE.value:
        raise ValueError
    return octets


@lru_cache(maxsize=1024)
def _service(text: str) -> SID:
    octets = _read_sid(text)
    if octets == SID_ZERO.value:
        raise ValueError
    return SID.unchecked(octets)


def _read_service(value: Any) -> SID:
    if type(value) is not str:
        raise ValueError
    return _service(value)  # a document names few services and many destinations


def _read_payload_type(value: Any) -> int:
    if type(value) is str and value in _PAYLOAD_TYPES:
        return _PAYLOAD_TYPES[value]
    if type(value) is not int or not 0 <= value <= 0xFF:
        raise ValueError
    return value


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


@lru_cache(maxsize=1024)
def _parsed_time(text: str) -> float:
    return parse_time(text)


def _read_time(value: Any) -> float:
    if type(value) is not str:
        raise ValueError
    return _parsed_time(value)


_NAME_SCHEMA = {"type": "string", "pattern": f"^[0-9A-Fa-f]{{{_HEX_CHARS}}}$"}
TEXT_NAME = Kind(
    _read_text_name,
    f"1 to {MAX_NAME_CHARS} of letters, digits and . _ : / -, a letter or digit first",
    {"type": "string", "pattern": _NAME_TEXT},
)
NAME = Kind(_read_name, f"{_HEX_CHARS} hexadecimal digits", _NAME_SCHEMA)
ASKED_SID = Kind(
    _read_sid,
    f"a SID of {_HEX_CHARS} hexadecimal digits, zeros for plain delivery",
    _NAME_SCHEMA | {"not": {"pattern": "^[Ff]*$"}},
)
SERVICE = Kind(
    _read_service,
    f"the SID of a service, {_HEX_CHARS} hexadecimal digits, neither all 0 nor all f",
    _NAME_SCHEMA | {"not": {"pattern": "^(0*|[Ff]*)$"}},
)
NAMES = one_or_list(NAME, "ones", MAX_NAMES_COUNT)
ASKED_SIDS = one_or_list(ASKED_SID, "ones", MAX_NAMES_COUNT)
PAYLOAD_TYPES = one_or_list(
    Kind(
        _read_payload_type,
        f"a number from 0 to 255, {', '.join(map(repr, _PAYLOAD_TYPES))}",
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 255}, {"enum": [*_PAYLOAD_TYPES]}]},
    ),
    "ones",
    256,
)
SIZE = number(0, MAX_SIZE_BYTES, " bytes")
PRIORITY = number(-MAX_PRIORITY, MAX_PRIORITY)
SERIAL = number(1, MAX_SERIAL)
FLAG = Kind(_read_flag, "true or false", {"type": "boolean"})
TIME = Kind(_read_time, ALLOWED_TIME, {"type": "string", "pattern": TIME_PATTERN})
