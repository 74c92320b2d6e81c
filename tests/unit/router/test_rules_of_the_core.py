"""Arbitration: which services a chunk visits when rules, its own wish and other rules meet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from packetcloud.chunk.header import PayloadType, decode_header
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import NA, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router import flow as flow_module
from packetcloud.router import late_rules
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import plan_visit
from packetcloud.router.layout import HeaderLayout
from packetcloud.router.rules.rule import (
    Action,
    Direction,
    IfAbsent,
    InstalledRule,
    Match,
    Mode,
    Pattern,
    Rule,
)
from packetcloud.router.service_pool import Service
from packetcloud.router.settings import FailPolicy
from tests.unit.router.plain_table import PlainTable, installed, visiting
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeDisk,
    FakeNeighbour,
    FakeNetwork,
    S,
    T,
    U,
    chunk,
    guid,
    reason_of,
    service,
    settings,
)
from tests.unit.router.service_visits import emitted, only, reported, task_of
from tests.unit.router.spooling import spooled


def network(*services: SID) -> FakeNetwork:
    return FakeNetwork(settings(*map(service, services or (S, T, U))))


def visits(source: FakeNeighbour, data: bytes, *vis: FakeNeighbour) -> list[SID]:
    """Send a chunk; return the services that got it, each of which lets it go on."""
    assert source.chunk(data) is None
    order = []
    while turn := [vi for vi in vis if vi.unsettled]:
        vi = only(turn)
        order.append(SID(vi.guid.value))
        vi.verdict(task_of(vi))
    return order


# --- who wins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant_priority", [0, 1_000_000])
def test_a_tenants_pass_cannot_beat_the_isps_visit(tenant_priority: int) -> None:
    """Whatever its priority, a third party leads no chunk past what the ISP wants to see."""
    own = visiting(S)
    passing = Rule("p", S, action=Action.PASS, priority=tenant_priority)
    tenant = installed([passing], is_own=False, first=9)
    net = network()
    a, b, s = net.host(A), net.host(B), net.vi(S)
    net.core.install_rules(PlainTable([*tenant, *own]))
    assert visits(a, chunk(), s) == [S]
    assert [net.core.rule_counts.of(number) for number in (1, 9)] == [(1, 0), (0, 0)]
    # The other way round the same rules decide otherwise: the pass is not without effect.
    net.core.install_rules(
        PlainTable(installed([passing]) + installed([own[0].rule], is_own=False))
    )
    assert visits(a, chunk(), s) == []
    assert len(b.accept_all()) == 2
    net.check_idle()


def test_a_chunk_that_asks_gets_the_service_that_rules_pass_by() -> None:
    """A pass is about transparent visits: what the source asked for, it gets."""
    net = network()
    a, b, s = net.host(A), net.host(B), net.vi(S)
    net.core.install_rules(PlainTable(installed([Rule("p", S, action=Action.PASS)])))
    assert visits(a, chunk(services=(S,)), s) == [S]
    assert visits(a, chunk(), s) == []
    assert len(b.accept_all()) == 2
    net.check_idle()


def test_a_drop_by_a_transparent_service_ends_the_visit() -> None:
    """Nothing further runs, neither transparent nor asked for, and the source hears who it was."""
    net = FakeNetwork(settings(service(S, priority=2), service(T), service(U, priority=1)))
    a, b, s, t, u = net.host(A), net.host(B), net.vi(S), net.vi(T), net.vi(U)
    net.core.install_rules(PlainTable(visiting(S, U)))
    assert a.chunk(chunk(services=(T,))) is None
    s.verdict(task_of(s), VerdictCode.DROP, detail=b"no")
    assert not (t.unsettled or u.unsettled or b.unsettled)
    assert reported(a)[1:] == (Reason.DROPPED_BY_SERVICE, "no")
    net.check_idle()


@pytest.mark.parametrize("policy", FailPolicy)
def test_the_fail_policy_holds_for_transparent_services(policy: FailPolicy) -> None:
    """Without a VI a chunk goes past a fail-open service, and not past a fail-closed one."""
    net = FakeNetwork(settings(service(S, fail_policy=policy, grace_s=0.0)))
    a, b = net.host(A), net.host(B)
    net.core.install_rules(PlainTable(visiting(S)))
    refusal = reason_of(a.chunk(chunk()))
    if policy is FailPolicy.OPEN:
        assert refusal is None and len(b.accept_all()) == 1
    else:
        assert refusal is Reason.SERVICE_FAILED and not b.unsettled
    net.check_idle()


def test_a_rule_for_a_service_that_is_not_here_counts_and_has_no_step() -> None:
    """The chunk goes on, and the counts say that somebody expected otherwise."""
    net = network(S)
    a, b, s = net.host(A), net.host(B), net.vi(S)
    net.core.install_rules(PlainTable(visiting(T, S)))
    assert visits(a, chunk(), s) == [S]
    counts = net.core.rule_counts
    assert (counts.unhosted_count, counts.visits_count) == (1, 2)
    assert counts.of(1) == (1, 0)
    b.accept_all()
    net.check_idle()


def demanding(*services: SID) -> list[InstalledRule]:
    """Rules to visit services, or else to have the chunk refused."""
    return visiting(*services, if_absent=IfAbsent.REFUSE)


def test_a_rule_may_demand_its_service() -> None:
    """Where nobody knows it the chunk is refused at the door; where it is known the rule is as any
    other."""
    net = network(S)
    a, b, s = net.host(A), net.host(B), net.vi(S)
    net.core.install_rules(PlainTable(demanding(T, S)))
    assert reason_of(a.chunk(chunk())) is Reason.UNKNOWN_SID
    net.core.install_rules(PlainTable(demanding(S)))
    assert visits(a, chunk(), s) == [S]
    assert len(b.accept_all()) == 1
    net.check_idle()


@pytest.mark.parametrize("demands", [True, False])
def test_a_demand_holds_for_each_chunk_that_its_rule_matches(demands: bool) -> None:
    """A late rule of higher rank lets chunks past the service; only the others are refused."""
    net = network(S)
    a, b = net.host(A), net.host(B)
    net.vi(S)
    small = Rule("small", T, Match(size_max=3), Action.PASS, priority=1)
    leading = demanding(T) if demands else visiting(T)
    net.core.install_rules(PlainTable(leading + installed([small], first=2)))
    assert a.chunk(chunk(payload=b"abc")) is None
    refusal = a.chunk(chunk(payload=b"large", chunk_id=2))
    assert (refusal is not None) == demands
    assert len(b.accept_all()) == (1 if demands else 2)
    net.check_idle()


def test_what_has_run_is_not_demanded_again() -> None:
    """A chunk that comes back from disk has seen the service, though nobody knows it any more."""
    net = network(S)
    net.host(B)
    net.core.install_rules(PlainTable(demanding(T)))
    data = chunk()
    plan, header = net.core._planner.plan, decode_header(data)
    assert not plan(header, data, 0.0, executed=frozenset({T.value})).steps
    with pytest.raises(ChunkRefusedError, match=f"rule 1 demands service {T}"):
        plan(header, data, 0.0)


def test_both_directions_and_one_name_are_asked_for_as_they_stand_in_the_header() -> None:
    """The table hears source, destination, what is asked for next, type and ingress."""
    net = network()
    a, b = net.host(A), net.host(B)
    table = PlainTable(
        installed([Rule("r", S, Match(sources=frozenset({A.value}), direction=Direction.FORWARD))])
    )
    net.core.install_rules(table)
    s = net.vi(S)
    assert visits(a, chunk(payload_type=PayloadType.REPORT), s) == [S]
    assert visits(b, chunk(B, A), s) == []
    there, back = table.questions
    assert (there.source, there.destination, there.sid) == (A.value, B.value, bytes(20))
    assert (there.payload_type, there.ingress) == (PayloadType.REPORT, A.value)
    assert (back.source, back.ingress) == (B.value, B.value)


# --- versions ---------------------------------------------------------------------------------


def test_a_new_version_decides_from_the_next_chunk_on() -> None:
    """What is in custody goes on as decided; known flows are decided again, without emptying."""
    net = network()
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    net.core.install_rules(PlainTable(visiting(S, T), 1))
    assert a.chunk(chunk(chunk_id=1)) is None
    cache = net.core.attachments[0].flows
    known = dict(cache)
    net.core.install_rules(PlainTable(visiting(T), 2))
    assert cache == known, "installing costs the same however many flows there are"
    s.verdict(task_of(s))
    t.verdict(task_of(t))
    assert visits(a, chunk(chunk_id=2), s, t) == [T]
    net.core.install_rules(None)
    assert visits(a, chunk(chunk_id=3), s, t) == []
    assert [sent.header.chunk_id.value for sent in b.accept_all()] == [1, 2, 3]
    assert net.core.door.flow_misses_count == 3
    net.check_idle()


def test_rules_begin_and_end_by_the_wall_clock() -> None:
    """A rule holds from its first second to its last, for flows that were known before too."""
    net = network()
    a, b, s = net.host(A), net.host(B), net.vi(S)
    wall_s = net.disk.wall_ms / 1000
    table = PlainTable(visiting(S, valid_from_s=wall_s + 10, valid_until_s=wall_s + 20))
    net.core.install_rules(table)
    seen = []
    for _ in range(6):
        seen.append(visits(a, chunk(), s))
        net.pass_time(5)
    assert seen == [[], [], [S], [S], [], []]
    assert len(table.questions) == 3, "asked again where the validity turns, and nowhere else"
    b.accept_all()
    net.check_idle()


def test_a_wall_clock_that_was_set_is_noticed_within_a_minute() -> None:
    """The clock that decides about validity may step; what was computed from it does not stay."""
    net = network()
    a, s = net.host(A), net.vi(S)
    net.host(B)
    wall_s = net.disk.wall_ms / 1000
    net.core.install_rules(PlainTable(visiting(S, valid_until_s=wall_s + 86_400)))
    assert visits(a, chunk(), s) == [S]
    net.disk.wall_ms += 2 * 86_400_000
    net.pass_time(61)
    assert visits(a, chunk(), s) == []


# --- late rules -------------------------------------------------------------------------------


def test_a_rule_about_the_size_is_settled_for_each_chunk() -> None:
    """Chunks of one flow part where a size says so; nothing is scanned, and the flow is kept."""
    net = network()
    a, b, s = net.host(A), net.host(B), net.vi(S)
    net.core.install_rules(PlainTable(visiting(S, match=Match(size_min=3, size_max=5))))
    seen = [visits(a, chunk(payload=bytes(size)), s) for size in (2, 3, 5, 6, 3)]
    assert seen == [[], [S], [S], [], [S]]
    assert net.core.door.flow_misses_count == 1
    counts = net.core.rule_counts
    assert (counts.visits_count, counts.scanned_count) == (3, 0)
    assert len(b.accept_all()) == 5
    net.check_idle()


def test_payloads_are_scanned_for_flows_whose_rules_have_patterns_only() -> None:
    """One scan for all patterns; a flow that no pattern can matter to is not looked at."""
    net = network()
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    to_b = Match(
        destinations=frozenset({B.value}), patterns=(Pattern(b"bad"),), direction=Direction.FORWARD
    )
    both = Match(
        destinations=to_b.destinations,
        patterns=(Pattern(b"x+y", is_regex=True), Pattern(b"bad")),
        needs_all_patterns=True,
    )
    net.core.install_rules(PlainTable(installed([Rule("1", S, to_b), Rule("2", T, both)])))
    assert visits(a, chunk(payload=b"good"), s, t) == []
    assert visits(a, chunk(payload=b"too bad"), s, t) == [S]
    assert visits(a, chunk(payload=b"bad xxy"), s, t) == [S, T]
    counts = net.core.rule_counts
    assert (counts.scanned_count, counts.scanned_bytes) == (3, 18)
    c = net.host(C)
    assert visits(a, chunk(destination=C, payload=b"bad xxy"), s, t) == []
    assert counts.scanned_count == 3
    assert len(b.accept_all()) + len(c.accept_all()) == 4
    net.check_idle()


def test_a_late_rule_of_higher_rank_hides_the_rule_below_it_where_it_holds() -> None:
    """A pass for small chunks takes nothing from the visit of the others."""
    net = network()
    a, s = net.host(A), net.vi(S)
    net.host(B)
    rules = [
        Rule("small", S, Match(size_max=3), action=Action.PASS, priority=1),
        Rule("all", S),
    ]
    net.core.install_rules(PlainTable(installed(rules)))
    assert visits(a, chunk(payload=b"123"), s) == []
    assert visits(a, chunk(payload=b"1234"), s) == [S]
    assert [net.core.rule_counts.of(number)[0] for number in (1, 2)] == [1, 1]


def test_a_chunk_without_a_way_is_refused_unless_a_late_rule_leads_to_a_service() -> None:
    """The refusal is for the chunk, not for its flow: a service may redirect the next one."""
    net = network()
    a, c, s = net.host(A), net.host(C), net.vi(S)
    net.core.install_rules(PlainTable(visiting(S, match=Match(size_min=4))))
    nowhere = guid("v")
    assert reason_of(a.chunk(chunk(destination=nowhere, payload=b"1"))) is Reason.UNRESOLVABLE_GUID
    assert a.chunk(chunk(destination=nowhere, payload=b"1234")) is None
    s.verdict(task_of(s), VerdictCode.REDIRECT, detail=C.value + NA(0).to_bytes())
    assert len(c.accept_all()) == 1
    assert net.core.door.flow_misses_count == 1
    net.check_idle()


def test_kinds_of_chunks_of_a_flow_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap all kinds are remembered; the next one empties the memory and nothing else."""
    monkeypatch.setattr(late_rules, "MAX_KINDS_COUNT", 4)
    net = network()
    a, s = net.host(A), net.vi(S)
    net.host(B)
    rules = [Rule(str(n), S, Match(size_min=n, size_max=n)) for n in range(1, 6)]
    net.core.install_rules(PlainTable(installed(rules)))
    sizes_seen = []
    for size in range(1, 6):
        assert visits(a, chunk(payload=bytes(size)), s) == [S]
        late = only(list(net.core.attachments[0].flows.values())).late
        assert late is not None
        sizes_seen.append(len(late.flows))
    assert sizes_seen == [1, 2, 3, 4, 1]


