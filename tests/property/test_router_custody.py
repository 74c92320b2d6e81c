"""The router's promise under random events: nothing lost, nothing doubled, the sum always holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.hop.api import Role, Settlement
from packetcloud.chunk.messages import BodyKind, VerdictCode
from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.settings import FailPolicy
from tests.unit.router.router_fakes import (
    OTHER_ROUTER,
    ROUTER_NA,
    A,
    B,
    FakeNeighbour,
    FakeNetwork,
    S,
    Sent,
    T,
    chunk,
    reports_in,
    service,
    settings,
)

SERVICES = ((), (S,), (T,), (S, T), (T, S))
D = GUID(b"d" * 20)
"""A host behind the neighbour router."""

step = st.one_of(
    st.tuples(st.just("chunk"), st.sampled_from(SERVICES), st.sampled_from([B, B, D])),
    st.tuples(st.just("settle"), st.integers(0, 99), st.sampled_from(["yes"] * 6 + ["no"])),
    st.tuples(
        st.just("verdict"),
        st.integers(0, 99),
        st.sampled_from(["forward", "update", "update", "failed", "drop"]),
    ),
    st.tuples(st.just("crash"), st.sampled_from("STBQ"), st.integers(0, 9)),
    st.tuples(st.just("attach"), st.sampled_from("STBQ"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.1, 5.0]), st.just(0)),
    st.tuples(st.just("end_turn"), st.just(0), st.just(0)),
)


class Run:
    """One network with hosts A and B, a router Q towards host D, and services S and T."""

    def __init__(self, policy: FailPolicy) -> None:
        self.net = FakeNetwork(
            settings(
                service(S, deadline_ms=1000, grace_s=3.0, fail_policy=policy),
                service(T, deadline_ms=1000, grace_s=3.0),
                names={D: NA(2)},
                vi_window_count=2,
                detached_hold_s=10.0,
                store_bytes=20 * 300,
            )
        )
        self.a = self.net.host(A)
        self.neighbours: dict[str, list[FakeNeighbour]] = {name: [] for name in "STBQ"}
        for name in "SSTBQ":
            self.attach(name)
        self.sent_ids: list[int] = []
        """Of the chunks that the router took."""
        self.ended = Counter[int]()
        """Ends that a chunk had: accepted by B or Q, or told to A."""
        self.payloads: dict[int, bytes] = {}

    def attach(self, name: str) -> None:
        guid, role = {
            "S": (GUID(S.value), Role.SERVICE),
            "T": (GUID(T.value), Role.SERVICE),
            "B": (B, Role.HOST),
            "Q": (OTHER_ROUTER, Role.ROUTER),
        }[name]
        if name in "BQ" and self.neighbours[name]:
            return
        self.neighbours[name].append(self.net.attach(guid, role))

    def all_neighbours(self) -> list[FakeNeighbour]:
        return [one for group in self.neighbours.values() for one in group]

    def send(self, services: tuple[SID, ...], destination: GUID) -> None:
        number = 1000 + len(self.sent_ids)
        data = chunk(A, destination, b"0", services, number, lifetime_ms=20_000)
        if self.a.chunk(data) is None:
            self.sent_ids.append(number)

    def settle(self, pick: int, how: str) -> None:
        waiting = [(one, sent) for one in self.all_neighbours() for sent in one.unsettled]
        if not waiting:
            return
        neighbour, sent = waiting[pick % len(waiting)]
        number = sent.header.chunk_id.value
        if how == "no":
            neighbour.settle(sent, Settlement.REFUSED, Reason.RECEIVER_REFUSED)
            return
        if neighbour.role is not Role.SERVICE:
            self.ended[number] += 1
            self.payloads[number] = sent.payload
        neighbour.settle(sent)

    def verdict(self, pick: int, what: str) -> None:
        vis = self.neighbours["S"] + self.neighbours["T"]
        tasks = [(vi, sent) for vi in vis for sent in vi.accepted]
        if not tasks:
            return
        vi, sent = tasks[pick % len(tasks)]
        vi.accepted.remove(sent)
        letter = b"s" if vi.guid.value == S.value else b"t"
        code = VerdictCode[what.upper()]
        payload = sent.payload + letter if code is VerdictCode.UPDATE else b""
        vi.verdict(sent, code, payload)

    def crash(self, name: str, pick: int) -> None:
        group = self.neighbours[name]
        if group:
            group.pop(pick % len(group)).go_down()

    def take_reports(self) -> None:
        self.net.end_turn()
        for sent in self.a.accept_all():
            assert sent.header.payload_type == PayloadType.REPORT
            for report in reports_in(sent):
                self.ended[report.chunk_id.value] += 1

    def heal(self) -> None:
        """Everybody comes back and answers; then nothing may be left."""
        for name in "STBQ":
            self.attach(name)
        for _ in range(200):
            for neighbour in self.all_neighbours():
                while neighbour.unsettled:
                    self._settle_one(neighbour, neighbour.unsettled[0])
                for sent in list(neighbour.accepted):
                    neighbour.accepted.remove(sent)
                    if neighbour.role is Role.SERVICE:
                        neighbour.verdict(sent)
            self.take_reports()
            if not self.net.sums["held"]:
                return
            self.net.pass_time(0.5)

    def _settle_one(self, neighbour: FakeNeighbour, sent: Sent) -> None:
        if neighbour.role is not Role.SERVICE:
            number = sent.header.chunk_id.value
            self.ended[number] += 1
            self.payloads[number] = sent.payload
        neighbour.settle(sent)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=80), st.sampled_from(list(FailPolicy)))
def test_no_chunk_is_lost_or_doubled_whatever_happens(
    steps: list[tuple[str, Any, Any]], policy: FailPolicy
) -> None:
    """Every chunk taken ends exactly once: accepted onwards, or told to its source.

    `FakeNetwork` checks the conservation sum after every single event, and that no body is patched,
    sent or released while the hop reads it. A session that ends loses unaccepted bodies only, so no
    end may come twice. Each service has worked at most once on what arrives.
    """
    run = Run(policy)
    for verb, first, second in steps:
        match verb:
            case "chunk":
                run.send(first, second)
            case "settle":
                run.settle(first, second)
            case "verdict":
                run.verdict(first, second)
            case "crash":
                run.crash(first, second)
            case "attach":
                run.attach(first)
            case "wait":
                run.net.pass_time(first)
            case _:
                run.take_reports()
    run.heal()
    run.net.check_idle()
    assert run.ended == Counter(run.sent_ids)
    for payload in run.payloads.values():
        assert all(payload.count(letter) <= 1 for letter in b"st"), payload
    assert run.net.core.settings.na == ROUTER_NA


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4), st.binary())
def test_any_bytes_are_refused_or_taken_and_nothing_else(
    changes: list[tuple[int, int]], tail: bytes
) -> None:
    """Whatever a host sends as a chunk: a refusal with a reason or custody, never an exception."""
    run = Run(FailPolicy.OPEN)
    valid = chunk(A, B, b"payload", (S, T), lifetime_ms=5000)
    changed = bytearray(valid)
    for offset, value in changes:
        changed[offset] = value
    for data in (tail, valid, bytes(changed), bytes(changed) + tail, bytes(changed[:-1]), valid):
        run.a.chunk(data)
    run.heal()
    run.net.pass_time(200.0)
    run.take_reports()
    run.net.check_idle()


@given(st.binary(max_size=60), st.integers(0, 3), st.integers(1, 6))
def test_any_bytes_as_a_verdict_change_nothing_but_their_own_task(
    tail: bytes, task_offset: int, code: int
) -> None:
    """A VI may answer anything: its chunk ends or goes on, the others are untouched."""
    run = Run(FailPolicy.CLOSED)
    run.send((S,), B)
    run.send((T,), B)
    vis = [vi for vi in run.neighbours["S"] if vi.unsettled]
    (task,) = vis[0].accept_all()
    vis[0].accepted.clear()
    number = (task.task.task_id + task_offset).to_bytes(8, "big")
    vis[0].body(BodyKind.VERDICT, tail)
    vis[0].body(BodyKind.VERDICT, number + bytes([code, 0, 0, 0]) + bytes(12) + tail)
    run.net.pass_time(60.0)
    run.heal()
    run.net.check_idle()
