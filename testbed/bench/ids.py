"""`packetcloud bench ids`: a thousand rules with contents inside `process`, and other scanners.

Source: docs/reference/bench.md, "ids".
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import hyperscan
import re2

from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import Content
from packetcloud.services.ids.scanner import content_sought
from packetcloud.services.testing import ServiceHarness
from packetcloud.testbed.bench.ids_rules import KINDS, PAYLOAD_BYTES, corpus, site_rules
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing

RULES = 1000
SLOW_BYTES = 8192
"""What the slow contenders scan; their pace is counted from that."""
CORPUS_COUNT = 48
"""Payloads of each kind, 144 MiB in all: more than any cache holds by the time one comes again."""
NO_SURICATA = (
    "Suricata left out: Debian 12 has no package of it; the engine under its contents, Hyperscan, "
    "stands in for it without confirming anything"
)
Scan = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class IdsPlan:
    """How much to measure."""

    rules: int = RULES
    chunks: int = 40
    """Of each kind, in each repeat; no two alike, as far as the corpus goes."""


def bench_ids(timing: Timing, progress: Progress, plan: IdsPlan | None = None) -> Document:
    """Measure the service and its peers by turns, on each kind of payload."""
    plan = plan or IdsPlan()
    document = begin_document("ids", timing, False, ())
    document |= {"topology": "in one process", "rules": plan.rules, "failures": []}
    document["notes"].append(NO_SURICATA)
    progress("compiling")
    text = site_rules(plan.rules)
    rules = read_rules(text.encode(), {}).rules
    contents = [part for rule in rules for part in rule.parts if isinstance(part, Content)]
    patterns = [one.pattern for one in contents]
    progress("making payloads")
    count = min(plan.chunks, CORPUS_COUNT)
    payloads = {kind: corpus(kind, patterns, count) for kind in KINDS}
    document["corpus_mib"] = count * PAYLOAD_BYTES * len(KINDS) >> 20
    peers = _peers(contents)
    folder = Path(tempfile.mkdtemp(prefix="packetcloud-ids-"))
    try:
        (folder / "site.rules").write_text(text)
        started = time.perf_counter()
        settings = {"rules": str(folder / "site.rules"), "stats_interval_s": "0"}
        with ServiceHarness("ids", settings) as harness:
            document["start_s"] = round(time.perf_counter() - started, 3)
            found = _measure(harness, peers, payloads, plan.chunks, timing.repeats, progress)
    finally:
        shutil.rmtree(folder)
    return {**document, "kinds": found, **ids_keys(found)}


def ids_keys(kinds: Document) -> Document:
    """Return the figures that a reader looks for first: of the kind that is slowest."""
    names = sorted({name for found in kinds.values() for name in found})
    return {name: min(found[name] for found in kinds.values()) for name in names}


def _measure(
    harness: ServiceHarness,
    peers: dict[str, tuple[Scan, int]],
    payloads: dict[str, list[bytes]],
    chunks: int,
    repeats: int,
    progress: Progress,
) -> Document:
    seconds: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats):
        progress(f"{repeat + 1} of {repeats}")
        for number in range(chunks):
            for kind, those in payloads.items():
                result = harness.process(those[(repeat * chunks + number) % len(those)])
                assert result.code is VerdictCode.FORWARD, result.reason
                each = result.processing_ns / 1e9
                seconds.setdefault((kind, "ids_gbps"), []).append(each)
        for kind, those in payloads.items():
            data = those[repeat % len(those)]
            for name, (scan, size_bytes) in peers.items():
                started = time.perf_counter()
                scan(data[:size_bytes])
                took = (time.perf_counter() - started) * PAYLOAD_BYTES / size_bytes
                seconds.setdefault((kind, name), []).append(took)
    found: Document = {kind: {} for kind in payloads}
    for (kind, name), times_s in seconds.items():
        found[kind][name] = round(8 * PAYLOAD_BYTES / median(times_s) / 1e9, 5)
    return found


def _peers(contents: list[Content]) -> dict[str, tuple[Scan, int]]:
    """Return what else finds all contents of the rules, and on how many bytes it is timed.

    None of them confirms a rule: where and in which order contents lie is not asked.
    """
    expressions = [content_sought(one).expression for one in contents]
    whole = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    whole.compile(
        expressions=expressions,
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(expressions),
    )
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.max_mem = 256 << 20
    together = re2.Set.SearchSet(options)
    for expression in expressions:
        together.Add(expression)
    together.Compile()
    exact = [re.escape(one.pattern) for one in contents if not one.is_nocase]
    folded = [re.escape(one.pattern) for one in contents if one.is_nocase]
    either = re.compile(b"|".join([*exact, *(b"(?i:%b)" % one for one in folded)]))

    def by_hyperscan(data: bytes) -> None:
        whole.scan(data, match_event_handler=lambda *_: None)

    return {
        "hyperscan_gbps": (by_hyperscan, PAYLOAD_BYTES),
        "re2_gbps": (together.Match, PAYLOAD_BYTES),
        "python_re_gbps": (lambda data: sum(1 for _ in either.finditer(data)), SLOW_BYTES),
    }
