"""The table of rules answers as `judge` does, whatever the rules, their segments and the chunk.

PACKETCLOUD_RULE_EXAMPLES sets how many sets of rules are tried, each with 20 chunks.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.chunk.names import SID
from packetcloud.router.rules.answer import Answer, Contest
from packetcloud.router.rules.judge import first_miss, judge
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    Action,
    Direction,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Question,
    Rule,
)
from packetcloud.router.rules.segment import load_segment
from packetcloud.router.rules.segment_writer import merge_segments, write_segment
from packetcloud.router.rules.table import Table

EXAMPLES = int(os.environ.get("PACKETCLOUD_RULE_EXAMPLES", "60"))
SECRET = bytes(range(32))
NAMES = [bytes([letter]) * 20 for letter in b"abc"]
SIDS = [bytes(20), b"s" * 20, b"t" * 20]
SERVICES = [SID(b"A" * 20), SID(b"B" * 20)]
PATTERNS = [Pattern(b"x"), Pattern(b"yy"), Pattern(b"z")]
IDS = {pattern: 10 + index for index, pattern in enumerate(PATTERNS)}
TIMES = [5.0, 10.0, 15.0, 20.0, 25.0]


def some(values: Iterable[object]) -> st.SearchStrategy[frozenset[object]]:
    """No condition in half of the cases; else one value or several."""
    return st.one_of(
        st.just(frozenset()), st.frozensets(st.sampled_from(list(values)), min_size=1, max_size=3)
    )


MATCHES = st.builds(
    Match,
    sources=some(NAMES),
    destinations=some(NAMES),
    sids=some(SIDS),
    payload_types=some([0, 1, 2]),
    ingress=some([*NAMES, b""]),
    size_min=st.sampled_from([0, 0, 0, 2, 3]),
    size_max=st.sampled_from([MAX_SIZE_BYTES, MAX_SIZE_BYTES, 3, 4]),
    patterns=st.one_of(
        st.just(()), st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True).map(tuple)
    ),
    needs_all_patterns=st.booleans(),
    direction=st.sampled_from(Direction),
)
RULES = st.builds(
    Rule,
    name=st.just("rule"),
    service=st.sampled_from(SERVICES),
    match=MATCHES,
    action=st.sampled_from(Action),
    mode=st.sampled_from([Mode.ACTIVE, Mode.ACTIVE, Mode.SHADOW]),
    priority=st.integers(-1, 1),
    valid_from_s=st.sampled_from([-math.inf, -math.inf, 10.0]),
    valid_until_s=st.sampled_from([math.inf, math.inf, 20.0]),
    if_absent=st.sampled_from(IfAbsent),
)
QUESTIONS = st.builds(
    Question,
    source=st.sampled_from(NAMES),
    destination=st.sampled_from(NAMES),
    sid=st.sampled_from(SIDS),
    payload_type=st.integers(0, 2),
    ingress=st.sampled_from([*NAMES, b""]),
    payload=st.text("xyzo", max_size=5).map(str.encode),
)


def finds(pattern: Pattern, payload: bytes) -> bool:
    return pattern.expression in payload


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_a_table_answers_as_the_judge_does(data: st.DataObject) -> None:
    """Several segments, one merged from two, less what is withdrawn: the same winners."""
    drawn = data.draw(st.lists(st.tuples(RULES, st.booleans(), st.integers(0, 3)), max_size=12))
    rules = [
        (InstalledRule(100 + index, "set", b"g" * 20, is_own, rule), segment)
        for index, (rule, is_own, segment) in enumerate(drawn)
    ]
    withdrawn = data.draw(st.sets(st.sampled_from(range(100, 112)), max_size=3))
    is_merged_without = data.draw(st.booleans())
    in_force = [one for one, _ in rules if one.number not in withdrawn]
    with tempfile.TemporaryDirectory() as folder:
        segments = []
        for segment in range(4):
            path = Path(folder, f"{segment}")
            write_segment(path, [one for one, place in rules if place == segment], IDS, SECRET)
            segments.append(load_segment(path))
        merged = Path(folder, "merged")
        merge_segments(merged, segments[:2], withdrawn if is_merged_without else ())
        table = Table(7, [load_segment(merged), *segments[2:]], withdrawn)
        for question in data.draw(st.lists(QUESTIONS, min_size=20, max_size=20)):
            for now_s in TIMES:
                check(table, in_force, question, now_s)


def check(table: Table, rules: list[InstalledRule], question: Question, now_s: float) -> None:
    answer = ask(table, question, now_s)
    assert answer.version == table.version
    judged = judge(rules, question, now_s, finds).winners
    with_shadow = judge(rules, question, now_s, finds, with_shadow=True).winners
    assert winners(answer.contests, question) == numbers(judged)
    refusing = {one.number for one in rules if one.rule.if_absent is IfAbsent.REFUSE}
    contenders = [one for contest in answer.contests for one in contest.contenders]
    assert all(one.refuses_absent == (one.number in refusing) for one in contenders)
    if answer.shadow_contests:
        assert winners(answer.shadow_contests, question) == numbers(with_shadow)
        contenders = [one for contest in answer.shadow_contests for one in contest.contenders]
        shadow = {one.number for one in rules if one.rule.mode is Mode.SHADOW}
        assert shadow & {one.number for one in contenders}
    else:
        assert with_shadow == judged
    assert answer.until_s > now_s
    assert answer.until_s <= nearest_boundary(rules, question, now_s)


def ask(table: Table, question: Question, now_s: float) -> Answer:
    return table.ask(
        question.source,
        question.destination,
        question.sid,
        question.payload_type,
        question.ingress,
        now_s,
    )


def winners(contests: Iterable[Contest], question: Question) -> dict[bytes, int]:
    found = {IDS[pattern] for pattern in PATTERNS if finds(pattern, question.payload)}
    settled = {one.sid: one.winner(len(question.payload), found) for one in contests}
    return {sid: winner.number for sid, winner in settled.items() if winner is not None}


def numbers(judged: dict[bytes, InstalledRule]) -> dict[bytes, int]:
    return {sid: winner.number for sid, winner in judged.items()}


def nearest_boundary(rules: list[InstalledRule], question: Question, now_s: float) -> float:
    """The next moment at which a rule that matches the flow begins or ends to be valid."""
    boundaries = [math.inf]
    for one in rules:
        match = replace(one.rule.match, size_min=0, size_max=MAX_SIZE_BYTES, patterns=())
        flow_rule = replace(
            one, rule=replace(one.rule, match=match, valid_from_s=-math.inf, valid_until_s=math.inf)
        )
        if first_miss(flow_rule, question, now_s, finds) is None and (
            one.rule.valid_from_s < one.rule.valid_until_s
        ):
            boundaries += [one.rule.valid_from_s, one.rule.valid_until_s]
    return min(one for one in boundaries if one > now_s)
