"""The options `byte_test` and `byte_jump`, of values that stand in the rule.

Source: Suricata user guide, "Payload Keywords".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from packetcloud.services.ids.byte_values import OPERATORS
from packetcloud.services.ids.errors import RuleError
from packetcloud.services.ids.rule import ByteJump, ByteTest, NumberAt, Origin

MAX_BINARY_BYTES = 8
MAX_TEXT_BYTES = 23
"""The longest octal number of 64 bits."""
MAX_OFFSET_BYTES = 65_535
MAX_MULTIPLIER = 65_535
MAX_VALUE = (1 << 64) - 1
_BASES = {"hex": 16, "dec": 10, "oct": 8}
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})")
_TEST = re.compile(r"(!?)\s*(<=|>=|[<>=&^])")
_PAIRED = ("multiplier", "post_offset", "bitmask")
_ORIGINS = {"from_beginning": Origin.BEGIN, "from_end": Origin.END}


@dataclass(slots=True)
class _Words:
    """What follows the numbers of an option."""

    keyword: str
    at: int
    flags: set[str] = field(default_factory=set)
    values: dict[str, int] = field(default_factory=dict)

    def read(self, words: list[str], allowed: tuple[str, ...]) -> None:
        """Raises: RuleError: one is unknown, given twice, or needs a number."""
        for word in words:
            name, _, value = word.partition(" ")
            if name not in allowed:
                raise RuleError(self.at, f"{self.keyword}: {word!r}; allowed: {', '.join(allowed)}")
            if name in self.flags or name in self.values:
                raise RuleError(self.at, f"{self.keyword}: {name} given twice")
            if name in _PAIRED:
                self.values[name] = _integer(self.keyword, name, value.strip(), self.at)
            elif value:
                raise RuleError(self.at, f"{self.keyword}: {name} takes no value")
            else:
                self.flags.add(name)

    def number(self, count: int, offset: int) -> NumberAt:
        """Return how the number is read. Raises: RuleError: it cannot be."""
        bases = [base for word, base in _BASES.items() if word in self.flags]
        if bool(bases) != ("string" in self.flags) or len(bases) > 1:
            raise RuleError(self.at, f"{self.keyword}: string goes with one of hex, dec, oct")
        if {"big", "little"} <= self.flags:
            raise RuleError(self.at, f"{self.keyword}: big and little do not go together")
        most = MAX_TEXT_BYTES if bases else MAX_BINARY_BYTES
        _within(self.keyword, "number of bytes", count, 1, most, self.at)
        _within(self.keyword, "offset", offset, -MAX_OFFSET_BYTES, MAX_OFFSET_BYTES, self.at)
        mask = self.values.get("bitmask", 0)
        if "bitmask" in self.values:
            _within(self.keyword, "bitmask", mask, 1, (1 << 32) - 1, self.at)
        is_relative, is_little = "relative" in self.flags, "little" in self.flags
        return NumberAt(count, offset, is_relative, is_little, bases[0] if bases else 0, mask)


_NUMBER_WORDS = ("relative", "big", "little", "string", "hex", "dec", "oct", "bitmask")
_JUMP_WORDS = ("multiplier", "align", *_ORIGINS, "post_offset")


def parse_byte_test(value: str, at: int) -> ByteTest:
    """Return `byte_test:COUNT, [!]OPERATOR, VALUE, OFFSET, ...`. Raises: RuleError."""
    words = _split(value)
    found = _TEST.fullmatch(words[1]) if len(words) >= 4 else None
    if found is None:
        operators = " ".join(OPERATORS)
        raise RuleError(
            at, f"byte_test:{value}; expected COUNT, [!]OPERATOR ({operators}), VALUE, OFFSET"
        )
    count, against, offset = (
        _integer("byte_test", name, words[number], at)
        for name, number in (("number of bytes", 0), ("value", 2), ("offset", 3))
    )
    _within("byte_test", "value", against, 0, MAX_VALUE, at)
    rest = _Words("byte_test", at)
    rest.read(words[4:], _NUMBER_WORDS)
    return ByteTest(rest.number(count, offset), found[2], against, bool(found[1]))


def parse_byte_jump(value: str, at: int) -> ByteJump:
    """Return `byte_jump:COUNT, OFFSET, ...`. Raises: RuleError."""
    words = _split(value)
    if len(words) < 2:
        raise RuleError(at, f"byte_jump:{value}; expected COUNT, OFFSET")
    count = _integer("byte_jump", "number of bytes", words[0], at)
    offset = _integer("byte_jump", "offset", words[1], at)
    rest = _Words("byte_jump", at)
    rest.read(words[2:], (*_NUMBER_WORDS, *_JUMP_WORDS))
    origins = [origin for word, origin in _ORIGINS.items() if word in rest.flags]
    if len(origins) > 1:
        raise RuleError(at, "byte_jump: from_beginning and from_end do not go together")
    multiplier = rest.values.get("multiplier", 1)
    post_offset = rest.values.get("post_offset", 0)
    _within("byte_jump", "multiplier", multiplier, 1, MAX_MULTIPLIER, at)
    _within("byte_jump", "post_offset", post_offset, -MAX_OFFSET_BYTES, MAX_OFFSET_BYTES, at)
    return ByteJump(
        rest.number(count, offset),
        multiplier,
        "align" in rest.flags,
        origins[0] if origins else Origin.HERE,
        post_offset,
    )


def _split(value: str) -> list[str]:
    return [" ".join(word.split()) for word in value.split(",")]


def _integer(keyword: str, name: str, text: str, at: int) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise RuleError(at, f"{keyword}: {name} {text!r} is no number (variables are not kept)")
    return int(text, 16 if "x" in text.lower() else 10)


def _within(keyword: str, name: str, value: int, least: int, most: int, at: int) -> None:
    if not least <= value <= most:
        raise RuleError(at, f"{keyword}: {name} {value}; allowed: {least} to {most}")