def test_services_of_one_visit_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visit with one service too many is refused, not cut short."""
    monkeypatch.setattr(flow_module, "MAX_VISIT_COUNT", 2)
    net = network()
    a, s, t = net.host(A), net.vi(S), net.vi(T)
    net.host(B)
    net.core.install_rules(PlainTable(visiting(S, T)))
    assert visits(a, chunk(), s, t) == [S, T]
    net.core.install_rules(PlainTable(visiting(S, T, U)))
    assert reason_of(a.chunk(chunk())) is Reason.UNSUPPORTED


# --- chunks that are made here, or changed ----------------------------------------------------


def test_what_a_service_emits_meets_the_rules_but_never_its_makers() -> None:
    """It was made here: it has no ingress, and whoever had a part in it does not see it again."""
    net = network()
    a, b, c = net.host(A), net.host(B), net.host(C)
    s, t = net.vi(S), net.vi(T)
    found = Match(patterns=(Pattern(b"made"),))
    table = PlainTable(
        [
            *visiting(S, T, match=found),
            *installed([Rule("a", U, Match(ingress={A.value}))], first=7),
        ]
    )
    net.core.install_rules(table)
    assert a.chunk(chunk(services=(S,))) is None
    s.verdict(task_of(s), VerdictCode.EMIT, emitted(payload=b"made") + emitted(), emit_count=2)
    assert [sent.payload for sent in t.accept_all()] == [b"made", b"made"]
    assert not s.unsettled and not b.unsettled
    assert table.questions[-1].ingress == b"" and table.questions[-1].source == S.value
    net.core.give_up_all()
    assert not c.unsettled


def test_a_redirected_chunk_meets_the_rules_of_its_new_destination() -> None:
    """It came from where it came from, and what has run does not run again."""
    net = network()
    a, c, s, t = net.host(A), net.host(C), net.vi(S), net.vi(T)
    net.host(B)
    to_c = Match(destinations=frozenset({C.value}), ingress=frozenset({A.value}))
    rules = [*visiting(S), *installed([Rule("c", T, to_c)], first=5)]
    net.core.install_rules(PlainTable(rules))
    assert a.chunk(chunk(services=(S,))) is None
    s.verdict(task_of(s), VerdictCode.REDIRECT, detail=C.value + NA(0).to_bytes())
    t.verdict(task_of(t))
    assert not s.unsettled
    counts = net.core.rule_counts
    assert [counts.of(number) for number in (1, 5)] == [(1, 0), (1, 0)], "each counted once"
    header = only(c.accept_all()).header
    assert (header.destination, header.sid.is_zero) == (C, True)


def test_a_redirected_chunk_may_still_ask_for_what_ran_as_a_transparent_service() -> None:
    """It ran in this visit, so that counts, and the header says so to routers behind this one."""
    net = FakeNetwork(settings(service(S, priority=1), service(T, priority=9)))
    a, c, s, t = net.host(A), net.host(C), net.vi(S), net.vi(T)
    net.host(B)
    net.core.install_rules(PlainTable(visiting(T)))
    assert a.chunk(chunk(services=(S, T))) is None
    t.verdict(task_of(t), VerdictCode.REDIRECT, detail=C.value + NA(0).to_bytes())
    s.verdict(task_of(s))
    sequence = only(c.accept_all()).header.sequence
    assert sequence is not None and sequence.cursor == 2
    assert not t.unsettled
    net.check_idle()


@pytest.mark.parametrize("durable", [False, True])
def test_what_has_run_does_not_run_again_after_a_restart(durable: bool) -> None:
    """A spilled chunk carries what ran and whence it came; a durable one starts its visit anew,
    with the payload as it had come in."""
    from_a = Match(ingress=frozenset({A.value}))
    rules = PlainTable(visiting(T, match=from_a))
    disk = FakeDisk()
    given = spooled(durable=durable, memory_bytes=0)
    given = replace(given, services=(*given.services, service(T)))
    net = FakeNetwork(given, disk=disk)
    net.core.install_rules(rules)
    a, t = net.host(A), net.vi(T)
    net.host(B).go_down()
    a.chunk(chunk())
    net.disk_turns()
    t.verdict(task_of(t))
    net.disk_turns()
    assert net.core.spool.count == net.sums["held"] == 1
    net = FakeNetwork(given, disk=disk)
    net.core.install_rules(rules)
    b, t = net.host(B), net.vi(T)
    net.disk_turns()
    assert len(t.unsettled) == durable
    for task in t.accept_all():
        t.verdict(task)
    net.disk_turns()
    assert only(b.accept_all()).payload == b"payload"
    assert [one.ingress for one in rules.questions if one.ingress not in (A.value, b"")] == []
    assert rules.questions[-1].ingress == A.value
    net.disk_turns()
    net.check_idle()


def test_found_chunks_that_wait_for_memory_meet_the_rules_of_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their way was open under the rules of before; they start by those in force."""
    disk = FakeDisk()
    given = spooled(memory_bytes=0)
    net = FakeNetwork(given, disk=disk)
    a = net.host(A)
    net.host(B).go_down()
    a.chunk(chunk())
    net.disk_turns()
    net = FakeNetwork(given, disk=disk)
    s = net.vi(S)
    monkeypatch.setattr(net.core.book, "may_read", lambda size: False)
    b = net.host(B)
    net.disk_turns()
    net.core.install_rules(PlainTable(visiting(S)))
    monkeypatch.undo()
    net.pass_time(1)
    net.disk_turns()
    assert not b.unsettled
    s.verdict(task_of(s))
    assert len(b.accept_all()) == 1


