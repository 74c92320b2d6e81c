"""Values as JSON documents and back, by their types: what is read is checked like what is made.

Bytes and names are hexadecimal digits, enumerations their values, tuples lists. A document has
exactly the fields of its value, but for those with a default: what an older version wrote is read.
How a type is written and read is found once, as a value of a reservation has a hundred parts.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.core.checks import shown
from packetcloud.domain_controller.errors import InvalidValueError

Value = TypeVar("Value")
_Codec = Callable[[Any], Any]
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_HEX_DIGITS = frozenset("0123456789abcdef")


class _MismatchError(Exception):
    """A part of a document is not what it must be; `where` grows on the way out to the whole."""

    def __init__(self, found: str, allowed: str, where: str = "") -> None:
        super().__init__()
        self.found = found
        self.allowed = allowed
        self.where = where


_PLAIN = frozenset({type(None), bool, int, str})
"""What is written as it is."""


def to_document(value: Any) -> Any:
    """Return a value of the core as what JSON can write."""
    return _writer(type(value))(value)


def from_document(kind: type[Value], document: object, where: str = "") -> Value:
    """Read a value; `where` is its name in errors.

    Raises:
        InvalidValueError: names the field, and what may stand there.
    """
    try:
        value: Value = _reader(kind)(document)
    except _MismatchError as error:
        name = f"{where or kind.__name__.lower()}{error.where}"
        raise InvalidValueError(name, error.found, error.allowed) from None
    return value


def _make_writer(kind: Any) -> _Codec:
    if kind in _PLAIN:
        return _same
    if issubclass(kind, Enum) or kind is NA:
        return attrgetter("value")
    if kind is bytes:
        return bytes.hex
    if issubclass(kind, GUID):
        return attrgetter("hex")
    if kind is tuple:
        return lambda value: [one if type(one) in _PLAIN else to_document(one) for one in value]
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_document(one) for key, one in value.items()}
    if is_dataclass(kind):
        names = tuple(field.name for field in fields(kind))
        return lambda value: {
            name: one if type(one := getattr(value, name)) in _PLAIN else to_document(one)
            for name in names
        }
    raise TypeError(f"a {kind.__name__} has no document")


def _same(value: Any) -> Any:
    return value


def _make_reader(kind: Any) -> _Codec:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _reader_of_one_of(get_args(kind))
    if origin is tuple:
        return _tuple_reader(get_args(kind))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_reader(*get_args(kind))
    if kind in (int, str, bool, type(None)):
        return _plain_reader(kind)
    if kind is NA:
        return _read_na
    if kind is bytes or issubclass(kind, GUID):
        return _hex_reader(kind)
    if issubclass(kind, Enum):
        return _enum_reader(kind)
    if is_dataclass(kind):
        return _fields_reader(kind)
    raise TypeError(f"a {kind.__name__} has no document")


def _reader_of_one_of(kinds: tuple[Any, ...]) -> _Codec:
    """Read the first kind that the document can be; the error is that of the last one."""
    readers = [_reader(kind) for kind in kinds if kind is not type(None)]
    allows_none = type(None) in kinds

    def read(document: object) -> Any:
        if allows_none and document is None:
            return None
        for reader in readers[:-1]:
            try:
                return reader(document)
            except (_MismatchError, InvalidValueError):
                continue
        return readers[-1](document)

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> _Codec:
    is_uniform = kinds[-1] is Ellipsis
    readers = [_reader(kind) for kind in kinds if kind is not Ellipsis]

    def read(document: object) -> Any:
        if type(document) is not list:
            raise _MismatchError(shown(document), "a list")
        if not is_uniform and len(document) != len(readers):
            raise _MismatchError(f"a list of {len(document)}", f"{len(readers)} elements")
        values: list[Any] = []
        try:
            for one in document:
                values.append(readers[0 if is_uniform else len(values)](one))
        except _MismatchError as error:
            error.where = f"[{len(values)}]{error.where}"
            raise
        return tuple(values)

    return read


def _mapping_reader(key_kind: Any, value_kind: Any) -> _Codec:
    """Return what reads an object whose keys are texts, or integers in decimal digits."""
    read_value = _reader(value_kind)

    def read(document: object) -> Any:
        if not isinstance(document, Mapping):
            raise _MismatchError(shown(document), "an object")
        values = {}
        for key, one in document.items():
            if key_kind is int and not _INTEGER.fullmatch(key):
                raise _MismatchError(f"key {shown(key)}", "keys that are integers")
            try:
                values[key_kind(key)] = read_value(one)
            except _MismatchError as error:
                error.where = f".{key}{error.where}"
                raise
        return values

    return read


def _plain_reader(kind: Any) -> _Codec:
    def read(document: object) -> Any:
        if type(document) is not kind:
            raise _MismatchError(shown(document), _called(kind))
        return document

    return read


def _read_na(document: object) -> Any:
    if type(document) is not int or not 0 <= document <= 0xFFFF_FFFF:
        raise _MismatchError(shown(document), "an NA: an integer of 32 bits")
    return NA(document)


def _hex_reader(kind: Any) -> _Codec:
    allowed = "hexadecimal digits in lower case"
    if kind is not bytes:
        allowed = f"40 {allowed}"

    def read(document: object) -> Any:
        try:
            if type(document) is not str or not _HEX_DIGITS.issuperset(document):
                raise ValueError
            data = bytes.fromhex(document)
            return data if kind is bytes else kind(data)
        except (ValueError, ProtocolError):
            raise _MismatchError(shown(document), allowed) from None

    return read


def _enum_reader(kind: Any) -> _Codec:
    members = {member.value: member for member in kind}

    def read(document: object) -> Any:
        if type(document) is not str or document not in members:
            raise _MismatchError(shown(document), ", ".join(members))
        return members[document]

    return read


def _fields_reader(kind: Any) -> _Codec:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    called = {
        field.name: _called(hints[field.name])
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def read(document: object) -> Any:
        if not isinstance(document, Mapping):
            raise _MismatchError(shown(document), "an object")
        values = {}
        for name, one in document.items():
            reader = readers.get(name)
            if reader is None:
                raise _MismatchError(f"unknown field {shown(name)}", ", ".join(readers))
            try:
                values[name] = reader(one)
            except _MismatchError as error:
                error.where = f".{name}{error.where}"
                raise
        for name, allowed in called.items():
            if name not in values:
                raise _MismatchError("missing", allowed, f".{name}")
        return kind(**values)

    return read


def _called(kind: Any) -> str:
    words = {int: "an integer", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(kind, "a value")


_writer: Callable[[Any], _Codec] = cache(_make_writer)
_reader: Callable[[Any], _Codec] = cache(_make_reader)
