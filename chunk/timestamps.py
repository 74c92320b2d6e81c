"""Points in time as people and documents write them: RFC 3339 with a zone; and since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MAX_TIME_TEXT_CHARS = 40
ALLOWED_TIME = "a time of RFC 3339 with its zone, like 2026-01-31T12:00:00Z"
TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_END_S = 253_402_300_800
"""The year 10000, which no text of this form can say."""
_TIME = re.compile(TIME_PATTERN[:-1])


def parse_time(text: str) -> float:
    """Return seconds since 1970 of a time of RFC 3339, from 1970 to 9999; no leap seconds.

    Raises:
        ValueError: it is none; the text says what is allowed.
    """
    if len(text) > MAX_TIME_TEXT_CHARS or _TIME.fullmatch(text) is None:
        raise ValueError(ALLOWED_TIME)
    try:
        time_s = datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(ALLOWED_TIME) from None
    if not 0 <= time_s < _END_S:
        raise ValueError(ALLOWED_TIME)
    return time_s


def time_text(time_s: float) -> str:
    """Return the time in UTC; whole seconds without a fraction."""
    text = datetime.fromtimestamp(time_s, UTC).isoformat()
    return text.removesuffix("+00:00") + "Z"
