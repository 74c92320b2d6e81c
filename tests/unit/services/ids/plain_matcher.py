"""The meaning of rules about payloads, written down as plainly and slowly as possible."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packetcloud.services.ids.rule import (
    ByteJump,
    ByteTest,
    Content,
    DataAt,
    NumberAt,
    Origin,
    Part,
    Pcre,
)


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
        case ByteTest():
            value = _number(part.number, payload, at)
            if value is None:
                return False
            holds = {
                "<": value < part.value,
                ">": value > part.value,
                "=": value == part.value,
                "<=": value <= part.value,
                ">=": value >= part.value,
                "&": value & part.value != 0,
                "^": value != part.value,
            }[part.operator]
            return holds != part.is_negated and plainly_holds(rest, payload, at)
        case ByteJump():
            value = _number(part.number, payload, at)
            if value is None:
                return False
            value *= part.multiplier
            while part.is_aligned and value % 4:
                value += 1
            begin = part.number.offset + (at if part.number.is_relative else 0)
            origins = {
                Origin.HERE: begin + part.number.count,
                Origin.BEGIN: 0,
                Origin.END: len(payload),
            }
            place = origins[part.origin] + value + part.post_offset
            return place in range(len(payload)) and plainly_holds(rest, payload, place)
        case Pcre():
            subject = payload[at:] if part.is_relative else payload
            is_found = re.search(part.expression, subject) is not None
            return is_found != part.is_negated and plainly_holds(rest, payload, at)
        case Content():
            ends = list(_ends(part, payload, at))
            if part.is_negated:
                return not ends and plainly_holds(rest, payload, at)
            return any(plainly_holds(rest, payload, end) for end in ends)


def _number(number: NumberAt, payload: bytes, at: int) -> int | None:
    """Return a number; of digits, only those of a fixed width."""
    start = number.offset + (at if number.is_relative else 0)
    data = payload[start : start + number.count] if start >= 0 else b""
    if len(data) < number.count:
        return None
    if number.base:
        return int(data, number.base) if re.fullmatch(rb"[0-7]+", data) else None
    if number.is_little:
        data = data[::-1]
    value = 0
    for byte in data:
        value = 256 * value + byte
    if number.mask:
        value &= number.mask
        for bit in range(64):
            if number.mask >> bit & 1:
                return value >> bit
    return value


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
