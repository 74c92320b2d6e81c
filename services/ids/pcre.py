"""The option `pcre`: which expressions and flags can be kept exactly, and how large they may be.

Only whether an expression is found counts, never where: for that greedy and reluctant repeats are
the same, and the engine's answer is that of PCRE. What has no linear time it refuses itself. What
repeats make of an expression is counted here, because an engine would take seconds and gigabytes
to find it too large. Source: Hyperscan Developer's Reference, "Pattern Support".
"""

from __future__ import annotations

import re

from packetcloud.services.ids.errors import RuleError
from packetcloud.services.ids.rule import Pcre

MAX_EXPRESSION_BYTES = 1024
MAX_POSITIONS_COUNT = 2000
"""Bytes and sets of one expression, all repeats written out."""
MAX_NESTING_COUNT = 32

_ENGINE_FLAGS = "imsx"
_WITHOUT_EFFECT = {"G": "ungreedy: what is found is the same", "B": "raw bytes", "O": "limits"}
_BUFFERS = {
    "U": "http.uri",
    "I": "http.uri.raw",
    "P": "http.request_body",
    "Q": "http.response_body",
    "H": "http.header",
    "D": "http.header.raw",
    "M": "http.method",
    "C": "http.cookie",
    "S": "http.stat_code",
    "Y": "http.stat_msg",
    "V": "http.user_agent",
    "W": "http.host",
}
_WRITTEN = re.compile(r'\s*(!?)\s*"\s*/(.*)/([A-Za-z]*)\s*"\s*(,.*)?', re.DOTALL)
_REPEAT = re.compile(rb"\{(\d{1,6}),?(\d{0,6})\}")
_CLASS = re.compile(rb"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:x[0-9A-Fa-f]{0,2}|x\{[0-9A-Fa-f]*\}|[0-7]{1,3}|c.|[pP]\{\w*\}|.)", re.S
)


def parse_pcre(value: str, at: int) -> tuple[Pcre, list[str]]:
    """Read the value of a `pcre` option; also return what of it has no effect.

    Raises:
        RuleError: malformed, too large, or asks for what chunks do not have.
    """
    written = _WRITTEN.fullmatch(value)
    if written is None:
        raise RuleError(at, 'pcre: expected "/EXPRESSION/FLAGS"')
    negation, text, flags, capture = written.groups()
    if capture is not None or "(?P<flow_" in text or "(?P<pkt_" in text:
        raise RuleError(at, "pcre: captured variables are not kept")
    expression = text.encode("utf-8", "surrogateescape")
    if not expression:
        raise RuleError(at, "pcre: an empty expression")
    if len(expression) > MAX_EXPRESSION_BYTES:
        raise RuleError(at, f"pcre: {len(expression)} bytes; allowed: {MAX_EXPRESSION_BYTES}")
    if b"\0" in expression:
        raise RuleError(at, r"pcre: a zero byte is written \x00")
    flags_at = at + written.start(3)
    notes = [_check_flag(flag, number + flags_at) for number, flag in enumerate(flags)]
    _check_size(expression, at + written.start(2))
    if "E" in flags and b"$" in expression:
        raise RuleError(flags_at + flags.index("E"), r"pcre: flag E; write \z in place of $")
    found = Pcre(_for_engine(expression, flags), bool(negation), "R" in flags)
    return found, [f"flag {note}" for note in notes if note]


def _check_flag(flag: str, at: int) -> str:
    if flag in _BUFFERS:
        raise RuleError(
            at, f"pcre: flag {flag} is about {_BUFFERS[flag]}, which chunks do not have"
        )
    if flag in _WITHOUT_EFFECT:
        return f"{flag} ({_WITHOUT_EFFECT[flag]})"
    if flag not in _ENGINE_FLAGS and flag not in "RAE":
        raise RuleError(at, f"pcre: unknown flag {flag}; allowed: {_ENGINE_FLAGS}RAEGBO")
    return ""


def _for_engine(expression: bytes, flags: str) -> bytes:
    """Write flags into the expression: the engine is given many of them at once."""
    chosen = "".join(flag for flag in _ENGINE_FLAGS if flag in flags)
    head = f"(?{chosen})".encode() if chosen else b""
    if "A" not in flags:
        return head + expression
    # With x, a comment at the end would reach over the bracket.
    return head + b"\\A(?:" + expression + (b"\n)" if "x" in flags else b")")


def _check_size(expression: bytes, at: int) -> None:
    """Raises: RuleError: too many positions once repeats are written out, or too deep."""
    open_groups = [0]
    last = 0
    """Positions of what a repeat that follows would repeat."""
    offset = 0
    while offset < len(expression):
        byte = expression[offset : offset + 1]
        if byte == b"(":
            open_groups.append(0)
            if len(open_groups) > MAX_NESTING_COUNT:
                raise RuleError(at, f"pcre: groups nested deeper than {MAX_NESTING_COUNT}")
            last, offset = 0, offset + 1
            continue
        if byte == b")":
            last = open_groups.pop() if len(open_groups) > 1 else 0
            offset += 1
        elif byte == b"{" and (repeat := _REPEAT.match(expression, offset)):
            least, most = repeat.groups()
            times = max(1, int(least), int(most or 0))
            open_groups[-1] += last * (times - 1)
            last, offset = last * times, repeat.end()
            if open_groups[-1] > MAX_POSITIONS_COUNT:
                break
            continue
        else:
            last = 0 if byte in b"|^$*+?" else 1
            offset = _end_of_atom(expression, offset)
        open_groups[-1] += last
    if sum(open_groups) > MAX_POSITIONS_COUNT:
        raise RuleError(
            at, f"pcre: over {MAX_POSITIONS_COUNT} bytes and sets once repeats are written out"
        )


def _end_of_atom(expression: bytes, offset: int) -> int:
    for pattern in (_ESCAPE, _CLASS):
        if found := pattern.match(expression, offset):
            return found.end()
    return offset + 1
