"""What patterns do cost a scan at the most, beside what `scan_cost` says that they may.

    PYTHONPATH=build/import:. python -m tests.unit.router.rules.scan_cost_benchmark [SECONDS] [SEED]

Random expressions and the catastrophic ones over hostile payloads, in nanoseconds for a byte, by
Hyperscan. Then texts that end alike, and as much as one third party may have together.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

from packetcloud.router.errors import PatternError
from packetcloud.router.rules.answer import Scanner
from packetcloud.router.rules.expression_reader import parse
from packetcloud.router.rules.patterns import compile_scanner, demand_of
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.scan_cost import expression_ns
from packetcloud.router.rules.scanner_share import Good, ScannerLoad
from packetcloud.router.settings import RuleSettings
from tests.unit.router.rules.catastrophic import CATASTROPHES

PAYLOAD_BYTES = 20_000
ROUNDS = 3
CLASSES_NS = (0, 25, 50, 75, 100, 200, 1000, 10_000)
TOGETHER_COUNT = 60


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    payloads = _payloads(rng)
    end_s = time.monotonic() + seconds
    found: list[tuple[int, float, bytes]] = []
    texts = [one.expression for one in CATASTROPHES]
    while time.monotonic() < end_s:
        text = texts.pop() if texts else _expression(rng, 4)
        try:
            cost_ns = expression_ns(parse(text))
            found.append((cost_ns, _worst_ns([Pattern(text, True)], payloads), text))
        except PatternError:
            continue
    print(f"{len(found)} expressions, ns for a byte of payload")
    for low, high in pairwise(CLASSES_NS):
        some = [one for one in found if low < one[0] <= high]
        if some:
            cost_ns, worst_ns, text = max(some, key=lambda one: one[1])
            over = sum(one[1] > one[0] for one in some)
            print(
                f"counted {low:5} to {high:5}: {len(some):5}, dearest {worst_ns:7.1f} "
                f"(counted {cost_ns}), {over} dearer than counted  {text[:60].decode()}"
            )
    for count in (1, 2, 4, 8, 30, 200):
        alike = [Pattern(b"a" * length, start=1 << 19) for length in range(1, count + 1)]
        print(f"{count:3} texts that end alike: {_worst_ns(alike, payloads):7.1f}")
    _show_together(rng, found, payloads)


def _show_together(
    rng: random.Random, found: Sequence[tuple[int, float, bytes]], payloads: Sequence[memoryview]
) -> None:
    """Draw as many expressions as one third party may have, again and again."""
    most_ns = RuleSettings().max_signer_scan_ns
    worst_ns = 0.0
    for _ in range(TOGETHER_COUNT):
        load, chosen = ScannerLoad(), []
        for _, _, text in rng.choices(found, k=50):
            pattern = Pattern(text, True)
            if load.with_more(Good.SCAN, [demand_of(pattern)]) <= most_ns:
                load.add([demand_of(pattern)])
                chosen.append(pattern)
        if chosen:
            worst_ns = max(worst_ns, _worst_ns(chosen, payloads))
    print(f"what one third party may have, {most_ns} counted: {worst_ns:.1f} at the most")


def _payloads(rng: random.Random) -> list[memoryview]:
    letters = (b"ab", b"abc", b"aaab", b"aabbc", b"abbbbbb", b"a")
    plain = [bytes(rng.choices(one, k=PAYLOAD_BYTES)) for one in letters]
    repeated = [one * (PAYLOAD_BYTES // len(one)) for one in (b"aab", b"ab", b"wordx")]
    return [memoryview(before + one) for one in plain + repeated for before in (b"", b"wordx")]


def _worst_ns(patterns: Sequence[Pattern], payloads: Sequence[memoryview]) -> float:
    scanner = compile_scanner(patterns)
    return max(min(_scans_ns(scanner, one)) / PAYLOAD_BYTES for one in payloads)


def _scans_ns(scanner: Scanner, payload: memoryview) -> Iterator[int]:
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        scanner.found(payload)
        yield time.thread_time_ns() - begun


def _expression(rng: random.Random, depth: int) -> bytes:
    end = rng.choice([b"", b"c", b"d", b"dd", b"[cd]"])
    return rng.choice([b"", b"", b"wordx"]) + _node(rng, depth) + end


def _node(rng: random.Random, depth: int) -> bytes:
    kind = rng.random()
    if depth <= 0 or kind < 0.3:
        return rng.choice([b"a", b"b", b"[ab]", b"c", b".", b"[^c]"])
    parts = [_node(rng, depth - 1) for _ in range(rng.randint(2, 3))]
    if kind < 0.6:
        return b"".join(parts)
    if kind < 0.72:
        return b"(%b)" % b"|".join(parts)
    least = rng.randint(0, 9)
    most = least + rng.randint(1, 12)
    times = rng.choice([b"*", b"+", b"?", b"{%d}" % most, b"{%d,%d}" % (least, most)])
    return b"(%b)%b" % (parts[0], times)


if __name__ == "__main__":
    main()
