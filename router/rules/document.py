"""A document of rules: a change of one set of rules, with a head and any number of items.

It travels as JSON Lines, so that a million items take the memory of one, and a bad item costs only
itself: the head in a line of its own, then one item in each line, either a rule or the withdrawal
of one by its name. Source: docs/reference/rules.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, BinaryIO

from packetcloud.chunk.timestamps import time_text
from packetcloud.router.rules.errors import RuleDocumentError, RuleFieldError
from packetcloud.router.rules.fields import CheckPattern, Defaults, read_rule
from packetcloud.router.rules.records import Field, read_fields, shown
from packetcloud.router.rules.rule import Mode, Rule
from packetcloud.router.rules.values import (
    FLAG,
    NAME,
    SERIAL,
    TEXT_NAME,
    TIME,
    Kind,
    one_or_list,
    word,
)

RULES_FORMAT = "packetcloud-rules-1"
ANY_ROUTER = "any"
MAX_LINE_BYTES = 4 << 20
"""An item with as many names as it may have is shorter."""
_READ_BYTES = 1 << 14
MAX_ITEMS_COUNT = 1 << 24
MAX_AUDIENCE_COUNT = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """What a document says about all its items."""

    set_name: str
    """The set that it changes; each signer has sets of its own."""
    serial: int
    """Larger than that of the change before."""
    audience: frozenset[bytes] | None
    """GUIDs of the routers that it is for; None: any."""
    valid_from_s: float = -math.inf
    valid_until_s: float = math.inf
    replaces: bool = False
    """The set becomes exactly these rules. Else they join it, each in the place of its namesake."""
    mode: Mode = Mode.ACTIVE
    """Of rules that say nothing about it."""

    @property
    def defaults(self) -> Defaults:
        return Defaults(self.mode, self.valid_from_s, self.valid_until_s)

    def to_bytes(self) -> bytes:
        """Return the line of the head, with its end."""
        record: dict[str, Any] = {
            "format": RULES_FORMAT,
            "set": self.set_name,
            "serial": self.serial,
            "audience": ANY_ROUTER
            if self.audience is None
            else sorted(guid.hex() for guid in self.audience),
        }
        if self.valid_from_s != -math.inf:
            record["valid_from"] = time_text(self.valid_from_s)
        if self.valid_until_s != math.inf:
            record["valid_until"] = time_text(self.valid_until_s)
        return line_of(record | {"replace": self.replaces, "mode": self.mode.value})


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An item: the rule of this name leaves the set. That it is not there is no error."""

    name: str


@dataclass(frozen=True, slots=True)
class ItemError:
    """An item that is refused."""

    number: int
    """From 1."""
    name: str
    """Of the rule, as it is written; empty if it is missing or not allowed."""
    field: str
    """Empty: the whole item."""
    text: str
    """One sentence: which item, which field, what is allowed."""


Item = Rule | Withdrawal | ItemError
LineItem = tuple[str, Item]
"""The line of an item in its document, and the item."""

_ROUTERS = one_or_list(NAME, "ones", MAX_AUDIENCE_COUNT)


def _read_format(value: Any) -> str:
    if value != RULES_FORMAT:
        raise ValueError
    return RULES_FORMAT


def _read_audience(value: Any) -> frozenset[bytes] | None:
    audience: frozenset[bytes] | None = None if value == ANY_ROUTER else _ROUTERS.read(value)
    return audience


HEAD_FIELDS = {
    "format": Field(
        Kind(_read_format, f'"{RULES_FORMAT}"', {"const": RULES_FORMAT}),
        "of the document",
        is_required=True,
    ),
    "set": Field(TEXT_NAME, "the set that it changes", is_required=True),
    "serial": Field(SERIAL, "larger than that of the last change of this set", is_required=True),
    "audience": Field(
        Kind(
            _read_audience,
            f'"any", or GUIDs of routers: {_ROUTERS.allowed}',
            {"anyOf": [{"const": ANY_ROUTER}, *_ROUTERS.schema["anyOf"]]},
        ),
        "the routers that it is for, or `any`",
        is_required=True,
    ),
    "valid_from": Field(TIME, "no rule of it is valid earlier"),
    "valid_until": Field(TIME, "no rule of it is valid from then on"),
    "replace": Field(
        FLAG, "the set becomes exactly these rules; default false: they join it by name"
    ),
    "mode": Field(word(Mode), "of rules that say nothing about it; default `active`"),
}


