"""Options about the payload: content and its modifiers, pcre, numbers, isdataat, dsize.

Source: Suricata user guide, "Payload Keywords".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packetcloud.services.ids.byte_options import parse_byte_jump, parse_byte_test
from packetcloud.services.ids.errors import RuleError
from packetcloud.services.ids.pcre import parse_pcre
from packetcloud.services.ids.rule import (
    ByteJump,
    ByteTest,
    Content,
    DataAt,
    Part,
    Pcre,
    SizeRange,
    is_match,
)

MAX_CONTENT_BYTES = 255
MAX_PARTS_COUNT = 64
MAX_PLACE_BYTES = 1 << 20
"""Largest offset, depth, distance and the like: a chunk has no more."""
MAX_SIZE_BYTES = (1 << 32) - 1

_QUOTED = re.compile(r'\s*(!?)\s*"(.*)"\s*', re.DOTALL)
_NUMBER = re.compile(r"\s*(-?\d{1,10})\s*")
_SIZE = re.compile(r"\s*(?:(<=|>=|<|>|!|=)\s*(\d{1,10})|(\d{1,10})(?:\s*<>\s*(\d{1,10}))?)\s*")
_DATA_AT = re.compile(r"\s*(!?)\s*(\d{1,10})((?:\s*,\s*[a-z]+)*)\s*")


@dataclass(slots=True)
class _Open:
    """A content whose modifiers are still to come."""

    text: bytes
    at: int
    is_negated: bool
    is_nocase: bool = False
    offset: int | None = None
    depth: int | None = None
    distance: int | None = None
    within: int | None = None
    is_at_start: bool = False
    is_at_end: bool = False
    is_fast: bool = False

    def close(self) -> Content:
        """Return the content. Raises: RuleError: its modifiers contradict each other."""
        length = len(self.text)
        is_relative = self.distance is not None or self.within is not None
        is_absolute = self.offset is not None or self.depth is not None
        if is_relative and (is_absolute or self.is_at_start):
            other = "startswith" if self.is_at_start else "offset and depth"
            raise RuleError(self.at, f"content: distance and within do not go with {other}")
        if is_absolute and self.is_at_start:
            raise RuleError(self.at, "content: startswith does not go with offset and depth")
        for word, room in (("depth", self.depth), ("within", self.within)):
            if room is not None and room < length:
                raise RuleError(
                    self.at, f"content: {length} bytes are never found in {word}:{room}"
                )
        start = self.offset or 0
        end = start + self.depth if self.depth is not None else None
        return Content(
            self.text.lower() if self.is_nocase else self.text,
            self.is_negated,
            self.is_nocase,
            start,
            length if self.is_at_start else end,
            self.distance,
            self.within,
            self.is_at_end,
            self.is_fast,
        )


class PayloadOptions:
    """What a rule says of the payload, collected option by option."""

    def __init__(self) -> None:
        self.size: SizeRange | None = None
        self._parts: list[tuple[int, _Open | Pcre | DataAt | ByteTest | ByteJump]] = []

    def take(self, keyword: str, value: str | None, at: int, value_at: int) -> list[str] | None:
        """Take an option; return notes about what has no effect, None if it is not about payloads.

        Raises:
            RuleError: it is malformed or does not go with another.
        """
        match keyword:
            case "content":
                is_negated, text, text_at = quoted(keyword, value, at)
                self._add(at, _Open(parse_bytes(text, value_at + text_at), at, is_negated))
            case "pcre":
                found, notes = parse_pcre(_needed(keyword, value, at), value_at)
                self._add(at, found)
                return notes
            case "isdataat":
                self._add(at, _data_at(_needed(keyword, value, at), at))
            case "byte_test":
                self._add(at, parse_byte_test(_needed(keyword, value, at), at))
            case "byte_jump":
                self._add(at, parse_byte_jump(_needed(keyword, value, at), at))
            case "dsize":
                if self.size is not None:
                    raise RuleError(at, "dsize: given twice")
                self.size = _size(_needed(keyword, value, at), at)
            case "nocase" | "startswith" | "endswith" | "fast_pattern" | "rawbytes":
                return self._mark(keyword, value, at)
            case "offset" | "depth" | "distance" | "within":
                self._place(keyword, _needed(keyword, value, at), at)
            case "pkt_data":
                return ["pkt_data: payloads are all there is"]
            case _:
                return None
        return []

    def parts(self) -> tuple[Part, ...]:
        """Return the parts in their order, checked against each other.

        Raises:
            RuleError: one is relative to what has no exact end.
        """
        closed: list[Part] = []
        before: Part | None = None
        fast_count = 0
        for at, part in self._parts:
            one = part.close() if isinstance(part, _Open) else part
            is_relative = not isinstance(one, Content) and one.is_relative
            is_relative = is_relative or (isinstance(one, Content) and one.is_relative)
            if is_relative and isinstance(before, Pcre):
                raise RuleError(at, "relative to a pcre: where a match of it ends is not known")
            if isinstance(one, Content) and one.is_fast:
                fast_count += 1
                if fast_count > 1:
                    raise RuleError(at, "fast_pattern: given for two contents")
            if is_match(one):
                before = one
            closed.append(one)
        return tuple(closed)

    def _add(self, at: int, part: _Open | Pcre | DataAt | ByteTest | ByteJump) -> None:
        if len(self._parts) >= MAX_PARTS_COUNT:
            raise RuleError(at, f"more than {MAX_PARTS_COUNT} contents and the like")
        self._parts.append((at, part))

    def _last(self, keyword: str, at: int) -> _Open:
        for _, part in reversed(self._parts):
            if isinstance(part, _Open):
                return part
        raise RuleError(at, f"{keyword}: no content before it")

    def _mark(self, keyword: str, value: str | None, at: int) -> list[str]:
        content = self._last(keyword, at)
        if keyword == "fast_pattern":
            content.is_fast = True
            return [f"fast_pattern:{value}: the whole content is looked for"] if value else []
        if value is not None:
            raise RuleError(at, f"{keyword}: takes no value")
        match keyword:
            case "nocase":
                content.is_nocase = True
            case "startswith":
                content.is_at_start = True
            case "endswith":
                content.is_at_end = True
            case _:
                return ["rawbytes: payloads are never decoded"]
        return []

    def _place(self, keyword: str, value: str, at: int) -> None:
        content = self._last(keyword, at)
        number = _NUMBER.fullmatch(value)
        if number is None:
            raise RuleError(
                at, f"{keyword}: {value.strip()!r} is no number (variables are not kept)"
            )
        count = int(number[1])
        least = {"distance": -MAX_PLACE_BYTES, "offset": 0}.get(keyword, 1)
        if not least <= count <= MAX_PLACE_BYTES:
            raise RuleError(at, f"{keyword}: {count}; allowed: {least} to {MAX_PLACE_BYTES}")
        if getattr(content, keyword) is not None:
            raise RuleError(at, f"{keyword}: given twice for one content")
        setattr(content, keyword, count)


def quoted(keyword: str, value: str | None, at: int) -> tuple[bool, str, int]:
    """Return whether a value is negated, what stands between its quotes, and where in the value.

    Raises:
        RuleError: it has none.
    """
    found = _QUOTED.fullmatch(value or "")
    if found is None:
        raise RuleError(at, f'{keyword}: expected a text in quotes: {keyword}:"..."')
    return bool(found[1]), found[2], found.start(2)


def parse_bytes(text: str, at: int) -> bytes:
    r"""Return the bytes of a content: text, `|hex|`, and `\"`, `\;`, `\:`, `\\`.

    Raises:
        RuleError: names the place.
    """
    found = bytearray()
    offset = 0
    while offset < len(text):
        letter = text[offset]
        if letter == "|":
            end = text.find("|", offset + 1)
            if end < 0:
                raise RuleError(at + offset, "content: hexadecimal digits without the second |")
            try:
                found += bytes.fromhex(text[offset + 1 : end])
            except ValueError:
                wrong = f"|{text[offset + 1 : end]}|"
                raise RuleError(at + offset, f"content: {wrong} are no hexadecimal bytes") from None
            offset = end + 1
            continue
        if letter == "\\":
            offset += 1
            letter = text[offset : offset + 1]
            if letter not in tuple('"\\;:'):
                allowed = r"\" \\ \; \:"
                raise RuleError(at + offset - 1, f"content: \\{letter}; allowed: {allowed}")
        elif letter == '"':
            raise RuleError(at + offset, r'content: a " is written \" or |22|')
        found += letter.encode("utf-8", "surrogateescape")
        offset += 1
    if not 1 <= len(found) <= MAX_CONTENT_BYTES:
        raise RuleError(at, f"content: {len(found)} bytes; allowed: 1 to {MAX_CONTENT_BYTES}")
    return bytes(found)


def _data_at(value: str, at: int) -> DataAt:
    found = _DATA_AT.fullmatch(value)
    words = {word.strip() for word in found[3].split(",")} - {""} if found else set()
    if found is None or words - {"relative", "rawbytes"}:
        raise RuleError(at, f"isdataat:{value}; expected [!]NUMBER[,relative]")
    count = int(found[2])
    if count > MAX_PLACE_BYTES:
        raise RuleError(at, f"isdataat: {count}; allowed: 0 to {MAX_PLACE_BYTES}")
    return DataAt(count, bool(found[1]), "relative" in words)


def _size(value: str, at: int) -> SizeRange:
    found = _SIZE.fullmatch(value)
    if found is None:
        raise RuleError(at, f"dsize:{value}; expected NUMBER, <, >, <=, >=, ! or LOW<>HIGH")
    sign, number, low, high = found.groups()
    if high is not None:
        if int(low) + 1 >= int(high):
            raise RuleError(at, f"dsize: no size lies between {low} and {high}")
        return SizeRange(int(low) + 1, int(high) - 1)
    count = int(number or low)
    match sign:
        case "<":
            if not count:
                raise RuleError(at, "dsize: no size is below 0")
            return SizeRange(0, count - 1)
        case "<=":
            return SizeRange(0, count)
        case ">":
            return SizeRange(count + 1, MAX_SIZE_BYTES)
        case ">=":
            return SizeRange(count, MAX_SIZE_BYTES)
        case _:
            return SizeRange(count, count, sign == "!")


def _needed(keyword: str, value: str | None, at: int) -> str:
    if value is None:
        raise RuleError(at, f"{keyword}: needs a value")
    return value
