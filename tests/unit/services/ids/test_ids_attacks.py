"""Payloads and rules that are made to hurt: what they cost is counted, and has an end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.services.ids import versions
from packetcloud.services.ids.flows import FlowTable
from packetcloud.services.ids.hyperscan_scanner import HyperscanScanner
from packetcloud.services.ids.inspection import (
    CHUNK_BUDGET_BYTES,
    Decision,
    Doubt,
    Inspection,
)
from packetcloud.services.ids.matching import Budget, Searched, holds
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.re2_scanner import RE2Scanner
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.rule import Content
from packetcloud.services.ids.ruleset import compile_rules
from packetcloud.services.ids.scanner import Scanner, content_sought
from packetcloud.services.testing import ServiceHarness
from tests.unit.services.ids.ids_place import ids_of

HEAD = "alert chunk any any -> any any"
NEVER = 1 << 60


def inspection(*rules: str, budget_bytes: int = CHUNK_BUDGET_BYTES) -> Inspection:
    ruleset, refused = compile_rules(read_rules("\n".join(rules).encode(), {}))
    assert not refused
    return Inspection(ruleset, FlowTable(10, 1 << 20, 0), Rates(10), budget_bytes)


def inspect(judge: Inspection, payload: bytes) -> Decision:
    header = ChunkHeader(GUID(b"\x01" * 20), GUID(b"\x02" * 20), ChunkId(1), len(payload))
    return judge.inspect(header, memoryview(payload), 0.0)


HURTFUL = [
    f'{HEAD} (content:"attack number {sid:03d}"; content:"no"; content:"yes"; distance:3; '
    f"within:3; sid:{sid};)"
    for sid in range(1, 16)
]
"""Rules whose first content the payload has, and whose others it has everywhere but in place."""
HURTS = b"".join(b"attack number %03d" % sid for sid in range(1, 16)) + b"no yes " * 20_000


def test_a_payload_full_of_candidates_has_an_end() -> None:
    """What confirming costs is counted, the chunk is known as not wholly inspected; without the
    limit, the control, it is inspected to its end and costs several times as much."""
    judge = inspection(*HURTFUL)
    decision = inspect(judge, HURTS)
    assert decision.doubt is Doubt.OVER_BUDGET
    assert judge.counts["over_budget"] == 1
    control = inspection(*HURTFUL, budget_bytes=NEVER)
    assert inspect(control, HURTS).doubt is None
    assert control.counts["candidates"] == len(HURTFUL)
    budget = Budget(NEVER)
    for entry in control.ruleset.entries:
        holds(entry.plan, Searched(memoryview(HURTS)), budget)
    assert NEVER - budget.left_bytes > 3 * CHUNK_BUDGET_BYTES
    assert inspect(judge, b"attack number 001" * 1000).doubt is None, "others go on"


@pytest.mark.parametrize(
    ("setting", "code"), [("drop", VerdictCode.DROP), ("forward", VerdictCode.FORWARD)]
)
def test_what_is_not_wholly_inspected_is_dropped_or_forwarded(
    tmp_path: Path, setting: str, code: VerdictCode
) -> None:
    """As the operator says; either way it is told."""
    (tmp_path / "r").write_text("\n".join(HURTFUL))
    settings = {"rules": str(tmp_path / "r"), "alert_file": str(tmp_path / "a")}
    with ServiceHarness("ids", settings | {"on_overload": setting}) as harness:
        result = harness.process(HURTS)
    assert result.code is code
    assert result.reason == ("ids: over the work for one chunk" if setting == "drop" else "")
    assert '"event":"over_budget"' in (tmp_path / "a").read_text()


def test_a_budget_ends_exactly_where_it_is_used_up() -> None:
    """At the limit all goes well, one byte below it does not."""
    rule = f'{HEAD} (content:"ab"; content:"cd"; distance:0; sid:1;)'
    ((entry),) = inspection(rule).ruleset.entries
    needed = Budget(NEVER)
    payload = Searched(memoryview(b"xxabxxcdxx"))
    assert holds(entry.plan, payload, needed)
    limit = NEVER - needed.left_bytes
    assert inspect(inspection(rule, budget_bytes=limit), b"xxabxxcdxx").alerts
    decision = inspect(inspection(rule, budget_bytes=limit - 1), b"xxabxxcdxx")
    assert decision.doubt is Doubt.OVER_BUDGET
    assert not decision.alerts


CONTENTS = [
    Content(b"haystack/needle.cgi"),
    Content(b"haystack/needle.cgi", start=100),
    Content(b"HAYSTACK".lower() + b"/Needle".lower(), is_nocase=True),
    Content(b"short"),
    Content(b"short", end=50),
    Content(b"needle-at-the-end", is_at_end=True),
]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"haystack/needle.cgi", {0, 2}),
        (b"x" * 100 + b"haystack/needle.cgi", {0, 1, 2}),
        (b"HayStack/NEEDLE", {2}),
        (b"/needle." * 5000 + b"short", {3}),
        (b"ack/need" * 5000 + b"haystack/needle.cgi", {0, 1, 2}),
        (b"short" * 20_000, {3, 4}),
        (b"needle-at-the-end ", set()),
        (b"e-at-the" * 3000 + b"needle-at-the-end", {5}),
        (b"", set()),
    ],
)
def test_a_payload_full_of_windows_changes_nothing(payload: bytes, expected: set[int]) -> None:
    """Both steps of the scan find the same, however often the first one has to compare."""
    sought = [content_sought(one) for one in CONTENTS]
    scanners: list[Scanner] = [
        HyperscanScanner(sought),
        HyperscanScanner(sought, has_first_step=False),
    ]
    for scanner in scanners:
        assert scanner.found(payload) == expected
    # RE2 does not know ranges: it may say more, never less.
    assert RE2Scanner(sought).found(payload) >= expected


def test_rules_without_hyperscan(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE2 takes contents, and rules mean the same; pcre is refused by line."""
    from packetcloud.services.ids import scanner

    monkeypatch.setattr(scanner, "HAS_HYPERSCAN", False)
    file = read_rules(
        f'{HEAD} (content:"evil"; offset:4; content:"end"; endswith; sid:1;)\n'
        f'{HEAD} (pcre:"/a/"; sid:2;)'.encode(),
        {},
    )
    ruleset, (refused,) = compile_rules(file)
    assert (refused.line, refused.reason) == (
        2,
        "sid 2: pcre: pcre needs Hyperscan, which has no wheel for this machine",
    )
    judge = Inspection(ruleset, FlowTable(10, 1 << 20, 0), Rates(10))
    assert inspect(judge, b"    evil to the end").alerts
    assert not inspect(judge, b"evil to the end").alerts
    assert not inspect(judge, b"    evil to the end.").alerts


