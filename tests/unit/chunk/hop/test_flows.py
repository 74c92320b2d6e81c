"""Flows of one session: one that stops costs the others nothing, and loses nothing itself."""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Deferral, HopConfig, Neighbour, Refusal, Settlement
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.flow_credit import STALE_COUNT, FlowCredit
from packetcloud.chunk.hop.flow_queues import TURN_BYTES, FlowQueues
from packetcloud.chunk.hop.outgoing import Outgoing
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import A, B, Link, Upper

MIB = 1 << 20
STOPPED, OTHER = 7, 8
CONFIG = HopConfig(credit_bytes=6 * MIB, flow_credit_bytes=3 * MIB)


class Holder(Upper):
    """Releases nothing of the flows in `stopped`; a body's first byte tells its flow."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: set[int] = set()
        self.held: dict[int, list[Any]] = {}
        self.arrived: Counter[int] = Counter()
        self.order: list[int] = []

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Any
    ) -> Refusal | Deferral | None:
        flow = body.head(1)[0]
        self.arrived[flow] += 1
        self.order.append(flow)
        if flow in self.stopped:
            self.held.setdefault(flow, []).append(body)
        else:
            body.release()
        return None

    def go_on(self, flow: int) -> None:
        self.stopped.discard(flow)
        for body in self.held.pop(flow, []):
            body.release()


def put_above(core: HopCore, upper: Upper) -> None:
    """Let `upper` be the layer above of a node that has no session yet."""
    core._upper = upper
    core._surroundings = replace(core._surroundings, upper=upper)


def joined(config: HopConfig = CONFIG, **network: Any) -> tuple[Link, Session, Holder]:
    link = Link(config=config, **network)
    upper = Holder()
    link.uppers[B] = upper
    put_above(link.cores[B], upper)
    return link, link.connect(), upper


def send(session: Session, flow: int, count: int, size: int = MIB // 2) -> list[object]:
    tokens = [object() for _ in range(count)]
    for token in tokens:
        session.send(BodyKind.CHUNK, bytes([flow]), bytes(size - 1), token, flow=flow)
    return tokens


@pytest.mark.parametrize("size", [200, MIB // 2])
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_stopped_flow_does_not_stop_another(size: int, loss: float) -> None:
    """Its bodies wait at the sender, unsettled; every body of the other flow arrives."""
    link, session, upper = joined(
        HopConfig(credit_bytes=6 * MIB, flow_credit_bytes=20 * size), loss=loss
    )
    upper.stopped = {STOPPED}
    send(session, STOPPED, 60, size)
    others = send(session, OTHER, 60, size)
    link.run(lambda: upper.arrived[OTHER] == 60)
    link.pass_time(1.0)
    settled = {token for token, how, _ in link.uppers[A].settled if how is Settlement.ACCEPTED}
    assert settled >= set(others)
    held = link.cores[B].sessions[next(iter(link.cores[B].sessions))].receiver
    assert 0 < upper.arrived[STOPPED] <= 20
    assert held.credit.flows.held_bytes(STOPPED) <= 20 * size
    assert session.is_busy(STOPPED) and not session.is_busy(OTHER)
    upper.go_on(STOPPED)
    link.run(lambda: upper.arrived[STOPPED] == 60)
    link.pass_time(1.0)
    settlements = Counter(how for _, how, _ in link.uppers[A].settled)
    assert settlements == {Settlement.ACCEPTED: 120}
    assert session.queued_bytes == 0 and not session.is_busy(STOPPED)


def test_a_stopped_flow_costs_another_no_time() -> None:
    """The other flow is as fast beside a stopped one as alone."""

    def took_beside(stopped_count: int) -> float:
        link, session, upper = joined()
        upper.stopped = {STOPPED}
        send(session, STOPPED, stopped_count)
        link.pass_time(3.0)
        began = link.now
        send(session, OTHER, 40)
        link.run(lambda: upper.arrived[OTHER] == 40)
        return link.now - began

    assert took_beside(40) <= took_beside(0) * 1.25 + 0.02


@pytest.mark.parametrize("seed", range(5))
def test_lost_acks_do_not_leave_a_flow_parked(seed: int) -> None:
    """The news that room came free is lost, and the answer to the first questions too."""
    link, session, upper = joined(seed=seed)
    upper.stopped = {STOPPED}
    send(session, STOPPED, 12)
    link.pass_time(1.0)
    assert session.is_busy(STOPPED)
    lost = 0

    def lose(source: Any, datagram: bytes) -> bool:
        nonlocal lost
        if source == B and lost < 4:
            lost += 1
            return False
        return True

    link.on_datagram = lose
    upper.go_on(STOPPED)
    began = link.now
    link.run(lambda: upper.arrived[STOPPED] == 12)
    assert lost == 4 and link.now - began < 5.0


def test_a_neighbour_that_releases_nothing_for_a_minute_keeps_its_session() -> None:
    """Sixty virtual seconds without room for anything; then all goes on, in one session."""
    link, session, upper = joined()
    upper.stopped = {1, 2, 3, 4}
    for flow in upper.stopped:
        send(session, flow, 10)
    link.pass_time(60.0)
    assert session.is_up and not link.uppers[A].down and not upper.down
    for flow in (1, 2, 3, 4):
        upper.go_on(flow)
    began = link.now
    link.run(lambda: upper.arrived.total() == 40)
    link.pass_time(0.5)
    assert link.now - began < 10.0
    assert [how for _, how, _ in link.uppers[A].settled] == [Settlement.ACCEPTED] * 40


def test_many_stopped_flows_still_leave_room() -> None:
    """Each flow may hold less while little is free; five stopped ones leave the sixth its way."""
    link, session, upper = joined(HopConfig(credit_bytes=24 * MIB, flow_credit_bytes=16 * MIB))
    upper.stopped = set(range(1, 6))
    for flow in upper.stopped:
        send(session, flow, 60)
    link.pass_time(5.0)
    send(session, 9, 20)
    link.run(lambda: upper.arrived[9] == 20)
    assert all(session.is_busy(flow) for flow in upper.stopped)


def test_more_busy_flows_than_a_frame_names_are_tried_by_a_timer() -> None:
    """The first label is 0; a flow that the list has no room for is neither forgotten nor stuck."""
    count = wire.MAX_BUSY_COUNT + 20
    link, session, upper = joined(HopConfig(credit_bytes=64 * MIB, flow_credit_bytes=3000))
    upper.stopped = set(range(1, count + 1))
    for flow in upper.stopped:
        send(session, flow, 6, 1000)
    link.pass_time(3.0)
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert len(receiver.credit.flows.busy) == count
    for flow in range(1, count + 1):
        upper.go_on(flow)
    link.run(lambda: upper.arrived.total() == 6 * count)


def test_flows_take_turns_by_bytes() -> None:
    """A flow of small bodies beside one of large bodies gets as many bytes sent."""
    link, session, upper = joined(HopConfig())
    send(session, 1, 20, MIB)
    send(session, 2, 4000, 1000)
    link.run(lambda: upper.arrived[1] == 3)
    assert upper.arrived[2] * 1000 >= 1.5 * MIB
    link.run(lambda: upper.arrived[1] == 20)


def test_a_body_that_is_put_back_keeps_its_place() -> None:
    """What was refused for now goes first when its flow may start again."""
    queues = FlowQueues()
    bodies = [Outgoing(1, b"", memoryview(b"x"), None, n, 1000, 1000, 0, 3) for n in range(6)]
    for body in bodies:
        queues.append(body)
    taken = []
    for _ in range(4):
        assert queues.head() is not None
        taken.append(queues.popleft())
    queues.park(3)
    for body in (taken[2], taken[0], taken[3], taken[1]):
        queues.put_back(body)
    assert queues.head() is None
    queues.unpark(3)
    out = []
    while queues.head() is not None:
        out.append(queues.popleft())
    assert out == bodies


@pytest.mark.parametrize("seed", range(20))
def test_turns_are_fair_for_any_sizes(seed: int) -> None:
    """While flows have bodies, what each has sent differs by a turn and a largest body at most."""
    rng = random.Random(seed)
    queues = FlowQueues()
    flows = range(1, rng.randint(2, 6))
    largest = MIB
    for flow in flows:
        size = rng.choice([100, 1000, 10_000, 300_000, largest])
        for number in range(40 * MIB // size if size > 5000 else 8000):
            payload = memoryview(bytes(size))
            queues.append(Outgoing(1, b"", payload, None, number, 1000, 1000, 0, flow))
    sent: Counter[int] = Counter()
    left = Counter(body.flow for body in queues)
    while all(left[flow] for flow in flows):
        head = queues.head()
        body = queues.popleft()
        assert head is body
        sent[body.flow] += body.body_bytes
        left[body.flow] -= 1
        if all(left[flow] for flow in flows):
            spread = max(sent[f] for f in flows) - min(sent[f] for f in flows)
            assert spread <= 2 * (largest + TURN_BYTES)
    rest = 0
    while queues.head() is not None:
        queues.popleft()
        rest += 1
    assert rest == left.total()


def test_credit_of_a_flow_at_its_cap_and_one_beyond() -> None:
    """At the cap a body is admitted; one byte more is not, and its flow is on the list."""
    credit = FlowCredit(1000)
    credit.hold(1, 400, 10_000)
    assert credit.admits(1, 600, 10_000) and not credit.busy
    assert not credit.admits(1, 601, 10_000) and list(credit.busy) == [1]
    assert credit.admits(2, 5000, 0), "who holds nothing may always begin one"
    assert credit.admits(0, 5000, 0), "no flow has no limit"


def test_a_flow_leaves_the_list_only_when_what_was_refused_fits() -> None:
    """Else it would be tried, and refused, in every round trip."""
    credit = FlowCredit(1000)
    credit.hold(1, 300, 10_000)
    credit.hold(1, 100, 10_000)
    assert not credit.admits(1, 900, 10_000)
    assert not credit.release(1, 100, 10_000) and credit.busy
    assert credit.release(1, 300, 10_000) and not credit.busy


def stopped_flows(count: int, free_bytes: int) -> FlowCredit:
    """Return the account of `count` flows that each hold a little and were refused much."""
    credit = FlowCredit(1 << 24)
    for flow in range(1, count + 1):
        credit.hold(flow, 350, free_bytes)
        assert not credit.admits(flow, MIB, free_bytes)
    return credit


def lines_of(work: Any) -> int:
    """Return how many lines `work` executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_release_costs_the_same_beside_any_number_of_stopped_flows() -> None:
    """The neighbour chooses the labels: 65 535 of them must not make each release a long one."""
    few, many = stopped_flows(10, 10_000), stopped_flows(65_535, 10_000)
    for credit in (few, many):
        credit.hold(0, 1000, 10_000)
    assert lines_of(lambda: many.release(0, 1000, 11_000)) <= 40
    assert lines_of(lambda: few.release(0, 1000, 11_000)) <= 40
    assert len(many.busy) == 65_535 and many.busy_labels(3) == [1, 2, 3]


