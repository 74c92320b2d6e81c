"""The cloudlet's table under random events: nothing lost or doubled, no task past a held slot."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.hop.api import Role, Settlement
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import Reason
from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import ServiceEntry, ViEntry, ViState
from packetcloud.router.custody import Phase
from packetcloud.router.settings import FailPolicy
from tests.unit.router.cloudlet_tables import Controller, entry, vi, with_table
from tests.unit.router.router_fakes import (
    A,
    FakeNeighbour,
    FakeNetwork,
    S,
    Sent,
    chunk,
    guid,
    reports_in,
)

DESTINATIONS = [guid(letter) for letter in "bcdefg"]
INSTANCES = (1, 2, 3)
SERVING = {ViState.SERVING, ViState.RESTRICTED}

listed = st.lists(
    st.tuples(st.sampled_from(INSTANCES), st.integers(0, 1), st.sampled_from(list(ViState))),
    max_size=3,
)
step = st.one_of(
    st.tuples(st.just("chunk"), st.sampled_from(DESTINATIONS)),
    st.tuples(
        st.just("settle"), st.tuples(st.integers(0, 99), st.sampled_from([True] * 6 + [False]))
    ),
    st.tuples(
        st.just("verdict"),
        st.tuples(
            st.integers(0, 99),
            st.sampled_from(["forward", "update", "failed", "drop", "redirect", "emit"]),
        ),
    ),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("attach"), st.sampled_from(INSTANCES)),
    st.tuples(st.just("put"), listed),
    st.tuples(st.just("put"), listed),
    st.tuples(st.just("remove"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.1, 5.0])),
    st.tuples(st.just("end_turn"), st.just(0)),
)


class Run:
    """A router with a service of the table, and hosts to which a source sends through it."""

    def __init__(self, policy: FailPolicy) -> None:
        self.net = FakeNetwork(
            with_table(vi_window_count=2, detached_hold_s=10.0, store_bytes=20 * 300)
        )
        self.policy = policy
        self.controller = Controller(self.net)
        self.a = self.net.host(A)
        self.hosts = [self.net.host(name) for name in DESTINATIONS]
        self.vis: list[FakeNeighbour] = []
        self.sent_ids: list[int] = []
        self.ended = Counter[int]()
        self.puts_count = 0
        self.known_tasks: set[int] = set()
        self.listed: dict[int, tuple[int, ViState]] = {}
        self.put([(1, 0, ViState.SERVING)])

    @property
    def pool(self) -> CloudletService | None:
        found = self.net.core.dispatch.services.get(S.value)
        return found if isinstance(found, CloudletService) else None

    def entry(self, vis: list[ViEntry]) -> ServiceEntry:
        return entry(*vis, deadline_ms=1000, grace_s=3.0, fail_policy=self.policy)

    def put(self, wanted: list[tuple[int, int, ViState]]) -> None:
        """Have these VIs listed, each once; of two that serve in a slot the second is held."""
        self.puts_count += 1
        served = set[int]()
        vis = []
        for instance, (slot, state) in {one[0]: one[1:] for one in wanted}.items():
            if state.serves and slot in served:
                state = ViState.HELD
            served |= {slot} if state.serves else set()
            vis.append(vi(instance, state, slot, self.puts_count))
        self.listed = {one.instance: (one.slot, one.state) for one in vis}
        self.controller.put(self.entry(vis))

    def remove(self) -> None:
        self.listed = {}
        self.controller.put(S)

    def attach(self, instance: int) -> None:
        if self.net.core.admit(GUID(S.value), Role.SERVICE, instance) is None:
            self.vis.append(self.net.vi(S, instance))

    def send(self, destination: GUID) -> None:
        number = 1000 + len(self.sent_ids)
        lifetime_ms = 2_000 if number % 3 else 20_000
        data = chunk(A, destination, b"0", (S,), number, lifetime_ms=lifetime_ms)
        if self.a.chunk(data) is None:
            self.sent_ids.append(number)

    def settle(self, pick: int, is_taken: bool) -> None:
        waiting = [(one, sent) for one in (*self.hosts, *self.vis) for sent in one.unsettled]
        if waiting:
            neighbour, sent = waiting[pick % len(waiting)]
            if is_taken:
                self._accept(neighbour, sent)
            else:
                neighbour.settle(sent, Settlement.REFUSED, Reason.RECEIVER_REFUSED)

    def verdict(self, pick: int, what: str) -> None:
        tasks = [(one, sent) for one in self.vis if one.is_up for sent in one.accepted]
        if not tasks:
            return
        one, sent = tasks[pick % len(tasks)]
        one.accepted.remove(sent)
        code = VerdictCode[what.upper()]
        to = DESTINATIONS[pick % len(DESTINATIONS)]
        if code is VerdictCode.REDIRECT:
            one.verdict(sent, code, detail=to.value + bytes(4))
        elif code is VerdictCode.EMIT:
            made = chunk(GUID(bytes(20)), to, b"made", chunk_id=1, wants_report=False)
            one.verdict(sent, code, made, emit_count=1, keep=True)
        else:
            payload = sent.payload + b"s" if code is VerdictCode.UPDATE else b""
            one.verdict(sent, code, payload)

    def crash(self, pick: int) -> None:
        if self.vis:
            self.vis.pop(pick % len(self.vis)).go_down()

    def end_turn(self) -> None:
        self.net.end_turn()
        self.vis = [one for one in self.vis if one.is_up]
        for sent in self.a.accept_all():
            assert sent.header.payload_type == PayloadType.REPORT
            for report in reports_in(sent):
                self.ended[report.chunk_id.value] += 1

    def check(self) -> None:
        """No task was given past a held slot or to a VI that gets none; every line is whole."""
        pool = self.pool
        if pool is None:
            return
        assert set(pool.held) == (held := self.held_slots(pool))
        for one in pool.cloudlet_vis:
            for number, task in one.tasks.items():
                if number not in self.known_tasks:
                    self.known_tasks.add(number)
                    assert task.flow.hash % self.slots_count not in held, "past a held slot"
                    state = self.listed.get(one.instance, (0, ViState.HELD))[1]
                    assert state.serves, "to one that gets none"
        queued = [one for one in self.net.core.book.wheel if one.phase is Phase.QUEUED]
        lines = [pool.waiting, *pool.held.values()]
        in_line = [one for line in lines for one in line]
        assert set(queued) == set(in_line) and len(in_line) == len(set(in_line))
        for line in lines:
            assert line.size_bytes == sum(one.size_bytes for one in line)
        for slot, line in pool.held.items():
            assert {one.flow.hash % len(pool.slots) for one in line} <= {slot}
        assert not [one for one in pool.waiting if pool.is_held(one.flow.hash)]
        if not pool.has_vi and self.net.now > pool.grace_ends_at + 0.1:
            assert not in_line, "longer than the grace time"

    @property
    def slots_count(self) -> int:
        return max((slot + 1 for slot, _ in self.listed.values()), default=0)

    def held_slots(self, pool: CloudletService) -> set[int]:
        """Return the slots whose chunks must wait, by what was listed and who has tasks."""
        states: dict[int, set[ViState]] = {}
        for slot, state in self.listed.values():
            states.setdefault(slot, set()).add(state)
        held = {slot for slot, of in states.items() if ViState.HELD in of and not of & SERVING}
        for one in pool.cloudlet_vis:
            is_leaving = not one.neighbour.is_up or one.instance not in self.listed
            if one.tasks and (is_leaving or self.listed[one.instance][1] is ViState.HELD):
                held.add(one.slot)
        return {slot for slot in held if slot < self.slots_count}

    def heal(self) -> None:
        """One VI serves, and everybody answers; then nothing may be left."""
        self.put([(9, 0, ViState.SERVING)])
        self.end_turn()
        self.attach(9)
        for _ in range(200):
            for neighbour in (*self.hosts, *self.vis):
                while neighbour.unsettled:
                    self._accept(neighbour, neighbour.unsettled[0])
                if neighbour.role is Role.SERVICE:
                    for sent in list(neighbour.accepted):
                        neighbour.accepted.remove(sent)
                        neighbour.verdict(sent)
            self.end_turn()
            self.check()
            if not self.net.sums["held"]:
                return
            self.net.pass_time(0.5)

    def _accept(self, neighbour: FakeNeighbour, sent: Sent) -> None:
        if neighbour.role is Role.HOST and sent.header.source == A:
            self.ended[sent.header.chunk_id.value] += 1
        neighbour.settle(sent)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(step, min_size=30, max_size=100), st.sampled_from(list(FailPolicy)))
def test_no_chunk_is_lost_doubled_or_given_past_a_hold(
    steps: list[tuple[str, Any]], policy: FailPolicy
) -> None:
    """Whatever table comes, and whoever crashes: every chunk ends exactly once."""
    run = Run(policy)
    for verb, given_ in steps:
        match verb:
            case "chunk":
                run.send(given_)
            case "settle":
                run.settle(*given_)
            case "verdict":
                run.verdict(*given_)
            case "crash":
                run.crash(given_)
            case "attach":
                run.attach(given_)
            case "put":
                run.put(given_)
            case "remove":
                run.remove()
            case "wait":
                run.net.pass_time(given_)
            case _:
                run.end_turn()
        run.check()
    run.heal()
    run.net.check_idle()
    assert run.ended == Counter(run.sent_ids)
