"""Milliseconds that each catastrophic expression takes: to be checked, and to scan 100 KB for it.

    PYTHONPATH=build/import:. python -m tests.unit.router.rules.pattern_benchmark

The best of three scans; the limit is 10 ms, or refused.
"""

from __future__ import annotations

import time

from packetcloud.router.rules.answer import Scanner
from packetcloud.router.rules.patterns import check_pattern, compile_scanner
from packetcloud.router.rules.rule import Pattern
from tests.unit.router.rules.catastrophic import CATASTROPHES

LIMIT_MS = 10.0
SHOWN_COUNT = 5


def main() -> None:
    checks: list[tuple[float, bytes]] = []
    scans: dict[str, list[tuple[float, bytes]]] = {"Hyperscan": [], "RE2": []}
    refused_count = 0
    for one in CATASTROPHES:
        pattern = Pattern(one.expression, is_regex=True)
        begun = time.perf_counter()
        is_refused = check_pattern(pattern) is not None
        checks.append((1e3 * (time.perf_counter() - begun), one.expression))
        refused_count += is_refused
        if is_refused:
            continue
        payload = memoryview(one.payload)
        for engine, found in scans.items():
            scanner = compile_scanner([pattern], use_hyperscan=engine == "Hyperscan")
            best = min(_scan_ms(scanner, payload) for _ in range(3))
            found.append((best, one.expression))
    print(f"{len(CATASTROPHES)} expressions, {refused_count} refused")
    for what, figures in (("checked", checks), *scans.items()):
        slowest = sorted(figures, reverse=True)
        over_count = sum(ms > LIMIT_MS for ms, _ in figures) if what in scans else 0
        print(f"{what}: {over_count} over {LIMIT_MS:g} ms" if what in scans else f"{what}:")
        for ms, expression in slowest[:SHOWN_COUNT]:
            print(f"  {ms:8.2f} ms  {expression.decode('latin-1')}")


def _scan_ms(scanner: Scanner, payload: memoryview) -> float:
    begun = time.perf_counter()
    scanner.found(payload)
    return 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