def read_head(record: object) -> Head:
    """Read the head of a document.

    Raises:
        RuleDocumentError: a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(record, dict):
        raise RuleDocumentError("the head of a document of rules is a JSON object")
    try:
        values = read_fields(record, HEAD_FIELDS)
    except RuleFieldError as error:
        raise RuleDocumentError(f"head: {error}") from None
    head = Head(
        values["set"],
        values["serial"],
        values["audience"],
        values.get("valid_from", -math.inf),
        values.get("valid_until", math.inf),
        values.get("replace", False),
        values.get("mode", Mode.ACTIVE),
    )
    if head.valid_from_s >= head.valid_until_s:
        raise RuleDocumentError("head: valid_until: allowed: a time after valid_from")
    return head


def head_of_line(line: bytes) -> Head:
    """Read the line of a head. Raises: RuleDocumentError."""
    try:
        record = decode_line(line)
    except ValueError as error:
        raise RuleDocumentError(f"head: {error}") from None
    return read_head(record)


def read_items(lines: Iterable[bytes], head: Head, check_pattern: CheckPattern) -> Iterator[Item]:
    """Read the items of a document, one of each line, whatever the lines hold.

    Raises:
        RuleDocumentError: there are more than `MAX_ITEMS_COUNT`.
    """
    return map(itemgetter(1), read_line_items(lines, head, check_pattern))


def read_line_items(
    lines: Iterable[bytes], head: Head, check_pattern: CheckPattern
) -> Iterator[LineItem]:
    """As `read_items`; each item with its line, without the end of that."""
    defaults = head.defaults
    for number, line in enumerate(lines, 1):
        if number > MAX_ITEMS_COUNT:
            raise RuleDocumentError(f"over {MAX_ITEMS_COUNT} items; write several documents")
        record: object = None
        text = ""
        try:
            text, record = _text_and_record(line)
            if type(record) is not dict:
                raise ValueError("no JSON object")
            if "withdraw" in record:
                yield text, _withdrawal(record)
            else:
                yield text, read_rule(record, defaults, check_pattern)
        except RuleFieldError as error:
            yield text, _item_error(number, record, error.field, str(error))
        except ValueError as error:
            yield text, _item_error(number, record, "", str(error))


def repeats_refused(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, an error for each whose name stands further up: a router refuses it."""
    names: set[str] = set()
    for number, item in enumerate(items, 1):
        if item.name and item.name in names and not isinstance(item, ItemError):
            text = f'item {number} "{item.name}": an item of that name stands further up'
            yield ItemError(number, item.name, "", text)
            continue
        names.add(item.name)
        yield item


def lines_of(stream: BinaryIO, seen: Callable[[bytes], object] = lambda _: None) -> Iterator[bytes]:
    """Yield the lines of a stream, each with its end; of one that is too long only the beginning.

    It reads ahead: where the stream stands afterwards is not said.

    Args:
        seen: gets all that is read, so that it can be hashed.
    """
    most = MAX_LINE_BYTES + 1
    rest = b""
    while block := stream.read(_READ_BYTES):
        seen(block)
        if len(rest) >= most:
            end = block.find(b"\n")
            if end < 0:
                continue
            yield rest[:most]
            rest, block = b"", block[end + 1 :]
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n" if len(line) < most else line[:most]
    if rest:
        yield rest[:most]


def line_of(record: dict[str, Any]) -> bytes:
    """Return a record as a line of a document."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> object:
    """Return what the JSON in a line says.

    Raises:
        ValueError: it is too long or no JSON, or says something twice.
    """
    return _text_and_record(line)[1]


def decode_json(text: bytes) -> object:
    """Return what a text in JSON says.

    Raises:
        ValueError: it is no JSON, or says something twice.
    """
    return _record_of(_utf8(text))


def _text_and_record(line: bytes) -> tuple[str, object]:
    """Return a line without its end, and what it says. Raises: ValueError, as `decode_line`."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"over {MAX_LINE_BYTES} bytes in a line")
    text = _utf8(line.rstrip())
    if not text:
        raise ValueError("an empty line")
    try:
        record, end = _decode_quickly(text)
    except (ValueError, RecursionError):
        return text, _record_of(text)
    # As many colons as keys: nothing stands there twice, and the careful decoder would say the
    # same. It takes half as long again.
    if end == len(text) and type(record) is dict and len(record) == text.count(":"):
        return text, record
    return text, _record_of(text)


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError("no JSON: not UTF-8") from None


def _record_of(text: str) -> object:
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError("no JSON: nested too deep") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.rstrip() else ""
        where = f"{line}column {error.colno}"
        raise ValueError(f"no JSON: {error.msg} at {where}") from None


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{shown(twice)} stands there twice")
    return record


_decode = json.JSONDecoder(object_pairs_hook=_object_of).decode
_decode_quickly = json.JSONDecoder().raw_decode
_WITHDRAWAL_FIELDS = {"withdraw": Field(TEXT_NAME, "the name of a rule", is_required=True)}


def _withdrawal(record: dict[str, Any]) -> Withdrawal:
    try:
        if len(record) == 1:
            return Withdrawal(TEXT_NAME.read(record["withdraw"]))
    except ValueError:
        pass  # the careful reader says what is wrong
    return Withdrawal(read_fields(record, _WITHDRAWAL_FIELDS)["withdraw"])


def _item_error(number: int, record: object, field: str, problem: str) -> ItemError:
    name = record.get("name", record.get("withdraw")) if isinstance(record, dict) else None
    if not isinstance(name, str):
        return ItemError(number, "", field, f"item {number}: {problem}")
    text = f"item {number} {shown(name)}: {problem}"
    try:
        return ItemError(number, TEXT_NAME.read(name), field, text)
    except ValueError:
        return ItemError(number, "", field, text)
