"""Senders and receivers of a measurement, without sockets and without time passing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from packetcloud.chunk.header import decode_header
from packetcloud.chunk.hop.api import Buffer, Refusal, Role, Settlement
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import SID, SID_SEQUENCE
from packetcloud.testbed.traffic import caller as calling
from packetcloud.testbed.traffic import receiver as receiving
from packetcloud.testbed.traffic import sender as sending
from packetcloud.testbed.traffic.pattern import SampleCheck, make_payload
from packetcloud.testbed.traffic.schedule import FullWindow, SetRate
from packetcloud.testbed.traffic.window import ArrivalWindow

HOST = Identity(bytes(32)).guid
OTHER = Identity(bytes([1]) * 32).guid


class RecordingNeighbour:
    """A neighbour that keeps what it is given."""

    guid = OTHER
    role = Role.HOST
    is_up = True
    address = ("192.0.2.1", 1)
    queued_bytes = 0

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, object]] = []

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        background: bool = False,
    ) -> None:
        self.sent.append((prefix + bytes(payload), token))

    def send_body(self, *_: object) -> None:
        raise NotImplementedError

    def cancel(self, token: object) -> None:
        raise NotImplementedError

    def close(self, reason: str = "") -> None:
        raise NotImplementedError


class PlainBody:
    """A received body in one piece."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.is_released = False

    def __len__(self) -> int:
        return len(self.data)

    def head(self, count: int) -> bytes:
        return bytes(self.data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def contiguous(self) -> memoryview:
        return memoryview(self.data)

    def look(self, at: Callable[[memoryview], Any]) -> Any:
        return at(self.contiguous())

    def release(self) -> None:
        self.is_released = True


def test_the_window_counts_only_what_came_after_the_arrival_that_opened_it() -> None:
    """Neither the warm-up nor the opening arrival adds bytes; the closing one does."""
    window = ArrivalWindow(warmup_s=1.0, seconds=2.0)
    closed = [window.arrived(moment, 100) for moment in (10.0, 10.5, 11.0, 12.0, 12.9)]
    assert closed == [None] * 5
    result = window.arrived(13.5, 100)
    assert result is not None
    assert (result.begin_s, result.end_s, result.payload_bytes) == (11.0, 13.5, 300)
    assert window.bodies == 3
    assert result.goodput_gbps == pytest.approx(300 * 8 / 2.5 / 1e9)


def test_a_full_window_tops_up_what_was_settled() -> None:
    """As many bodies are due as are missing from the window."""
    schedule = FullWindow(outstanding=8)
    assert [schedule.due(0.0, in_flight) for in_flight in (0, 5, 8)] == [8, 3, 0]
    assert schedule.next_s() is None


def test_a_set_rate_catches_up_after_a_pause() -> None:
    """The rate holds over time: a late wake-up sends all that is due since."""
    schedule = SetRate(rate=10.0, start_s=100.0, most_outstanding=50)
    assert schedule.due(100.0, 0) == 1
    assert schedule.next_s() == pytest.approx(100.1)
    assert schedule.due(100.05, 1) == 0
    assert schedule.due(100.55, 1) == 5
    assert schedule.skipped == 0


def test_a_set_rate_beyond_the_limit_skips_instead_of_queueing_for_ever() -> None:
    """What is due while too much is in flight is counted, not kept."""
    schedule = SetRate(rate=10.0, start_s=0.0, most_outstanding=3)
    assert schedule.due(1.0, 0) == 3
    assert schedule.skipped == 8
    assert schedule.due(1.1, 3) == 0
    assert schedule.skipped == 9


def test_the_sample_check_finds_an_altered_payload() -> None:
    """The first body and then one in `every` is compared, byte by byte."""
    check = SampleCheck(1000, every=4)
    assert [check.is_due() for _ in range(9)] == [number % 4 == 0 for number in range(9)]
    good = make_payload(1000)
    check.compare(memoryview(good))
    check.compare(memoryview(good[:-1] + bytes([good[-1] ^ 1])))
    assert (check.compared, check.altered) == (2, 1)


def _sender(outstanding: int = 2) -> tuple[sending.Sender, RecordingNeighbour]:
    head = sending.chunk_head(HOST, OTHER, 10, [])
    sender = sending.Sender(None, head, make_payload(10), lambda _: FullWindow(outstanding))
    neighbour = RecordingNeighbour()
    sender.begin(neighbour)
    return sender, neighbour


def test_every_sent_chunk_is_whole_and_has_an_id_of_its_own() -> None:
    """What goes out decodes as a chunk from us to the receiver."""
    sender, neighbour = _sender()
    sender.body_settled(neighbour, neighbour.sent[0][1], Settlement.ACCEPTED, 0)
    headers = [decode_header(body) for body, _ in neighbour.sent]
    assert len(headers) == len({header.chunk_id for header in headers}) == 3
    assert {(header.source, header.destination) for header in headers} == {(HOST, OTHER)}
    assert neighbour.sent[0][0].endswith(make_payload(10))


class _LaterReactor:
    """Keeps what is to happen later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def callLater(self, after_s: float, call: Callable[[], None]) -> None:
        self.calls.append((after_s, call))


def test_the_time_to_connect_does_not_leave_as_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set rate begins when sending does, however long before that the sender was there."""
    now = [100.0]
    monkeypatch.setattr(sending, "now_s", lambda: now[0])
    reactor, neighbour = _LaterReactor(), RecordingNeighbour()
    head = sending.chunk_head(HOST, OTHER, 10, [])
    sender = sending.Sender(
        reactor, head, make_payload(10), lambda start_s: SetRate(10.0, start_s, 50)
    )
    assert sender.skipped == 0
    now[0] += 8.0
    sender.begin(neighbour)
    assert len(neighbour.sent) == 1
    ((after_s, call),) = reactor.calls
    assert after_s == pytest.approx(0.1)
    now[0] += 0.1001
    call()
    assert len(neighbour.sent) == 2


def test_who_measures_is_not_woken_while_a_chunk_is_under_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What became of an order is told a while after the router took its last chunk."""
    reactor, neighbour = _LaterReactor(), RecordingNeighbour()
    caller = calling.Caller(reactor, HOST)
    caller.begin(neighbour)
    order = {"destination": OTHER.hex, "sids": [], "payload_bytes": 10}
    caller.obey({**order, "count": 1, "interval_s": 0.0})
    ((_, token),) = neighbour.sent
    caller.body_settled(neighbour, token, Settlement.ACCEPTED, 0)
    assert capsys.readouterr().out == ""
    ((after_s, call),) = reactor.calls
    assert after_s == calling.TOLD_AFTER_S
    call()
    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["settled"]) == ("sent", {"accepted": 1})
    assert [number for number, _ in said["departures"]] == [token]


def test_a_draining_sender_waits_for_what_is_in_flight() -> None:
    """Nothing new is sent, and the drain ends with the last settlement."""
    sender, neighbour = _sender()
    drained = sender.drain()
    (_, first), (_, second) = neighbour.sent
    sender.body_settled(neighbour, first, Settlement.ACCEPTED, 0)
    assert not drained.called
    sender.body_settled(neighbour, second, Settlement.REFUSED, 1)
    assert drained.called
    assert len(neighbour.sent) == 2
    assert sender.settled == {"accepted": 1, "refused": 1}
    assert sender.refusals == {"unknown_sid": 1}


def test_one_service_goes_into_the_sid_and_several_into_a_sequence() -> None:
    """The header asks for the services in the order in which they were given."""
    sids = [SID(bytes([number]) * 20) for number in (1, 2)]
    assert decode_header(sending.chunk_head(HOST, OTHER, 1, sids[:1])).sid == sids[0]
    header = decode_header(sending.chunk_head(HOST, OTHER, 1, sids))
    assert header.sid == SID_SEQUENCE
    assert header.sequence is not None
    assert header.sequence.sids == tuple(sids)


def test_the_receiver_takes_counts_checks_and_releases(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payload bytes are counted without headers; that the warm-up is over is said once, and
    the window once, when it closes."""
    clock = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(receiving, "now_s", lambda: next(clock))
    receiver = receiving.Receiver(ArrivalWindow(0.5, 1.0), SampleCheck(10), 10, keeps=True)
    head = sending.chunk_head(HOST, OTHER, 10, [])
    bodies = [PlainBody(head + make_payload(10)) for _ in range(3)]
    bodies.append(PlainBody(head + make_payload(11)))
    for body in bodies:
        taken: Refusal | None = receiver.body_received(RecordingNeighbour(), BodyKind.CHUNK, body)
        assert taken is None
    assert all(body.is_released for body in bodies)
    report = receiver.report()
    assert (report["bodies"], report["payload_bytes"]) == (4, 41)
    assert (report["wrong_length"], report["compared"], report["altered"]) == (1, 1, 0)
    assert receiver.arrivals == [(0, 0.0), (0, 1.0), (0, 2.0), (0, 3.0)]
    opened, line = capsys.readouterr().out.splitlines()
    assert json.loads(opened) == {"event": "opened", "at_s": 1.0}
    assert '"payload_bytes": 10' in line
