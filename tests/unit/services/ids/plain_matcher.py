"""The meaning of rules about payloads, written down as plainly and slowly as possible."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packetcloud.services.ids.rule import Content, DataAt, Part, Pcre


def plainly_holds(parts: tuple[Part, ...], payload: bytes, at: int = 0) -> bool:
    """Try every way of placing the parts; `at` is where the match before ended."""
    if not parts:
        return True
    part, rest = parts[0], parts[1:]
    match part:
        case DataAt():
            goes_on = (
                at + part.count <= len(payload) if part.is_relative else part.count < len(payload)
            )
            return goes_on != part.is_negated and plainly_holds(rest, payload, at)
        case Pcre():
            subject = payload[at:] if part.is_relative else payload
            is_found = re.search(part.expression, subject) is not None
            return is_found != part.is_negated and plainly_holds(rest, payload, at)
        case Content():
            ends = list(_ends(part, payload, at))
            if part.is_negated:
                return not ends and plainly_holds(rest, payload, at)
            return any(plainly_holds(rest, payload, end) for end in ends)


def _ends(part: Content, payload: bytes, at: int) -> Iterator[int]:
    """Yield where every match of one content ends."""
    for start in range(len(payload) - len(part.pattern) + 1):
        end = start + len(part.pattern)
        found = payload[start:end].lower() if part.is_nocase else payload[start:end]
        if found != part.pattern or (part.is_at_end and end != len(payload)):
            continue
        if start < part.start or (part.end is not None and end > part.end):
            continue
        if part.is_relative:
            distance = part.distance or 0
            if start < at + distance or (
                part.within is not None and end > at + distance + part.within
            ):
                continue
        yield end
