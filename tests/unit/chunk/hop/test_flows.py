"""Flows of one session: one that stops costs the others nothing, and loses nothing itself."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Deferral, HopConfig, Neighbour, Refusal, Settlement
from packetcloud.chunk.hop.flow_queues import TURN_BYTES, FlowQueues
from packetcloud.chunk.hop.outgoing import Outgoing
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
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


def joined(config: HopConfig = CONFIG, **network: Any) -> tuple[Link, Session, Holder]:
    link = Link(config=config, **network)
    upper = Holder()
    link.put_above(B, upper)
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
