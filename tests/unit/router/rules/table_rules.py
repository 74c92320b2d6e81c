"""Rules, questions and tables for the tests of the table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packetcloud.chunk.names import SID
from packetcloud.router.rules.answer import Answer
from packetcloud.router.rules.rule import InstalledRule, Match, Rule
from packetcloud.router.rules.segment import Segment, load_segment
from packetcloud.router.rules.segment_writer import write_segment
from packetcloud.router.rules.table import Table

SECRET = bytes(range(32))
A, B, C = (bytes([letter]) * 20 for letter in b"ABC")
SERVICE, OTHER_SERVICE = SID(b"s" * 20), SID(b"t" * 20)
RULE_KEYS = ("service", "action", "mode", "priority", "valid_from_s", "valid_until_s")


def name(number: int) -> bytes:
    return number.to_bytes(20, "big")


def installed(number: int = 1, *, is_own: bool = True, **words: Any) -> InstalledRule:
    """A rule; `words` are of `Rule` and `Match`, and sets may be written as lists."""
    rule_words = {key: words.pop(key) for key in RULE_KEYS if key in words}
    rule_words.setdefault("service", SERVICE)
    match = Match(**{k: frozenset(v) if isinstance(v, list) else v for k, v in words.items()})
    return InstalledRule(number, "set", C, is_own, Rule(f"r{number}", match=match, **rule_words))


def segment(folder: Path, rules: Iterable[InstalledRule], secret: bytes = SECRET) -> Segment:
    """Write a segment and load it. The id of a pattern is its first byte."""
    path = folder / f"{len(list(folder.iterdir()))}.segment"
    write_segment(path, rules, lambda pattern: pattern.expression[0], secret)
    return load_segment(path)


def table(folder: Path, *rules: InstalledRule, withdrawn: Iterable[int] = ()) -> Table:
    return Table(3, [segment(folder, rules)], frozenset(withdrawn))


def ask(
    asked: Table,
    source: bytes = A,
    destination: bytes = B,
    sid: bytes = bytes(20),
    payload_type: int = 0,
    ingress: bytes = C,
    now_s: float = 0.0,
) -> Answer:
    return asked.ask(source, destination, sid, payload_type, ingress, now_s)


def numbers(answer: Answer) -> list[int]:
    """The rules of the answer: of the first contest, by rank."""
    return [one.number for contest in answer.contests[:1] for one in contest.contenders]
