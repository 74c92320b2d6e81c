"""Reads regular expressions over bytes, and says what is wrong with them.

The language is what Hyperscan, RE2 and Python's `re` have in common and mean alike; see
docs/reference/router.md. What has no meaning in linear time is refused with a text for the author.
"""

from __future__ import annotations

import math

from packetcloud.router.errors import PatternError
from packetcloud.router.rules.expression import (
    ALL_BYTES,
    Branch,
    Either,
    Expression,
    Node,
    OneOf,
    Repeat,
    Sequence,
    repeats_count,
)

MAX_EXPRESSION_BYTES = 1024
MAX_REPEAT_COUNT = 1000
"""Of one part, nested repeats multiplied: what RE2 takes too."""
MAX_POSITIONS_COUNT = 2000
"""Bytes and sets with all repeats written out: bounds what an engine makes of an expression, and
the time to make it."""
MAX_NESTING_COUNT = 32

_DIGITS = frozenset(b"0123456789")
_SPACE = frozenset(b" \t\n\r\f\v")
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_WORD = _DIGITS | _LETTERS | frozenset(b"_")
_CLASSES = {
    ord("d"): _DIGITS,
    ord("D"): ALL_BYTES - _DIGITS,
    ord("s"): _SPACE,
    ord("S"): ALL_BYTES - _SPACE,
    ord("w"): _WORD,
    ord("W"): ALL_BYTES - _WORD,
}
_CONTROLS = {ord(key): value for key, value in zip("nrtfva0", b"\n\r\t\f\v\a\0", strict=True)}
_NO_LOOKING = "looking around is not in linear time; write what stands there into the expression"
_NO_REFERENCES = "back references are not in linear time; write the repeated part out"
_NO_WORD_EDGES = "\\b and \\B look around; write the neighbouring byte, for example [^a-z]"
_ESCAPES_REFUSED = dict.fromkeys(b"bB", _NO_WORD_EDGES) | dict.fromkeys(
    b"123456789gk", _NO_REFERENCES
)
_GROUPS_REFUSED = (
    (b"(?=", _NO_LOOKING),
    (b"(?!", _NO_LOOKING),
    (b"(?<=", _NO_LOOKING),
    (b"(?<!", _NO_LOOKING),
    (b"(?P=", _NO_REFERENCES),
    (b"(?>", "atomic groups have no meaning without backtracking; use (?:...)"),
    (b"(?(", "conditions on groups are not in linear time"),
    (b"(?", "only (...), (?:...) and named groups; for case there is `ignore_case`"),
)
_BOUND_BEGINS = frozenset(bytes([byte]) for byte in b"0123456789,")


def literal(text: bytes, *, ignore_case: bool = False) -> Expression:
    """Return the expression that matches these bytes.

    Raises:
        PatternError: nothing, or too long.
    """
    _check_length(text)
    parts = tuple(OneOf(_with_case(frozenset({byte}), ignore_case)) for byte in text)
    return Expression((Branch(Sequence(parts)),))


def parse(text: bytes, *, ignore_case: bool = False) -> Expression:
    """Read a regular expression.

    Raises:
        PatternError: it is malformed, has no linear time, or is larger than the caps.
    """
    _check_length(text)
    expression = _Reader(text, ignore_case).whole()
    if not expression.widths[0]:
        raise PatternError("it is found in every payload; let it need a byte at least")
    if expression.positions_count > MAX_POSITIONS_COUNT:
        raise PatternError(
            f"{expression.positions_count} bytes with all repeats written out; "
            f"allowed: {MAX_POSITIONS_COUNT}"
        )
    return expression


