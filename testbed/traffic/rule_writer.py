"""Writes what routers and tables of rules are measured with; a process of its own.

`python -m packetcloud.testbed.traffic.rule_writer --count N --segment FILE` writes the table of N
rules, each of which names one destination, as a router's keeper does; prints `done`. One process
for each table, so that several are written at a time and what writing takes is given back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from packetcloud.chunk.names import SID
from packetcloud.router.rules.rule import InstalledRule, Match, Rule
from packetcloud.router.rules.segment_writer import write_segment
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.rule_traffic import NAME_BYTES, Names, make_names

SERVICES_COUNT = 16
"""The rules lead to so many services, in turn."""
SECRET = bytes(range(32))


def services() -> tuple[SID, ...]:
    """Return the services that the rules lead to."""
    return tuple(SID(bytes([number + 1]) * NAME_BYTES) for number in range(SERVICES_COUNT))


def make_rules(names: Names) -> Iterator[InstalledRule]:
    """Yield one rule for each name: chunks to it, and their answers, visit a service."""
    to = services()
    for number, name in enumerate(names):
        rule = Rule(f"r{number}", to[number % SERVICES_COUNT], Match(destinations=_one(name)))
        yield InstalledRule(number, "all", bytes(NAME_BYTES), True, rule)


def _one(name: Names) -> frozenset[bytes]:
    return frozenset((name.tobytes(),))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--segment", type=Path, required=True)
    options = parser.parse_args(arguments)
    write_segment(options.segment, make_rules(make_names(options.count)), {}, SECRET)
    emit_event("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