def test_what_ran_before_the_steps_were_decided_counts_as_asked_for() -> None:
    """The header says that it ran before the first step; a maker may not be asked for."""
    hosted = {name: Service(service(name), True, 0.0) for name in (S, T)}
    head = chunk(services=(S, T))
    header, layout = decode_header(head), HeaderLayout.of(head)
    plan = plan_visit(header, layout, (), hosted.get, executed=frozenset({S.value}))
    assert [step.service.sid for step in plan.steps] == [T]
    assert plan.patches == ((layout.cursor_offset, b"\1"),)
    assert plan.steps[0].patches == ((layout.cursor_offset, b"\2"),)
    with pytest.raises(ChunkRefusedError):
        plan_visit(header, layout, (), hosted.get, makers=frozenset({S.value}))


# --- counts -----------------------------------------------------------------------------------


def test_shadow_rules_count_what_they_would_do_and_do_nothing() -> None:
    """A visit more, a visit less, and a rule that changes nothing: each seen, none felt."""
    net = network()
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    rules = [
        Rule("s", S),
        Rule("not s", S, action=Action.PASS, mode=Mode.SHADOW, priority=1),
        Rule("t", T, Match(size_min=5), mode=Mode.SHADOW),
        Rule("s again", S, mode=Mode.SHADOW, priority=-1),
    ]
    net.core.install_rules(PlainTable(installed(rules)))
    assert visits(a, chunk(payload=b"1"), s, t) == [S]
    assert visits(a, chunk(payload=b"12345"), s, t) == [S]
    counts = net.core.rule_counts
    assert [counts.of(number) for number in (1, 2, 3, 4)] == [(2, 0), (0, 2), (0, 1), (0, 0)]
    assert (counts.visits_count, counts.passes_count) == (2, 0)
    assert (counts.shadow_visits_count, counts.shadow_passes_count) == (1, 2)
    assert counts.would_differ_count == 2
    b.accept_all()
    net.check_idle()


