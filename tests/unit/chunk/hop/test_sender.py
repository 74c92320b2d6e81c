"""The sender alone: what counts as lost, and when it asks for an ACK."""

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.hop.sender import Sender
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.test_core import A, Link

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
        link.run(lambda: len(link.uppers[A].settled) > number)  # noqa: B023
        assert len(history) < 4
    end = link.now + 3600
    link.run(lambda: link.now >= end, 3700)
    assert session.sender.probes > 1000
    assert len(history) < 4