def _check_length(text: bytes) -> None:
    if not text:
        raise PatternError("empty; allowed: one byte at least")
    if len(text) > MAX_EXPRESSION_BYTES:
        raise PatternError(f"{len(text)} bytes; allowed: {MAX_EXPRESSION_BYTES}")


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: bytes, ignore_case: bool) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._ignore_case = ignore_case

    def whole(self) -> Expression:
        branches = [self._branch()]
        while self._skip(b"|"):
            branches.append(self._branch())
        if self._at < len(self._text):
            raise self._error("a ) without its (")
        return Expression(tuple(branches))

    def _branch(self) -> Branch:
        from_begin = self._skip(b"^") or self._skip(b"\\A")
        node = self._sequence()
        to_end = self._skip(b"$") or self._skip(b"\\z")
        if to_end and self._at < len(self._text) and self._text[self._at] not in b"|)":
            raise self._error("$ may stand only at the end of the expression or an alternative")
        return Branch(node, from_begin, to_end)

    def _either(self) -> Node:
        parts = [self._sequence()]
        while self._skip(b"|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and not self._is_next(b"|", b")", b"$", b"\\z"):
            parts.append(self._quantified(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _atom(self) -> Node:
        byte = self._text[self._at]
        if byte == ord("("):
            return self._group()
        if byte == ord("["):
            return OneOf(self._set())
        if byte == ord("\\"):
            return OneOf(_with_case(self._escape(), self._ignore_case))
        if byte == ord("^"):
            raise self._error("^ may stand only at the begin of the expression or an alternative")
        is_bound = byte == ord("{") and self._text[self._at + 1 : self._at + 2] in _BOUND_BEGINS
        if byte in b"*+?" or is_bound:
            raise self._error("nothing stands before it to repeat")
        self._at += 1
        members = ALL_BYTES if byte == ord(".") else frozenset({byte})
        return OneOf(_with_case(members, self._ignore_case))

    def _group(self) -> Node:
        if self._is_next(b"(?"):
            self._group_begin()
        else:
            self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING_COUNT:
            raise self._error(f"more than {MAX_NESTING_COUNT} groups in one another")
        node = self._either()
        if self._is_next(b"$", b"\\z"):
            raise self._error("$ may not stand in a group")
        if not self._skip(b")"):
            raise self._error("a ( without its )")
        self._depth -= 1
        return node

    def _group_begin(self) -> None:
        if self._skip(b"(?:"):
            return
        for begin in (b"(?P<", b"(?<"):
            name, found, _ = self._text[self._at + len(begin) :].partition(b">")
            if self._is_next(begin) and found and name.replace(b"_", b"a").isalnum():
                self._at += len(begin) + len(name) + 1
                return
        for begin, why in _GROUPS_REFUSED:
            if self._is_next(begin):
                raise self._error(why)

    def _quantified(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if self._is_next(b"+"):
            raise self._error("possessive repeats have no meaning without backtracking")
        self._skip(b"?")  # As few or as many as possible: both are found.
        repeat = Repeat(node, *bounds)
        if repeats_count(repeat) > MAX_REPEAT_COUNT:
            raise self._error(f"more than {MAX_REPEAT_COUNT} repeats, in one another multiplied")
        if self._is_next(b"*", b"+", b"?") or self._bounds() is not None:
            raise self._error("a repeat of a repeat; put a group around the first")
        return repeat

    def _bounds(self) -> tuple[int, float] | None:
        for sign, bounds in ((b"*", (0, math.inf)), (b"+", (1, math.inf)), (b"?", (0, 1))):
            if self._skip(sign):
                return bounds
        if self._text[self._at + 1 : self._at + 2] not in _BOUND_BEGINS or not self._is_next(b"{"):
            return None
        inner, closed, _ = self._text[self._at + 1 :].partition(b"}")
        least, comma, most = inner.partition(b",")
        if not closed or not least.isdigit() or (most and not most.isdigit()) or len(inner) > 9:
            raise self._error("allowed: {2}, {2,} or {2,4}; a { itself is written \\{")
        if not comma:
            most = least
        elif most and int(most) < int(least):
            raise self._error("it may be repeated fewer times than it must")
        self._at += len(inner) + 2
        return int(least), int(most) if most else math.inf

    def _set(self) -> frozenset[int]:
        begin = self._at
        self._at += 1
        is_negated = self._skip(b"^")
        members: set[int] = set()
        is_first = True
        while is_first or not self._is_next(b"]"):
            if self._at >= len(self._text):
                self._at = begin
                raise self._error("a [ without its ]")
            if self._is_next(b"[:", b"[.", b"[="):
                raise self._error("named sets like [:alpha:] are not known; write [A-Za-z]")
            members |= self._range()
            is_first = False
        self._at += 1
        found = _with_case(frozenset(members), self._ignore_case)
        found = ALL_BYTES - found if is_negated else found
        if not found:
            self._at = begin
            raise self._error("no byte is in this set")
        return found

    def _range(self) -> frozenset[int]:
        low = self._member()
        rest = self._text[self._at : self._at + 2]
        if rest[:1] != b"-" or rest in (b"-]", b"-"):
            return low
        self._at += 1
        if self._at >= len(self._text):
            raise self._error("a range without its end")
        high = self._member()
        if len(low) != 1 or len(high) != 1 or min(low) > min(high):
            raise self._error("a range goes from one byte to a larger one")
        return frozenset(range(min(low), min(high) + 1))

    def _member(self) -> frozenset[int]:
        if self._is_next(b"\\"):
            return self._escape()
        self._at += 1
        return frozenset({self._text[self._at - 1]})

    def _escape(self) -> frozenset[int]:
        escaped = self._text[self._at + 1 : self._at + 2]
        if not escaped:
            raise self._error("a \\ at the end")
        byte = escaped[0]
        if byte in _ESCAPES_REFUSED:
            raise self._error(_ESCAPES_REFUSED[byte])
        if byte == ord("x"):
            digits = self._text[self._at + 2 : self._at + 4]
            if len(digits) < 2 or not set(digits) <= set(b"0123456789abcdefABCDEF"):
                raise self._error("allowed: \\x and two hexadecimal digits")
            self._at += 4
            return frozenset({int(digits, 16)})
        if byte not in _CLASSES and byte not in _CONTROLS and byte in _WORD - {ord("_")}:
            raise self._error(f"\\{chr(byte)} is not known; known: \\d \\s \\w \\n \\r \\t \\xHH")
        if byte == ord("0") and self._text[self._at + 2 : self._at + 3].isdigit():
            raise self._error("bytes in octal are not known; write \\xHH")
        self._at += 2
        return _CLASSES.get(byte) or frozenset({_CONTROLS.get(byte, byte)})

    def _is_next(self, *signs: bytes) -> bool:
        return self._text.startswith(signs, self._at)

    def _skip(self, sign: bytes) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True

    def _error(self, why: str) -> PatternError:
        return PatternError(f"at byte {self._at}: {why}")


def _with_case(members: frozenset[int], ignore_case: bool) -> frozenset[int]:
    if not ignore_case:
        return members
    return members | {byte ^ 0x20 for byte in members & _LETTERS}