def test_a_shadow_rule_that_changes_nothing_makes_no_difference() -> None:
    """It wins, and the services stay the same: counted by rule, not as a difference."""
    net = network()
    a, s = net.host(A), net.vi(S)
    net.host(B)
    rules = [Rule("s", S), Rule("too", S, mode=Mode.SHADOW, priority=1)]
    net.core.install_rules(PlainTable(installed(rules)))
    assert visits(a, chunk(), s) == [S]
    counts = net.core.rule_counts
    assert (counts.of(2), counts.would_differ_count) == ((0, 1), 0)


def test_a_chunk_that_is_refused_at_the_door_is_not_counted() -> None:
    """Its neighbour has it still, and will offer it again."""
    net = FakeNetwork(settings(service(S, grace_s=0.0)))
    a = net.host(A)
    net.host(B)
    net.core.install_rules(PlainTable(visiting(S)))
    assert reason_of(a.chunk(chunk())) is Reason.SERVICE_FAILED
    assert net.core.rule_counts.of(1) == (0, 0)


def test_a_withdrawn_rule_is_counted_from_zero_when_it_is_forgotten() -> None:
    """Counts outlive versions, until whoever withdrew a rule says that it is gone."""
    net = network()
    a, s, t = net.host(A), net.vi(S), net.vi(T)
    net.host(B)
    counts = net.core.rule_counts
    for version in (1, 2):
        net.core.install_rules(PlainTable(visiting(S, T), version))
        assert visits(a, chunk(), s, t) == [S, T]
    assert [counts.of(number) for number in (1, 2)] == [(2, 0), (2, 0)]
    for one in counts.by_number:
        one.keep_only(0, bytes([1 << 2]) + bytes(31))
    assert [counts.of(number) for number in (1, 2)] == [(0, 0), (2, 0)]
