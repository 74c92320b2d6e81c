"""Payload inspection in `bench rules`: how fast one core looks for patterns, and what hurts it.

Source: docs/reference/bench.md, "rules".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from packetcloud.router.rules.answer import Scanner
from packetcloud.router.rules.patterns import HAS_HYPERSCAN, check_pattern, compile_scanner
from packetcloud.router.rules.rule import Pattern
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.traffic.rule_patterns import (
    HURTFUL_BYTES,
    hurtful_expressions,
    make_patterns,
    near_miss_payload,
    random_payload,
    text_payload,
)

PAYLOAD_BYTES = 1 << 20
COUNTS = (10, 100, 1000, 10_000)
SAMPLE_S = 0.1
HURT_ROUNDS = 3


def measure_patterns(counts: Sequence[int], repeats: int, progress: Progress) -> Document:
    """Scan payloads of each kind for so many patterns; one core, the clock of its CPU time."""
    scanners: dict[int, Scanner] = {}
    compile_s: dict[int, float] = {}
    for count in counts:
        progress(f"compiling {count} patterns")
        begin_s = time.thread_time()
        scanners[count] = compile_scanner(make_patterns(count))
        compile_s[count] = time.thread_time() - begin_s
    payloads = {
        count: {
            "random": random_payload(PAYLOAD_BYTES),
            "text": text_payload(PAYLOAD_BYTES),
            "near_misses": near_miss_payload(PAYLOAD_BYTES, make_patterns(count)),
        }
        for count in counts
    }
    samples: dict[tuple[int, str], list[float]] = {}
    for number in range(1, repeats + 1):
        for count, scanner in scanners.items():
            progress(f"{count} patterns, {number} of {repeats}")
            for kind, payload in payloads[count].items():
                gbps = scan_gbps(scanner, payload)
                samples.setdefault((count, kind), []).append(gbps)
    return {
        "engine": "hyperscan" if HAS_HYPERSCAN else "re2",
        "payload_bytes": PAYLOAD_BYTES,
        "counts": {
            str(count): {
                "compile_s": compile_s[count],
                **{
                    f"{kind}_gbps": _spread(samples[count, kind])
                    | {"patterns_found": len(scanners[count].found(memoryview(payload)))}
                    for kind, payload in payloads[count].items()
                },
            }
            for count in counts
        },
    }


def scan_gbps(scanner: Scanner, payload: bytes) -> float:
    """Return at what pace of CPU time a payload is looked through, 10^9 bit/s."""
    view = memoryview(payload)
    scans, used_s = 0, 0.0
    begin_s = time.thread_time()
    while used_s < SAMPLE_S:
        scanner.found(view)
        scans += 1
        used_s = time.thread_time() - begin_s
    return scans * len(payload) * 8 / used_s / 1e9


def measure_hurtful(progress: Progress) -> Document:
    """Install each known catastrophic expression, and scan the payload that is worst for it.

    By itself, and together with all others that may be installed.
    """
    progress("expressions that hurt")
    cases = hurtful_expressions()
    found: list[Document] = []
    accepted: list[tuple[Document, Pattern, bytes]] = []
    for expression, payload in cases:
        pattern = Pattern(expression, is_regex=True)
        begin_s = time.perf_counter()
        refusal = check_pattern(pattern)
        check_ms = (time.perf_counter() - begin_s) * 1e3
        case: Document = {
            "expression": expression.decode("latin-1"),
            "refused": refusal,
            "check_ms": check_ms,
        }
        found.append(case)
        if refusal is None:
            accepted.append((case, pattern, payload))
            scanner = compile_scanner([pattern])
            case["scan_ms"] = _longest_ms(scanner.found, payload)
    if accepted:
        together = compile_scanner([pattern for _, pattern, _ in accepted])
        for case, _, payload in accepted:
            case["scan_together_ms"] = _longest_ms(together.found, payload)
    return {
        "payload_bytes": HURTFUL_BYTES,
        "expressions": len(cases),
        "refused": len(cases) - len(accepted),
        "worst_scan_ms": max((case["scan_ms"] for case, _, _ in accepted), default=None),
        "worst_scan_together_ms": max(
            (case["scan_together_ms"] for case, _, _ in accepted), default=None
        ),
        "worst_check_ms": max(case["check_ms"] for case in found),
        "cases": found,
    }


def _longest_ms(found: Callable[[memoryview], object], payload: bytes) -> float:
    """Return the median of some scans: the longest of a few is what else the machine did."""
    times_s = []
    for _ in range(HURT_ROUNDS):
        begin_s = time.perf_counter()
        found(memoryview(payload))
        times_s.append(time.perf_counter() - begin_s)
    return median(times_s) * 1e3


def _spread(samples: Sequence[float]) -> Document:
    return {
        "median": median(samples),
        "min": min(samples),
        "max": max(samples),
        "samples": list(samples),
    }