def test_a_thread_that_compiles_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each rule that it reads, a chunk can be inspected; without that, the control, the
    interpreter switches only when it likes."""
    lines = [f'{HEAD} (content:"rule number {sid}"; sid:{sid};)' for sid in range(1, 501)]
    (tmp_path / "r").write_text("\n".join(lines))
    how = versions.Reading({}, widens=False, skips=False)
    ways = []
    monkeypatch.setattr(versions.time, "sleep", lambda seconds: ways.append(seconds))
    log = versions.logging.getLogger("test.ids")

    def load(yields: bool) -> int:
        ways.clear()
        version = versions.load_version(tmp_path / "r", how, log, yields=yields)
        assert version.rules_count == 500
        return len(ways)

    assert load(yields=True) >= 1000
    assert load(yields=False) == 0


def test_chunks_go_on_while_rules_are_switched(tmp_path: Path) -> None:
    """One thread inspects, another one brings new versions: each chunk is judged by one of them."""
    rules = tmp_path / "r"

    def write(word: str) -> None:
        (tmp_path / "new").write_text(
            f'drop chunk any any -> any any (msg:"{word}"; content:"{word}"; sid:1;)\n'
            f'drop chunk any any -> any any (msg:"not {word}"; content:!"{word}"; sid:2;)\n'
        )
        (tmp_path / "new").replace(rules)

    write("old")
    settings = {"rules": str(rules), "stats_interval_s": "0"}
    with ServiceHarness("ids", settings) as harness:
        watcher = ids_of(harness)._watcher

        def change() -> None:
            for word in ["new", "old"] * 5:
                write(word)
                watcher.look()

        changer = threading.Thread(target=change)
        changer.start()
        reasons = set()
        while changer.is_alive():
            reasons.add(harness.process(b"an old payload").reason)
        changer.join()
        reasons.add(harness.process(b"an old payload").reason)
    assert reasons <= {"ids: sid 1: old", "ids: sid 2: not new"}
    assert "ids: sid 1: old" in reasons
