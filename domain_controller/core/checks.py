"""What a value may be. Every mistake names object, field, what was given and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packetcloud.domain_controller.errors import InvalidValueError

MAX_INTEGER = (1 << 63) - 1
"""The largest integer that every database keeps."""
MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, which is as far as dates are written with four digits."""
MAX_TEXT_CHARS = 1000
"""A reason or a description; longer ones are for a document."""
NAME_RULE = "lower-case letters, digits and '-', 1 to 63, a letter or digit first"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHOWN_CHARS = 60


def check_integer(where: str, value: object, low: int, high: int) -> None:
    """Refuse whatever is not an integer of low..high; a bool, and 1.0, are not integers.

    Raises:
        InvalidValueError: names `where` and the bounds.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidValueError(where, shown(value), f"an integer, {low} to {high}")


def check_time(where: str, value: object) -> None:
    """Refuse what is not a time.

    Raises:
        InvalidValueError: names `where`.
    """
    if type(value) is not int or not 0 <= value <= MAX_TIME_MS:
        allowed = f"an integer of milliseconds since 1970 (UTC), 0 to {MAX_TIME_MS}"
        raise InvalidValueError(where, shown(value), allowed)


def check_name(where: str, value: object) -> None:
    """Refuse what is not a name.

    Raises:
        InvalidValueError: names `where`.
    """
    if type(value) is not str or _NAME.fullmatch(value) is None:
        raise InvalidValueError(where, shown(value), NAME_RULE)


def check_text(where: str, value: object, longest: int = MAX_TEXT_CHARS) -> None:
    """Refuse what is not a text of at most `longest` printable characters.

    Raises:
        InvalidValueError: names `where`.
    """
    if type(value) is not str or len(value) > longest or not value.isprintable():
        raise InvalidValueError(where, shown(value), f"at most {longest} printable characters")


def check_bool(where: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises:
        InvalidValueError: names `where`.
    """
    if type(value) is not bool:
        raise InvalidValueError(where, shown(value), "true or false")


def check_digest(where: str, value: object) -> None:
    """Refuse what is not a SHA-256 digest of 32 bytes.

    Raises:
        InvalidValueError: names `where`.
    """
    if type(value) is not bytes or len(value) != 32:
        raise InvalidValueError(where, shown(value), "a digest of 32 bytes")


def check_type(where: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    """Refuse an object of another class.

    Raises:
        InvalidValueError: names `where` and `allowed`.
    """
    if not isinstance(value, kind):
        raise InvalidValueError(where, shown(value), allowed)


def check_unique(where: str, names: Iterable[str], most: int) -> None:
    """Refuse more than `most` names, and a name that stands there twice.

    Raises:
        InvalidValueError: names `where`, and the name.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidValueError(where, f"{name} twice", "each name once")
        seen.add(name)
        if len(seen) > most:
            raise InvalidValueError(where, f"more than {most}", f"at most {most}")


def readable(text: str, longest: int = MAX_TEXT_CHARS) -> str:
    """Return a text from outside as `check_text` takes it: cut, and a blank for each control."""
    return "".join(one if one.isprintable() else " " for one in text[:longest])


def shown(value: object) -> str:
    """Return a value as an error shows it: short, whatever was sent."""
    if type(value) is int and value.bit_length() > 128:
        # Python refuses to write integers of thousands of digits.
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (str, bytes, int, float, type(None))) else ""
    text = text or f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
