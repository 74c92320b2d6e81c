"""One hop core and its socket: trains in, bursts out, and in which order."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.replies import MAX_REPLIES_COUNT
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link


def test_a_control_datagram_joined_to_a_train_of_data_counts() -> None:
    """The kernel may hand over segments and a short PROBE behind them as one train."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", bytes(1440 * 6 - 16), "x")
    seen: list[bytes] = []
    link.on_datagram = lambda source, datagram: bool(seen.append(datagram)) if source == A else True
    link.pump()
    data = [datagram for datagram in seen if len(datagram) == 1472][:2]
    probe = neighbour._envelope.control([neighbour.sender.flight.probe(link.now)])
    link.receive(B, A, [*data, probe])
    assert not link.cores[B].dropped
    answers = list(link.cores[B].datagrams_to_send(link.now))
    assert any(bytes(buffers[0])[0] == wire.CONTROL_BYTE for _, buffers, _ in answers)


def test_a_single_small_body_needs_no_probe() -> None:
    """The very first burst is acknowledged as such: a round-trip sample, and nothing in flight."""
    link = Link()
    neighbour = link.connect()
    neighbour.send(BodyKind.CHUNK, b"", b"hello", "x")
    link.run(lambda: bool(link.uppers[A].settled))
    link.pass_time(1)
    assert neighbour.sender.probes == 0 and neighbour.sender.in_flight_bytes == 0
    assert neighbour.rtt.smoothed_s == pytest.approx(2 * link.delay_s, abs=0.006)


def test_replies_to_strangers_are_capped_while_the_socket_is_stuck() -> None:
    """Whoever asks again is answered later; memory stays what it is."""
    link = Link()
    core = link.cores[B]
    for number in range(MAX_REPLIES_COUNT + 1):
        core._replies.add((("198.51.100.7", number), [b"x"], 1))
    assert core.dropped["replies_full"] == 1
    assert len(list(core.datagrams_to_send(link.now))) == MAX_REPLIES_COUNT


@pytest.mark.parametrize(
    ("kinds_sent", "delay_s", "is_control_first"),
    [
        ((BodyKind.CHUNK,), 0.0002, True),
        ((BodyKind.TASK,), 0.0002, False),
        ((BodyKind.TASK,), 0.005, True),
        ((BodyKind.TASK, BodyKind.TASK), 0.0002, True),
    ],
)
def test_control_of_one_session_goes_before_the_bursts_of_another(
    kinds_sent: tuple[BodyKind, ...], delay_s: float, is_control_first: bool
) -> None:
    """An ACK never waits behind chunks, but for the only one that a service near by waits for."""
    link = Link(delay_s=delay_s)
    busy = link.connect()
    core = link.cores[A]
    idle = next(iter(link.cores[B].sessions.values()))
    for number, kind in enumerate(kinds_sent):
        busy.send(kind, number.to_bytes(8, "big"), bytes(500_000), number)
    other = Link(seed=2).connect()
    core.sessions[1] = other
    other.receiver.acks.due_now = True
    core._active[other] = None
    kinds = [buffers[0][0] & 15 for _, buffers, _ in core.datagrams_to_send(link.now)]
    first = kinds.index(wire.DatagramType.CONTROL) < kinds.index(wire.DatagramType.DATA)
    assert first is is_control_first
    assert idle.is_up


def test_who_was_cut_short_by_a_full_socket_is_last_the_next_time() -> None:
    """Else the first session would have the socket for itself."""
    link = Link()
    first = link.connect()
    second = Link(seed=2).connect()
    core = link.cores[A]
    core.sessions[1] = second
    first.send(BodyKind.CHUNK, b"", bytes(500_000), 1)
    second.send(BodyKind.CHUNK, b"", bytes(500_000), 2)
    core._active[second] = None
    sent = core.datagrams_to_send(link.now)
    while next(sent)[1][0][0] & 15 != wire.DatagramType.DATA:
        pass
    sent.close()  # the socket is full
    assert list(core._active) == [second, first]
