"""The window of what can wait."""

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig, Settlement
from packetcloud.chunk.hop.background import MIN_DATAGRAMS, TARGET_S, BackgroundWindow
from packetcloud.chunk.hop.buffers import BufferPool
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.path_model import PathModel
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.hop.sender import Sender
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import B, Link

STRIDE = 1472
RTT_S = 0.030


def grown(rounds: int = 12) -> tuple[BackgroundWindow, PathModel]:
    """A window that found the path empty for some rounds."""
    window, path = BackgroundWindow(STRIDE), PathModel()
    path.add_rtt(RTT_S, 0.0)
    for _ in range(rounds):
        window.is_full = True
        window.on_round(path, RTT_S, has_lost=False)
    return window, path


def test_it_grows_on_an_empty_path_and_only_when_it_is_used() -> None:
    """Who sends less than he may learns nothing of what more would do."""
    window, path = grown()
    before = window.window_bytes
    assert before > 100 * STRIDE
    window.on_round(path, RTT_S, has_lost=False)
    assert window.window_bytes == before


def test_a_queue_beyond_the_target_halves_it_until_next_to_nothing_is_left() -> None:
    """At twice the target or more; in a few round trips it is out of the way."""
    window, path = grown()
    for _ in range(20):
        window.on_round(path, RTT_S + 3 * TARGET_S, has_lost=False)
    assert window.window_bytes == MIN_DATAGRAMS * STRIDE


def test_loss_without_a_queue_changes_nothing() -> None:
    """It is the path's, not of congestion."""
    window, path = grown()
    before = window.window_bytes
    window.on_round(path, RTT_S, has_lost=True)
    assert window.window_bytes == before


def test_loss_with_a_queue_halves_it() -> None:
    """A buffer so short that its delay stays below the target still overflows."""
    window, path = grown()
    before = window.window_bytes
    window.on_round(path, RTT_S + 0.006, has_lost=True)
    assert window.window_bytes == before / 2


def sender_with(*classes: bool) -> tuple[Sender, list[tuple[object, Settlement]]]:
    """A sender with a body of 20 datagrams of each class, background or not."""
    rtt = RttEstimator()
    rtt.add_sample(RTT_S, 0.0, 0.0)
    settled: list[tuple[object, Settlement]] = []
    sender = Sender(
        7, STRIDE, 1 << 21, 1 << 24, 1 << 24, None, Envelope(7, None), BufferPool(), rtt,
        lambda token, how, _: settled.append((token, how)),
    )  # fmt: skip
    for number, background in enumerate(classes):
        sender.queue(
            BodyKind.CHUNK, b"", bytes(20 * STRIDE), f"body {number}", background=background
        )
    return sender, settled


def sent(sender: Sender) -> int:
    count = 0
    while sender.departures.next_burst(0.0) is not None:
        count += 1
    return sender.in_flight_bytes


def test_a_body_that_can_wait_leaves_after_all_others_whenever_it_was_queued() -> None:
    """The first transfer is the one that was queued last."""
    sender, _ = sender_with(True, False)
    sender.departures.next_burst(0.0)
    assert sender.transfers.outstanding[0].token == "body 1"


def test_alone_only_its_own_window_is_in_flight() -> None:
    """Two datagrams to begin with, where another body would send sixteen."""
    assert sent(sender_with(True)[0]) <= MIN_DATAGRAMS * STRIDE
    assert sent(sender_with(False)[0]) > 10 * STRIDE


def test_bodies_that_wait_are_cancelled_and_lost_like_others() -> None:
    """Queued or under way, each is settled once."""
    sender, settled = sender_with(True, True, True)
    sender.departures.next_burst(0.0)
    sender.cancel(sender.transfers.outstanding[0].token)
    sender.cancel(sender.flows._can_wait[-1].token)
    sender.close()
    assert sorted(settled, key=str) == [
        ("body 0", Settlement.CANCELLED),
        ("body 1", Settlement.LOST),
        ("body 2", Settlement.CANCELLED),
    ]
    assert sender.queued_bytes == 0


def test_credit_that_comes_free_goes_to_a_body_that_cannot_wait() -> None:
    """Smaller ones that can wait would else take it bit by bit, for ever."""
    link = Link(config=HopConfig(credit_bytes=400_000))
    session = link.connect()
    upper = link.uppers[B]
    upper.keeps = True
    for number in range(60):
        session.send(BodyKind.CHUNK, b"", b"b" * 30_000, number, background=True)
    link.run(lambda: len(upper.bodies) >= 13)
    session.send(BodyKind.CHUNK, b"", b"F" * 200_000, "cannot wait")
    while not any(body[:1] == b"F" for body in upper.bodies):
        assert upper.keep, "all was released and it has not come"
        upper.keep.pop(0).release()
        link.pass_time(0.3)
    assert len(upper.bodies) <= 15
    upper.keeps = False
    while upper.keep:
        upper.keep.pop().release()
    link.run_until_settled(61)


def test_what_was_lost_of_a_body_that_can_wait_waits_and_keeps_to_its_window() -> None:
    """It goes after all else, and only as its window has room."""
    sender, _ = sender_with(True)
    assert sent(sender) == MIN_DATAGRAMS * STRIDE
    (waiting,) = sender.transfers.outstanding.values()
    sender.departures.find_lost(waiting, sender.flight.next_burst)
    assert waiting.lost
    sender.queue(BodyKind.CHUNK, b"", bytes(5 * STRIDE), "cannot wait")
    assert sent(sender) > (MIN_DATAGRAMS + 5) * STRIDE
    assert waiting.lost and not sender.retransmitted_segments
    flight = sender.flight
    ack = wire.AckFrame(flight.next_burst - 1, 0, flight.sent_bytes, 1 << 24, 1 << 24, 0)
    sender.receive_ack(ack, (), RTT_S)
    assert sender.departures.next_burst(1.0) is not None
    assert 0 < sender.retransmitted_segments <= MIN_DATAGRAMS
    assert flight.background_bytes == flight.in_flight_bytes <= 2 * MIN_DATAGRAMS * STRIDE
