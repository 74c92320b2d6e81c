"""The sender alone: what counts as lost, and when it asks for an ACK."""

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.outgoing import Outgoing
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.hop.sender import Sender
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link

STRIDE = 1472
RTT_S = 0.010


class Bench:
    """A sender whose datagrams go nowhere, and the ACKs that a test makes up."""

    def __init__(self, body_bytes: int) -> None:
        rtt = RttEstimator()
        rtt.add_sample(RTT_S, 0.0, 0.0)
        self.settled: list[Settlement] = []
        self.sender = Sender(
            7, STRIDE, 1 << 21, 1 << 24, 1 << 24, None, Envelope(7, None), BufferPool(), rtt,
            lambda _, how, __: self.settled.append(how),
        )  # fmt: skip
        self.rtt = rtt
        self.sender.queue(BodyKind.CHUNK, b"", bytes(body_bytes), "x")

    def send(self, now: float) -> list[int]:
        """Send all that may leave; return the datagrams in each burst."""
        counts = []
        while (burst := self.sender.departures.next_burst(now)) is not None:
            counts.append(-(-sum(map(len, burst[0])) // STRIDE))
        return counts

    def ack(self, burst: int, segments: int, now: float) -> None:
        """The neighbour has `segments` of transfer 0, and `burst` is the largest that it saw."""
        partials = (wire.Partial(0, segments, b""),)
        frame = wire.AckFrame(
            burst, 0, segments * STRIDE, 1 << 24, 1 << 24, 0, b"", partials, busy=False, more=False
        )
        self.sender.receive_ack(frame, (), now)

    def answer(
        self, now: float, partials: tuple[wire.Partial, ...] = (), *, more: bool = False
    ) -> None:
        """The neighbour saw the newest burst, and has settled nothing."""
        flight = self.sender.flight
        frame = wire.AckFrame(
            flight.next_burst - 1, 0, flight.sent_bytes, 1 << 24, 1 << 24, 0, b"", partials,
            more=more,
        )  # fmt: skip
        self.sender.receive_ack(frame, (), now)

    def expire(self, now: float) -> None:
        for _ in self.sender.handle_timeout(now):
            pass


def test_the_rest_of_the_last_burst_is_not_lost_because_its_front_was_acknowledged() -> None:
    """The neighbour answers while the rest of the burst still lies in its socket."""
    bench = Bench(100 * STRIDE)
    counts = bench.send(0.0)
    sent = sum(counts)
    bench.ack(len(counts), sent - 1, RTT_S)
    bench.expire(RTT_S + 0.001)
    assert bench.sender.retransmitted_segments == 0
    bench.send(RTT_S + 0.001)
    assert bench.sender.retransmitted_segments == 0


def test_the_rest_of_the_last_burst_is_lost_after_as_long_as_an_answer_may_take() -> None:
    """Nothing follows it, so no later burst can tell: time must."""
    bench = Bench(10 * STRIDE)
    counts = bench.send(0.0)
    bench.ack(len(counts), 8, RTT_S)
    bench.expire(bench.rtt.probe_timeout_s(0) + 0.001)
    bench.send(1.0)
    assert bench.sender.retransmitted_segments > 0


def test_what_an_earlier_burst_lacks_is_lost_after_nine_eighths_of_a_round_trip() -> None:
    """A later burst arrived, so the earlier one would have."""
    bench = Bench(100 * STRIDE)
    counts = bench.send(0.0)
    assert len(counts) >= 2
    bench.ack(len(counts), counts[0] - 1, RTT_S)
    bench.expire(2 * RTT_S)
    bench.send(2 * RTT_S)
    assert bench.sender.retransmitted_segments > 0


def test_an_ack_is_asked_for_once_when_the_growing_window_is_full() -> None:
    """The neighbour would hold it back for some milliseconds, in each of the first round trips."""
    bench = Bench(1 << 20)
    bench.send(0.0)
    assert bench.sender.departures.take_question(0.0) is not None
    assert bench.sender.departures.take_question(0.0) is None
    bench.ack(1, 4, RTT_S)
    bench.send(RTT_S)
    assert bench.sender.departures.take_question(RTT_S) is not None


def test_no_ack_is_asked_for_by_a_sender_with_nothing_more_to_send() -> None:
    """It waits for nothing."""
    bench = Bench(5 * STRIDE)
    bench.send(0.0)
    assert bench.sender.departures.take_question(0.0) is None


def test_what_was_acknowledged_is_not_remembered_when_nothing_is_outstanding() -> None:
    """However many bodies go one after the other, and however long a session only lives."""
    link = Link(delay_s=0.001)
    session = link.connect()
    history = session.sender.flight._history
    for number in range(200):
        session.send(BodyKind.CHUNK, b"", bytes(200), number)
        link.run_until_settled(number + 1)
        assert len(history) < 4
    link.pass_time(3600)
    assert session.sender.probes > 1000
    assert len(history) < 4


def bench_of_small(count: int) -> Bench:
    """A sender of which `count` small bodies left in one burst, each a transfer."""
    bench = Bench(100)
    for number in range(count - 1):
        bench.sender.queue(BodyKind.CHUNK, b"", bytes(100), number)
    flows, flight = bench.sender.flows, bench.sender.flight
    burst = flight.take_number()
    while (outgoing := flows.head()) is not None:
        flows.popleft()
        bench.sender.transfers.start(outgoing)
        outgoing.note_sent(0, 1, burst)
    flight.add(burst, 100 * count, 0.0, background=False)
    return bench


def looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of the transfers that are looked through for losses from now on."""
    looked: list[int] = []
    real = bench.sender.departures.find_lost

    def find_lost(outgoing: Outgoing, floor: int) -> bool:
        looked.append(outgoing.transfer)
        return real(outgoing, floor)

    monkeypatch.setattr(bench.sender.departures, "find_lost", find_lost)
    return looked


def test_an_ack_with_no_news_of_losses_costs_no_look_at_what_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often it comes, and whatever else changes in it; else 80 bytes cost a millisecond."""
    bench = bench_of_small(1000)
    bench.answer(RTT_S)
    looked = looks(bench, monkeypatch)
    for number in range(20):
        partials = (wire.Partial(number, number % 2, b""),)
        bench.answer(RTT_S, partials, more=number % 3 == 0)
    assert looked == []


def test_what_an_ack_with_more_partials_left_out_is_looked_at_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next ACK may name the same burst and more transfers: what they lack is found lost."""
    bench = bench_of_small(1000)
    looked = looks(bench, monkeypatch)
    for _ in range(3):
        bench.sender.flight.probe(0.0)
    bench.answer(RTT_S, partials=(wire.Partial(5, 0, b""),), more=True)
    assert looked == [0, 1, 2, 3, 4, 5]
    assert [o.transfer for o in bench.sender.departures._resend_small] == looked
    looked.clear()
    bench.answer(RTT_S, partials=(wire.Partial(9, 0, b""),), more=True)
    assert looked == list(range(10))
    looked.clear()
    bench.answer(RTT_S)
    assert len(looked) == 1000
    assert len(bench.sender.departures._resend_small) == 1000


def test_transfers_named_as_whole_again_are_not_looked_at_again() -> None:
    """A WHOLE comes with every ACK; what is settled, or never began, costs nothing either."""
    bench = bench_of_small(1000)
    transfers = bench.sender.transfers
    assert len(list(transfers.take_whole(0, 400))) == 400
    assert list(transfers.take_whole(0, 400)) == []
    assert [o.transfer for o in transfers.take_whole(399, 3)] == [400, 401]
    assert len(list(transfers.settle(500, b"\x01"))) == 501
    assert [o.transfer for o in transfers.take_whole(400, 103)] == [501, 502]
    assert len(list(transfers.take_whole(0, wire.TRANSFER_WINDOW_COUNT))) == 497
    for far in (-(1 << 31), 1000, 1 << 31):
        assert list(transfers.take_whole(far, 100)) == []


def test_a_whole_takes_a_queued_transfer_out_without_a_look_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One frame may name thousands that were called lost, those queued last before the others."""
    compared = []

    def equal(one: Outgoing, other: object) -> bool:
        compared.append(one.transfer)
        return one is other

    bench = bench_of_small(1000)
    for _ in range(3):
        bench.sender.flight.probe(0.0)
    bench.answer(RTT_S)
    resend = bench.sender.departures._resend_small
    assert len(resend) == 1000
    monkeypatch.setattr(Outgoing, "__eq__", equal)
    monkeypatch.setattr(Outgoing, "__hash__", object.__hash__)
    for first in range(990, 0, -10):
        bench.sender.receive_whole(wire.WholeFrame(((first, 10),)))
    assert len(compared) <= 990
    assert [o.transfer for o in resend] == list(range(10))
    assert bench.send(1.0)
    assert not resend


def test_transfers_named_as_settled_again_are_not_looked_at_again() -> None:
    """A bitmap comes with every ACK, relative to another transfer each time."""
    bench = bench_of_small(100)
    transfers = bench.sender.transfers
    assert [o.transfer for o in transfers.settle(0, b"\xf0")] == [4, 5, 6, 7]
    assert list(transfers.settle(0, b"\xf0")) == []
    assert [o.transfer for o in transfers.settle(2, b"\x7c")] == [0, 1, 8]
    # An ACK that was overtaken.
    assert [o.transfer for o in transfers.settle(0, b"\xfc\x03")] == [2, 3, 9]
    assert len(list(transfers.settle(2, b"\xff" * 512))) == 90
    assert not transfers.outstanding
    bench.sender.queue(BodyKind.CHUNK, b"", bytes(100), "later")
    bench.send(20.0)
    assert list(transfers.outstanding) == [100]


def test_a_control_carries_one_ack_and_one_whole() -> None:
    """Else one datagram could make a neighbour look at the same thing many times."""
    link = Link()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    ack = wire.AckFrame(0, 0, 0, 1 << 24, 1 << 20, 0).to_bytes()
    whole = wire.WholeFrame(((0, 1),)).to_bytes()
    link.receive(A, B, [theirs._envelope.control([whole, ack])])
    assert not link.cores[A].dropped
    for frames in ([ack, ack], [whole, whole, ack]):
        link.receive(A, B, [theirs._envelope.control(frames)])
    assert link.cores[A].dropped == {"repeated_frame": 2} and ours.is_up


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_bodies_cancelled_while_their_session_ends_are_settled_once(size: int) -> None:
    """The layer above may give up the others when it hears that one is lost; each is told once."""
    link = Link()
    session = link.connect()
    tokens = [object() for _ in range(4)]

    def cancel_all(_: object) -> None:
        for token in tokens:
            session.cancel(token)

    link.uppers[A].on_settled = cancel_all
    for token in tokens:
        session.send(BodyKind.CHUNK, b"", bytes(size), token)
    link.pump()
    session.close("over")
    link.pump()
    assert link.uppers[A].settled == [(token, Settlement.LOST, 0) for token in tokens]
    assert session.queued_bytes == 0 and not link.cores[A].dropped
