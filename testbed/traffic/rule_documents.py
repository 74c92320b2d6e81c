"""Signed documents of many rules, as an ISP installs and withdraws them.

Source: docs/reference/rules.md.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.document import Head, line_of
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.signed import sign_document
from packetcloud.testbed.traffic.rule_traffic import Names
from packetcloud.testbed.traffic.rule_writer import services

PATTERNS_PER_RULE = 16


def write_document(
    path: Path, identity: Identity, set_name: str, serial: int, items: Iterable[bytes]
) -> int:
    """Sign and write one change of a set, for any router; return its bytes.

    Args:
        items: lines.
    """
    body = io.BytesIO()
    body.write(Head(set_name, serial, audience=None).to_bytes())
    body.writelines(items)
    body.seek(0)
    with path.open("wb") as target:
        sign_document(body, identity, (), target)
    return path.stat().st_size


def header_rules(names: Names) -> Iterator[bytes]:
    """Yield a rule for each name: chunks to it, and their answers, visit a service."""
    to = [sid.hex for sid in services()]
    digits = names.tobytes().hex()
    width = 2 * names.shape[1]
    for number in range(len(names)):
        destination = digits[number * width : (number + 1) * width]
        service = to[number % len(to)]
        yield (
            f'{{"name":"r{number}","service":"{service}","destination":"{destination}"}}\n'
        ).encode()


def withdrawals(count: int) -> Iterator[bytes]:
    """Yield the withdrawal of each of the first rules of `header_rules`."""
    for number in range(count):
        yield f'{{"withdraw":"r{number}"}}\n'.encode()


def pattern_rules(patterns: Sequence[Pattern]) -> Iterator[bytes]:
    """Yield rules about whatever holds one of these patterns, so that every chunk is scanned."""
    to = services()
    for number, first in enumerate(range(0, len(patterns), PATTERNS_PER_RULE)):
        yield line_of(
            {
                "name": f"p{number}",
                "service": to[number % len(to)].hex,
                "patterns": [_written(one) for one in patterns[first : first + PATTERNS_PER_RULE]],
            }
        )


def _written(pattern: Pattern) -> dict[str, object]:
    form: dict[str, object] = (
        {"regex": pattern.expression.decode("ascii")}
        if pattern.is_regex
        else {"hex": pattern.expression.hex()}
    )
    if pattern.ignore_case:
        form["ignore_case"] = True
    if pattern.end is not None:
        form["to"] = pattern.end
    return form
