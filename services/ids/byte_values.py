"""Numbers in payloads: read, compared with a value (`byte_test`), jumped by (`byte_jump`).

Source: Suricata user guide, "Payload Keywords", byte_test and byte_jump; what it leaves open is as
Suricata 7 does it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from packetcloud.services.ids.rule import ByteJump, ByteTest, NumberAt, Origin

_U64 = (1 << 64) - 1
_TEXTS = {
    8: re.compile(rb"\s*([+-]?)([0-7]+)"),
    10: re.compile(rb"\s*([+-]?)([0-9]+)"),
    16: re.compile(rb"\s*([+-]?)(?:0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]+)"),
}
"""As the C library reads a number of a base: what follows its digits does not matter."""
_OPERATORS: dict[str, Callable[[int, int], object]] = {
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "&": operator.and_,
    "^": operator.xor,
}
OPERATORS = tuple(_OPERATORS)


def place_of(number: NumberAt, end: int) -> int:
    """Return where a number begins; `end`: where the match before it ends."""
    return number.offset + (end if number.is_relative else 0)


def is_true(test: ByteTest, text: bytes, end: int) -> bool:
    """Tell whether a test holds; where there is no number it does not, negated or not."""
    read = _read(test.number, text, place_of(test.number, end))
    if read is None:
        return False
    return bool(_OPERATORS[test.operator](read[0], test.value)) != test.is_negated


def jump(by: ByteJump, text: bytes, end: int) -> int | None:
    """Return where a jump leads; None: there is no number, or it leads out of the payload."""
    start = place_of(by.number, end)
    read = _read(by.number, text, start)
    if read is None:
        return None
    value, read_bytes = read
    value *= by.multiplier
    if by.is_aligned:
        value = -(-value // 4) * 4
    value += by.post_offset
    match by.origin:
        case Origin.BEGIN:
            found = value
        case Origin.END:
            found = len(text) + value
        case _:
            found = start + read_bytes + value
    return found if 0 <= found < len(text) else None


def _read(number: NumberAt, text: bytes, start: int) -> tuple[int, int] | None:
    """Return a number and how many bytes it took."""
    if not 0 <= start <= len(text) - number.count:
        return None
    data = text[start : start + number.count]
    if number.base:
        found = _TEXTS[number.base].match(data)
        if found is None:
            return None
        value, taken = int(found[2], number.base), found.end()
        if value > _U64:
            return None
        value = -value & _U64 if found[1] == b"-" else value
    else:
        value, taken = int.from_bytes(data, "little" if number.is_little else "big"), number.count
    if number.mask:
        value = (value & number.mask) // (number.mask & -number.mask)
    return value, taken
