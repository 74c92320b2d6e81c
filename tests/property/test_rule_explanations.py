"""An explanation agrees with the data plane, whatever the rules, the chunk and the router's state.

PACKETCLOUD_EXPLAIN_PAIRS sets how many pairs of a set of rules and a chunk are tried: 20 chunks for
each set.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from packetcloud.chunk.hop.api import Refusal
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.custody import Custody
from packetcloud.router.explanation import AskedChunk, explain_visit, question_of
from packetcloud.router.rules.explain import RulesExplained, explain_rules
from packetcloud.router.rules.explain_schemas import Explanation
from packetcloud.router.rules.judge import judge
from packetcloud.router.rules.patterns import compile_scanner, finds
from packetcloud.router.rules.rule import (
    MAX_SIZE_BYTES,
    Action,
    Direction,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Rule,
)
from packetcloud.router.rules.segment import Segment, load_segment
from packetcloud.router.rules.segment_writer import write_segment
from packetcloud.router.rules.table import Table
from packetcloud.router.rules.table_numbers import numbers_of
from packetcloud.router.settings import FailPolicy
from tests.unit.router.router_fakes import (
    OTHER_ROUTER,
    A,
    B,
    C,
    FakeBody,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    U,
    chunk,
    guid,
    service,
    settings,
    sid,
)

PAIRS = int(os.environ.get("PACKETCLOUD_EXPLAIN_PAIRS", "400"))
CHUNKS_COUNT = 20
SECRET = bytes(range(32))
FAR = guid("f")
"""A host behind the other router."""
ABSENT = sid("x")
"""A service that is nowhere."""
NAMES = [A.value, B.value, C.value, FAR.value]
PATTERNS = [Pattern(b"x"), Pattern(b"y+z", is_regex=True), Pattern(b"zz", start=1)]
IDS = {pattern: number for number, pattern in enumerate(PATTERNS)}
WALL_S = 1_700_000_000.0


def some(values: list[Any]) -> st.SearchStrategy[frozenset[Any]]:
    """No condition in half of the cases; else one value or two."""
    return st.one_of(
        st.just(frozenset()), st.frozensets(st.sampled_from(values), min_size=1, max_size=2)
    )


RULES = st.builds(
    Rule,
    name=st.sampled_from(["one", "other"]),
    service=st.sampled_from([S, T, U, ABSENT]),
    match=st.builds(
        Match,
        sources=some(NAMES),
        destinations=some(NAMES),
        sids=some([bytes(20), S.value, T.value]),
        payload_types=some([0, 2]),
        ingress=some([A.value, OTHER_ROUTER.value]),
        size_min=st.sampled_from([0, 0, 0, 2]),
        size_max=st.sampled_from([MAX_SIZE_BYTES, MAX_SIZE_BYTES, 3]),
        patterns=st.one_of(
            st.just(()), st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True).map(tuple)
        ),
        needs_all_patterns=st.booleans(),
        direction=st.sampled_from(Direction),
    ),
    action=st.sampled_from([Action.VISIT, Action.VISIT, Action.PASS]),
    mode=st.sampled_from([Mode.ACTIVE, Mode.ACTIVE, Mode.SHADOW]),
    priority=st.integers(-1, 1),
    valid_from_s=st.sampled_from([-1.0, -1.0, WALL_S + 100]),
    valid_until_s=st.sampled_from([WALL_S * 2, WALL_S * 2, WALL_S]),
    if_absent=st.sampled_from([IfAbsent.SKIP, IfAbsent.SKIP, IfAbsent.REFUSE]),
)
CHUNKS = st.fixed_dictionaries(
    {
        "ingress": st.sampled_from([A, A, B, OTHER_ROUTER]),
        "source": st.sampled_from([A, A, B, C]),
        "destination": st.sampled_from([B, B, C, A, FAR, guid("n")]),
        "services": st.sampled_from([(), (), (S,), (U,), (ABSENT,), (S, T), (T, S), (S, S)]),
        "payload": st.text("xyzo", max_size=5).map(str.encode),
        "payload_type": st.sampled_from([0, 2]),
        "lifetime_ms": st.sampled_from([60_000, 60_000, 60_000, None, 0]),
        "hop_limit": st.sampled_from([32, 32, 0]),
    }
)


@cache
def scanner() -> Any:
    return compile_scanner(PATTERNS)


def network(policy: FailPolicy, with_vis: bool, is_far_away: bool) -> FakeNetwork:
    """A router with two hosts, one that is away, a further router, and three services: one with
    two VIs, one with one or none, one in its grace time or past it."""
    given = settings(
        service(S, priority=1),
        service(T, priority=2, fail_policy=policy, grace_s=5.0),
        service(U, grace_s=5.0, fail_policy=policy),
        names={FAR: NA(2), SID(ABSENT.value): NA(9)},
        max_payload_bytes=4,
    )
    net = FakeNetwork(given)
    for name in (A, B, C):
        net.host(name)
    if not is_far_away:
        net.router()
    net.vi(S)
    net.vi(S)
    if with_vis:
        net.vi(T)
    else:
        net.pass_time(6.0)
    for attachment in net.core.attachments:
        if attachment.guid == C:
            assert isinstance(attachment.neighbour, FakeNeighbour)
            attachment.neighbour.go_down()
            break
    net.disk.wall_ms = int(WALL_S * 1000)
    return net


@hypothesis_settings(max_examples=max(1, PAIRS // CHUNKS_COUNT), deadline=None)
@given(
    drawn=st.lists(st.tuples(RULES, st.booleans()), max_size=12),
    chunks=st.lists(CHUNKS, min_size=CHUNKS_COUNT, max_size=CHUNKS_COUNT),
    policy=st.sampled_from(FailPolicy),
    with_vis=st.booleans(),
    is_far_away=st.booleans(),
)
def test_an_explanation_agrees_with_the_data_plane(
    drawn: list[tuple[Rule, bool]],
    chunks: list[dict[str, Any]],
    policy: FailPolicy,
    with_vis: bool,
    is_far_away: bool,
) -> None:
    """The same rules decide, the same services are visited, the same VI gets the chunk, and it is
    refused for the same reason; and asking leaves no trace."""
    rules = [
        InstalledRule(number, "set", bytes(20), is_own, rule)
        for number, (rule, is_own) in enumerate(drawn, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules")
        write_segment(path, rules, IDS, SECRET)
        segment = load_segment(path)
        net = network(policy, with_vis, is_far_away)
        net.core.install_rules(Table(1, [segment], scanner=scanner()))
        for number, fields in enumerate(chunks):
            check(net, rules, segment, fields, number)


def check(
    net: FakeNetwork,
    rules: list[InstalledRule],
    segment: Segment,
    fields: dict[str, Any],
    number: int,
) -> None:
    fields = dict(fields)
    ingress: GUID = fields.pop("ingress")
    attached = [one for one in net.core.attachments if one.guid == ingress]
    data = chunk(chunk_id=number, **fields)
    head_bytes = int.from_bytes(data[2:4], "big")
    asked = AskedChunk(data[:head_bytes], ingress, data[head_bytes:])
    before = trace(net)
    told = explain_visit(net.core, asked, net.now)
    assert trace(net) == before, "asking changes nothing"
    explained = explain_rules(rules, question_of(asked), WALL_S, finds)
    numbers = numbers_of([segment], question_of(asked))
    matching = judge(rules, question_of(asked), WALL_S, finds, with_shadow=True)
    for one in (*matching.winners.values(), *(one for one, _ in matching.shadowed)):
        assert one.number in numbers, "what matches stands under the names of the chunk"
    if not attached:
        assert any("not attached" in note for note in told.notes)
        return
    neighbour = attached[0].neighbour
    assert isinstance(neighbour, FakeNeighbour)
    body = FakeBody(data)
    answer = net.core.body_received(neighbour, BodyKind.CHUNK, body, net.now)
    if isinstance(answer, Refusal):
        assert told.refused == Reason(answer.reason).word
        return
    net.bodies.append(body)
    assert told.refused is None
    taken = [one for one in net.core.book.wheel if one.chunk_id.value == number]
    if taken:
        check_taken(taken[0], told, explained)


def check_taken(entry: Custody, told: Explanation, explained: RulesExplained) -> None:
    tally = entry.flow.tally
    active = {sid: one.number for sid, one in explained.winners.items()}
    would = {sid: one.number for sid, one in explained.shadow_winners.items()}
    assert set(tally.numbers if tally is not None else ()) == set(active.values())
    expected = {number for sid, number in would.items() if active.get(sid) != number}
    assert set(tally.shadow_numbers if tally is not None else ()) == expected
    assert [one.service for one in told.steps] == [
        step.service.sid.hex for step in entry.flow.steps
    ]
    assert told.beyond == (entry.flow.beyond.hex() if entry.flow.beyond is not None else None)
    visit = entry.visit
    step = visit.step_index if visit is not None else 0
    if visit is not None and visit.vi is not None and step == 0:
        assert told.steps[0].vi == visit.vi.number
    elif told.steps and step == 0:
        assert told.steps[0].vi is None
    if not told.steps and entry.next_hop is not None:
        assert entry.next_hop.name in told.next_hop
        assert ("away" in told.next_hop) == (entry.next_hop.attachment is None)


def trace(net: FakeNetwork) -> Any:
    core = net.core
    counts = core.rule_counts
    return (
        {name: value for name, value in vars(counts).items() if not name.startswith("_")},
        [counts.of(number) for number in range(1, 20)],
        core.door.flow_misses_count,
        [dict(one.flows) for one in core.attachments],
        core.door.refusals.copy(),
        net.sums,
    )


def test_an_explanation_says_what_a_chunk_without_payload_may_meet() -> None:
    """Without the payload no pattern is found, and the size that the header says still counts."""
    rule = Rule("r", S, Match(patterns=(Pattern(b"x"),), size_min=3))
    installed = [InstalledRule(1, "set", bytes(20), True, rule)]
    data = chunk(payload=b"xxx")
    asked = AskedChunk(data[: int.from_bytes(data[2:4], "big")], A)
    question = question_of(asked)
    assert len(question.payload) == 3
    found = explain_rules(installed, question, WALL_S, lambda pattern, payload: False)
    assert [one.miss for one in found.findings] == ["pattern"]
    shorter = replace(question, payload=b"xx")
    found = explain_rules(installed, shorter, WALL_S, finds)
    assert [one.miss for one in found.findings] == ["size"]
