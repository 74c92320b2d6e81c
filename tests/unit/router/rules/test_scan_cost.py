"""What patterns may cost a scan, and whose share of the scanner they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.router.rules.expression_reader import literal, parse
from packetcloud.router.rules.patterns import Demand, check_pattern, demand_of
from packetcloud.router.rules.rule import Pattern
from packetcloud.router.rules.scan_cost import (
    MAX_EXPRESSION_NS,
    POSITION_NS,
    STOP_NS,
    TEXT_NS,
    expression_ns,
    text_of,
    texts_ns,
)
from packetcloud.router.rules.scanner_share import Good, ScannerLoad, Share
from packetcloud.router.settings import RuleSettings
from tests.unit.router.rules.keeping import POLICY, Kept, head
from tests.unit.router.rules.rule_documents import ISP, STRANGER, TENANT, grant, rule_record

DEAR = [
    rb"[ab]*a[ab]{500}c{2}([ab]c){9}",
    rb"([ab]{0,9}a){28}c",
    rb"([ab]*a){100}c",
    rb"(a|b)*a(a|b){500}c",
    rb"(?:a[ab]{20}){9}b",
    rb"(a?b){40}",
]
USUAL = [
    rb"(\d{1,3}\.){3}\d{1,3}",
    rb"[\w.+-]+@[\w-]+\.[a-z]{2,}",
    rb"user=\w{3,20}&pass=\w{3,40}",
    rb"User-Agent: [^\r\n]*(curl|wget|python)",
    rb"AKIA[0-9A-Z]{16}",
    rb"\d{4}[- ]?\d{4}[- ]?\d{4}[- ]?\d{4}",
    rb"-----BEGIN (RSA|EC|DSA) PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", DEAR)
def test_a_dear_expression_is_refused_with_its_cost(text: bytes) -> None:
    """The refusal names what it may cost, what is allowed and what would do."""
    refusal = check_pattern(Pattern(text, is_regex=True))
    assert refusal is not None
    assert f"{expression_ns(parse(text))} ns" in refusal
    assert f"allowed: {MAX_EXPRESSION_NS}" in refusal and "write more fixed text" in refusal


@pytest.mark.parametrize("text", USUAL)
def test_usual_expressions_are_taken(text: bytes) -> None:
    """What people look for in payloads is not dear."""
    assert check_pattern(Pattern(text, is_regex=True)) is None


@pytest.mark.parametrize(
    ("text", "cost_ns"),
    [
        (rb"[ab]c", STOP_NS + POSITION_NS),
        (rb"[ab]{63}c", STOP_NS + POSITION_NS),
        (rb"[ab]{64}c", STOP_NS + 2 * POSITION_NS),
        (rb"([ab]c){5}", STOP_NS + 10 * POSITION_NS),
        (rb"([ab]c){2,5}", STOP_NS + 10 * POSITION_NS),
        (rb"([ab]c)*d", STOP_NS + 2 * POSITION_NS),
        (rb"cdefg[ab]", STOP_NS // 5 + POSITION_NS),
        (rb"ccccc[ab]", STOP_NS + POSITION_NS),
        (rb"cde.cdefg", STOP_NS // 5 + POSITION_NS),
        (rb"cdefg|[ab]", STOP_NS + POSITION_NS),
        (rb"^[ab]c", POSITION_NS),
    ],
)
def test_the_cost_counts_places_and_positions(text: bytes, cost_ns: int) -> None:
    """One byte without fixed text is a place, repeats of one set are one position."""
    assert expression_ns(parse(text)) == cost_ns


def test_texts_are_told_from_expressions() -> None:
    """Letters in either case are text, and so are texts that are repeated."""
    assert text_of(literal(b"AbC", ignore_case=True)) == b"abc"
    assert text_of(parse(b"(ab){2}c")) == b"ababc"
    for other in (b"^ab", b"ab|cd", b"a[bc]", b"a{2,3}"):
        assert text_of(parse(other)) is None


@pytest.mark.parametrize(
    ("texts", "alike"),
    [
        ([], 0),
        ([b"one", b"two", b"three"], 1),
        ([b"exe", b".exe", b"cmd.exe", b"two"], 3),
        ([b"a" * number for number in range(1, 31)], 30),
        ([b"xx12345678", b"yy12345678", b"12345678", b"z2345678"], 3),
    ],
)
def test_texts_cost_by_how_many_end_alike(texts: list[bytes], alike: int) -> None:
    """Others cannot stand at the same place; only the last eight bytes tell them apart."""
    assert texts_ns(texts) == texts_ns(reversed(texts)) == TEXT_NS * alike


def test_a_range_that_takes_a_scan_of_its_own_costs_twice() -> None:
    """A start costs nothing where the length is fixed."""
    once, twice, fixed = (
        demand_of(Pattern(text, True, start=start))
        for text, start in ((b"word.*x", 0), (b"word.*x", 9), (b"word.x", 9))
    )
    assert twice.expression_ns == 2 * once.expression_ns
    assert (once.late_start, twice.late_start, fixed.late_start) == (0, 9, 0)


def test_a_load_adds_up() -> None:
    """Patterns, those without a word, starts; costs of expressions, and of texts together."""
    load = ScannerLoad([Demand(b"one", 0, False, 0), Demand(None, 7, True, 5)])
    more = [Demand(b"one", 0, False, 5), Demand(None, 8, False, 6)]
    before = [load.with_more(good) for good in Good]
    assert before == [2, 1, 1, TEXT_NS + 7]
    expected = [4, 1, 2, 2 * TEXT_NS + 15]
    assert [load.with_more(good, more) for good in Good] == expected
    assert [load.with_more(good) for good in Good] == before
    load.add(more)
    assert [load.with_more(good) for good in Good] == expected


def test_a_share_without_a_limit_refuses_nothing() -> None:
    assert Share("anybody's", {}).problem(Good.SCAN, 10**9) is None


def _install(kept: Kept, number: int, signer: Identity, *patterns: object) -> str:
    """Install one rule in a set of its own; return why it was refused."""
    (item,) = kept.install(
        rule_record(name="r", patterns=list(patterns), destination=signer.guid.hex),
        head=head(f"set{number}"),
        signer=signer,
    )["outcome"]["items"]
    detail: str = item["detail"]
    return detail


@pytest.fixture
def kept(tmp_path: Path) -> object:
    keeper = Kept(tmp_path)
    yield keeper
    keeper.close()


def test_texts_that_end_alike_are_few_of_one_third_party(kept: Kept) -> None:
    """Two hundred texts of one letter each would stop a scan two hundred times at each byte."""
    texts = [{"text": "a" * number} for number in range(1, 17)]
    refusal = _install(kept, 1, TENANT, *texts)
    assert "640 ns" in refusal and "allowed: 200 ([rules] max_signer_scan_ns)" in refusal
    assert _install(kept, 2, ISP, *texts) == ""
    assert _install(kept, 3, TENANT, *({"text": f"word{number:02}"} for number in range(16))) == ""


def test_one_third_party_leaves_the_rare_goods_of_the_scanner_to_others(kept: Kept) -> None:
    """However many rules it has; the refusal says whose limit it is, and the ISP has its own."""
    wordless = [{"regex": f"[a-{letter}]x"} for letter in "cdef"]
    refusal = _install(kept, 1, TENANT, *wordless)
    assert "4 patterns without 2 fixed bytes" in refusal and "of this signer" in refusal
    starts = [{"regex": "word.*x", "from": number} for number in (1, 2)]
    refusal = _install(kept, 2, TENANT, *starts)
    assert "2 different starts" in refusal and "of this signer" in refusal
    for signer in (TENANT, STRANGER):
        assert _install(kept, 3, signer, *wordless[:2]) == ""
        assert _install(kept, 4, signer, starts[0]) == ""
    assert _install(kept, 5, ISP, *wordless) == ""
    assert _install(kept, 6, ISP, *starts) == ""


def test_third_parties_together_leave_room_to_the_isp(tmp_path: Path) -> None:
    """What each may have is not there for all of them."""
    settings = RuleSettings(frozenset({ISP.guid}), max_patterns=6, max_third_party_patterns=3)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))
    texts = [{"text": f"word{number}"} for number in range(6)]
    assert _install(kept, 1, TENANT, *texts[:2]) == ""
    refusal = _install(kept, 1, STRANGER, *texts[2:4])
    assert "4 different patterns in the rules of all third parties" in refusal
    assert "allowed: 3 ([rules] max_third_party_patterns)" in refusal
    assert _install(kept, 1, ISP, *texts[2:]) == ""
    kept.close()


def test_patterns_of_rules_that_went_cost_nothing(kept: Kept) -> None:
    """Whoever installs and withdraws in turn uses nothing up, also of what there is few of."""
    for serial in range(1, 41):
        first, second = ({"regex": f"[{serial % 10}-{one}]x{serial}"} for one in "bc")
        answer = kept.install(
            rule_record(name="r", patterns=[first, second] if serial % 2 else None),
            head=head(serial=serial),
            signer=TENANT,
            grants=[grant()],
        )
        assert answer["outcome"]["accepted"] == 1, answer
    assert len(kept.keeper.store.patterns()) <= 4
    payload = b"-3x39-"
    kept.install(
        rule_record(name="again", patterns={"regex": r"[9-b]x39"}, priority=9),
        head=head("other"),
    )
    assert kept.names_for(payload=payload) == {"r"}
    assert kept.names_for(payload=b"-ax39-") == {"again"}
