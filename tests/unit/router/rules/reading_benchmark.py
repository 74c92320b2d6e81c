"""Microseconds of reading one item of a document of rules, beside its JSON alone.

    PYTHONPATH=build/import:. python -m tests.unit.router.rules.reading_benchmark

Each item names a service and a destination of its own. CPU time, the best of many batches, so that
what else the machine does is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from packetcloud.router.rules.document import line_of, read_items
from packetcloud.router.rules.proof import Prover
from packetcloud.router.rules.rule import Rule
from tests.unit.router.rules.rule_documents import (
    HEAD,
    NOW_S,
    TENANT,
    TRUST,
    grant,
    rule_record,
    takes_any_pattern,
)

ITEMS_COUNT = 100_000
BATCH_COUNT = 1000
Lines = list[bytes]


def us_of(work: Callable[[Lines], object], lines: Lines) -> float:
    """Return microseconds for each line."""
    best = min(_seconds(work, batch) for batch in _batches(lines))
    return best / BATCH_COUNT * 1e6


def numbered_lines(count: int) -> Lines:
    """Return items that name a destination each."""
    return [
        line_of(rule_record(name=f"rule-{number}", destination=f"{number:040x}"))
        for number in range(count)
    ]


def read(lines: Lines) -> list[object]:
    """Read items as a keeper does."""
    return list(read_items(lines, HEAD, takes_any_pattern))


def _batches(lines: Lines) -> Iterator[Lines]:
    for start in range(0, len(lines), BATCH_COUNT):
        yield lines[start : start + BATCH_COUNT]


def _seconds(work: Callable[[Lines], object], lines: Lines) -> float:
    begin = time.process_time()
    work(lines)
    return time.process_time() - begin


def _prove(grants: bool) -> Callable[[Lines], object]:
    prover = Prover(TENANT.public_key, [grant()] if grants else [], TRUST, NOW_S)

    def ask(lines: Lines) -> list[object]:
        items = read_items(lines, HEAD, takes_any_pattern)
        return [prover.refusal(item) for item in items if isinstance(item, Rule)]

    return ask


def main() -> None:
    lines = numbered_lines(ITEMS_COUNT)
    owned = [line_of(rule_record(name=f"rule-{number}")) for number in range(ITEMS_COUNT)]
    for what, work, some in (
        ("JSON alone", lambda batch: [json.loads(line) for line in batch], lines),
        ("an item", read, lines),
        ("an item of a third party, proven", _prove(grants=True), owned),
        ("an item of a third party, refused", _prove(grants=False), lines),
    ):
        print(f"{what:40} {us_of(work, some):5.2f} µs")


if __name__ == "__main__":
    main()