def test_what_a_stopped_flow_waits_for_is_kept_in_bounds() -> None:
    """A flow refused and released over and over leaves no trace for each time."""
    credit = FlowCredit(1000)
    for _ in range(20_000):
        credit.hold(1, 400, 500)
        credit.admits(1, 900, 500)
        credit.release(1, 400, 0)
    assert len(credit._waits) <= 2 * len(credit.busy) + STALE_COUNT + 1


@pytest.mark.parametrize("seed", range(10))
def test_the_list_is_what_a_look_at_every_flow_would_make_it(seed: int) -> None:
    """At any time a flow leaves at the release after which it holds at most half of its limit, and
    what was refused fits."""
    rng = random.Random(seed)
    credit, total_bytes = FlowCredit(4000), 12_000
    held: list[tuple[int, int]] = []
    used = 0
    for _ in range(4000):
        flow, size = rng.randint(0, 30), rng.choice([1, 50, 400, 1500])
        if rng.random() < 0.55:
            if used + size <= total_bytes and credit.admits(flow, size, total_bytes - used):
                used += size
                credit.hold(flow, size, total_bytes - used)
                held.append((flow, size))
        elif held:
            flow, size = held.pop(rng.randrange(len(held)))
            used -= size
            limit = credit._limit(total_bytes - used)
            holds = Counter({flow: -size})
            for one in {*credit.busy, flow}:
                holds[one] += credit.held_bytes(one)
            stay = [
                one for one, wanted in credit.busy.items()
                if holds[one] and holds[one] > min(limit // 2, limit - wanted)
            ]  # fmt: skip
            has_freed = len(stay) < len(credit.busy)
            assert credit.release(flow, size, total_bytes - used) == has_freed
            assert list(credit.busy) == stay


class Undecided(Upper):
    """Decides about nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Neighbour, Any]] = []

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Any
    ) -> Refusal | Deferral | None:
        self.pending.append((neighbour, body))
        return Deferral.PENDING


def undecided(**network: Any) -> tuple[Link, Session, Undecided]:
    link = Link(**network)
    upper = Undecided()
    link.uppers[B] = upper
    put_above(link.cores[B], upper)
    return link, link.connect(), upper


@pytest.mark.parametrize("size", [500, 300_000])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_pending_custody_is_neither_sent_again_nor_given_up(size: int, loss: float) -> None:
    """For twenty seconds nothing is settled and nothing is repeated; then each ends as decided."""
    link, session, upper = undecided(seed=3, loss=loss)
    for number in range(20):
        session.send(BodyKind.CHUNK, b"", bytes([number]) * size, number + 1000)
    link.run(lambda: len(upper.pending) == 20)
    link.pass_time(1.0)
    again = session.sender.retransmitted_segments
    link.pass_time(20.0)
    assert link.uppers[A].settled == [] and session.is_up
    assert session.sender.retransmitted_segments == again
    for neighbour, body in upper.pending:
        is_odd = body.head(1)[0] % 2
        neighbour.decide(body, Refusal(Reason.STORE_FULL) if is_odd else None)
        if not is_odd:
            body.release()
    link.run_until_settled(20)
    for token, how, reason in link.uppers[A].settled:
        assert isinstance(token, int)
        expected = (Settlement.REFUSED, 11) if token % 2 else (Settlement.ACCEPTED, 0)
        assert (how, reason) == expected
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes == 0


def test_a_lost_word_of_custody_is_asked_for() -> None:
    """The ACK that says "taken" is lost while nothing else is on its way."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(5000), "x")
    link.run(lambda: bool(upper.pending))
    link.pass_time(1.0)
    lost = 0

    def lose(source: Any, datagram: bytes) -> bool:
        nonlocal lost
        lost += source == B and lost < 2
        return not (source == B and lost < 2)

    link.on_datagram = lose
    [(neighbour, body)] = upper.pending
    neighbour.decide(body)
    body.release()
    began = link.now
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.now - began < 2.5


def test_a_body_given_up_while_it_is_pending_is_settled_once() -> None:
    """The sender cancels; a later decision changes nothing and frees the memory."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), token := object())
    link.run(lambda: bool(upper.pending))
    session.cancel(token)
    link.pass_time(0.5)
    receiver = next(iter(link.cores[B].sessions.values())).receiver
    assert receiver.credit.held_bytes >= 50_000
    [(neighbour, body)] = upper.pending
    neighbour.decide(body, Refusal(Reason.STORE_FULL))
    link.pass_time(0.5)
    assert [how for _, how, _ in link.uppers[A].settled] == [Settlement.LOST]
    assert receiver.credit.held_bytes == 0 and not session.sender.transfers.forgotten


def test_a_decision_after_the_session_has_ended_frees_the_memory() -> None:
    """The sender was told LOST; the layer above may keep the body or not."""
    link, session, upper = undecided()
    session.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: bool(upper.pending))
    session.close("over")
    link.run(lambda: bool(upper.down))
    [(neighbour, body)] = upper.pending
    neighbour.decide(body, Refusal(Reason.STORE_FULL))
    assert link.cores[B].pool.held_bytes == 0


def test_frames_of_flows_are_refused_beyond_their_caps() -> None:
    """At the cap they are decoded, with one label or range more they are not."""
    for count, good in ((wire.MAX_BUSY_COUNT, True), (wire.MAX_BUSY_COUNT + 1, False)):
        datagram = wire.encode_control(1, 1, [wire.BusyFrame(tuple(range(count))).to_bytes()])
        if good:
            [frame] = wire.decode_control(datagram)
            assert frame == wire.BusyFrame(tuple(range(count)))
        else:
            with pytest.raises(ProtocolError):
                list(wire.decode_control(datagram))
    ranges = tuple((number * 9, 2) for number in range(wire.MAX_WHOLE_COUNT))
    [frame] = wire.decode_control(wire.encode_control(1, 1, [wire.WholeFrame(ranges).to_bytes()]))
    assert frame == wire.WholeFrame(ranges)
    for wrong in ((*ranges, (500, 1)), ((1, 0),), ((1, wire.TRANSFER_WINDOW_COUNT + 1),)):
        with pytest.raises(ProtocolError):
            list(
                wire.decode_control(wire.encode_control(1, 1, [wire.WholeFrame(wrong).to_bytes()]))
            )
