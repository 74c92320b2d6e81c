"""Times of RFC 3339, to seconds since 1970 and back."""

from __future__ import annotations

import pytest

from packetcloud.chunk.timestamps import parse_time, time_text


@pytest.mark.parametrize(
    ("text", "time_s", "written"),
    [
        ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
        ("2026-01-31T12:00:00Z", 1_769_860_800, "2026-01-31T12:00:00Z"),
        ("2026-01-31t13:00:00.500000+01:00", 1_769_860_800.5, "2026-01-31T12:00:00.500000Z"),
        ("2026-01-31 12:00:00z", 1_769_860_800, "2026-01-31T12:00:00Z"),
        ("9999-12-31T23:59:59Z", 253_402_300_799, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time(text: str, time_s: float, written: str) -> None:
    """It is read in its zone, and written in UTC."""
    assert parse_time(text) == time_s
    assert time_text(time_s) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00Z", "20260131T120000Z",
        "2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00+25:00", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00Z\n", "２026-01-31T12:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    """It is refused, and the error shows what is allowed."""
    with pytest.raises(ValueError, match="a time of RFC 3339 with its zone, like 2026"):
        parse_time(text)
