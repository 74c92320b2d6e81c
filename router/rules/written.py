"""Documents of rules as people write them, and as JSON Lines: TOML, JSON, or JSON Lines already.

TOML and JSON hold the keys of the head, a list `rule` and a list `withdraw`; they are read whole. A
file of JSON Lines is taken as it is. Source: docs/reference/rules.md, "Document".
"""

from __future__ import annotations

import io
import json
import tomllib
from typing import Any, BinaryIO

from packetcloud.router.rules.document import HEAD_FIELDS, decode_json, decode_line, read_head
from packetcloud.router.rules.errors import RuleDocumentError
from packetcloud.router.rules.records import shown
from packetcloud.router.rules.signed import ENVELOPE_START

MAX_WRITTEN_BYTES = 16 << 20
"""Of TOML or JSON: read whole, it takes many times that memory."""
_FIRST_BYTES = 1 << 16


def is_signed(stream: BinaryIO) -> bool:
    """Tell whether a file is a signed document, or pretends to be one. It stands as before."""
    at = stream.tell()
    first = stream.read(len(ENVELOPE_START))
    stream.seek(at)
    return first == ENVELOPE_START


def open_written(stream: BinaryIO) -> BinaryIO:
    """Return the document in a file as JSON Lines, standing at its head.

    Args:
        stream: one that can seek, standing at the beginning.

    Raises:
        RuleDocumentError: it is neither TOML nor JSON, or its head is wrong.
    """
    first = stream.read(_FIRST_BYTES)
    stream.seek(0)
    if first.lstrip()[:1] == b"{" and _is_head(first.partition(b"\n")[0]):
        return stream
    text = stream.read(MAX_WRITTEN_BYTES + 1)
    if len(text) > MAX_WRITTEN_BYTES:
        raise RuleDocumentError(
            f"over {MAX_WRITTEN_BYTES} bytes of TOML or JSON; write JSON Lines: the head in a "
            "line, then each item in one"
        )
    is_json = text.lstrip()[:1] == b"{"
    return io.BytesIO(_as_lines(_json(text) if is_json else _toml(text)))


def _is_head(line: bytes) -> bool:
    """Tell whether a first line is a head of JSON Lines: a whole object, and no items in it."""
    try:
        record = decode_line(line)
    except ValueError:
        return False
    return isinstance(record, dict) and not record.keys() & {"rule", "withdraw"}


def _toml(text: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise RuleDocumentError(f"not TOML: {error or 'nested too deep'}") from None


def _json(text: bytes) -> Any:
    try:
        return decode_json(text)
    except ValueError as error:
        raise RuleDocumentError(str(error)) from None


def _as_lines(record: dict[str, Any]) -> bytes:
    """Raises: RuleDocumentError."""
    rules, withdrawals = record.pop("rule", []), record.pop("withdraw", [])
    for key, items, form in (
        ("rule", rules, "of rules; in TOML each begins with [[rule]]"),
        ("withdraw", withdrawals, "of names of rules"),
    ):
        if not isinstance(items, list):
            raise RuleDocumentError(f"{key}: allowed: a list {form}")
    for key in record.keys() - HEAD_FIELDS.keys():
        allowed = ", ".join([*HEAD_FIELDS, "rule", "withdraw"])
        raise RuleDocumentError(f"{shown(key, '')}: unknown key; allowed: {allowed}")
    head = read_head(json.loads(_line(record)))
    lines = [head.to_bytes()]
    lines += [_line(rule) for rule in rules]
    lines += [_line({"withdraw": name}) for name in withdrawals]
    return b"".join(lines)


def _line(record: object) -> bytes:
    """Raises: RuleDocumentError."""
    try:
        # TOML has times of its own; as text they read as RFC 3339.
        return json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise RuleDocumentError(f"a value is too large or too deep: {error}") from None
