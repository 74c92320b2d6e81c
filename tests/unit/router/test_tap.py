"""Captures inside the router: what they see, whom they do not disturb."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any

import pytest
from scapy.utils import rdpcap

from packetcloud.chunk.capture import read_packets
from packetcloud.chunk.captured import captured_chunks
from packetcloud.chunk.messages import BodyKind, VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.chunk.pcap import CaptureDecoder, Sighting
from packetcloud.chunk.reasons import Reason
from packetcloud.chunk.scapy_hop import HopData, bind_hop_port
from packetcloud.chunk.scapy_layers import Chunk, Verdict
from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.errors import TooManyCapturesError
from packetcloud.router.settings import SpoolSettings
from packetcloud.router.tap import MAX_CAPTURES_COUNT, MAX_RING_BYTES, Capture, Point, Sight, Wanted
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeNetwork,
    S,
    T,
    chunk,
    guid,
    service,
    settings,
    sid,
)


def begin(net: FakeNetwork, wanted: Wanted | None = None) -> Capture:
    return net.core.tap.begin(wanted or Wanted(), lambda: None)


def sights(capture: Capture) -> list[Sight]:
    return [sight for sight, _ in capture.take(1 << 30)]


def points(capture: Capture) -> list[str]:
    return [sight.point for sight in sights(capture)]


def write(capture: Capture) -> bytes:
    writer = CaptureWriter("r1", ("127.0.0.1", 4700), 99)
    return writer.beginning() + writer.packets(capture.take(1 << 30)) + writer.ending(0, 0)


def decode(data: bytes) -> list[Sighting]:
    return list(CaptureDecoder().decode(read_packets(io.BytesIO(data), "test")))


def test_a_chunk_is_seen_where_it_passes() -> None:
    """Taken, given to a VI, answered and sent on, in this order, with its bytes at each point."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    capture = begin(net, Wanted(snap_bytes=1000))
    assert a.chunk(chunk(services=(S,), payload=b"before")) is None
    (task,) = vi.accept_all()
    vi.verdict(task, VerdictCode.UPDATE, b"behind it")
    (sent,) = b.accept_all()
    seen = sights(capture)
    assert [one.point for one in seen] == ["taken", "task", "verdict", "left"]
    assert [one.kind for one in seen] == [
        BodyKind.CHUNK,
        BodyKind.TASK,
        BodyKind.VERDICT,
        BodyKind.CHUNK,
    ]
    assert seen[0].content.endswith(b"before")
    assert seen[1].content == task.data
    assert seen[2].content.endswith(b"behind it")
    assert seen[3].content == sent.data
    assert all(len(one.content) == one.body_bytes for one in seen)
    assert net.core.tap.is_on
    net.core.tap.end(capture)
    assert not net.core.tap.is_on
    assert a.chunk(chunk()) is None
    assert not sights(capture)


def test_scapy_reads_a_capture() -> None:
    """Each look at a chunk is a packet of its layers, with the comment; what a large one has
    besides are its further segments."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    capture = begin(net, Wanted(snap_bytes=1 << 20))
    payload = bytes(range(256)) * 300
    assert a.chunk(chunk(services=(S,), payload=payload)) is None
    (task,) = vi.accept_all()
    vi.verdict(task, VerdictCode.UPDATE, b"behind it")
    b.accept_all()
    writer = CaptureWriter("r1", ("127.0.0.1", 47_124), 99)
    data = writer.beginning() + writer.packets(capture.take(1 << 30)) + writer.ending(0, 0)
    bind_hop_port(47_124)
    packets = rdpcap(io.BytesIO(data))
    shown = [
        (packet.comments[0].decode().partition(";")[0], packet[Chunk])
        for packet in packets
        if Chunk in packet
    ]
    assert [point for point, _ in shown] == ["taken", "task", "left"]
    for point, layer in shown:
        assert (layer.source, layer.destination) == (A.value, B.value)
        assert layer.payload_bytes == (9 if point == "left" else len(payload))
    (verdict,) = (packet for packet in packets if Verdict in packet)
    assert verdict.comments[0].startswith(b"verdict; from=VI 1 of service")
    assert len(packets) > 4 and all(HopData in packet for packet in packets)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": C}, Reason.NOT_AUTHORISED),
        ({"destination": C}, Reason.UNRESOLVABLE_GUID),
        ({"services": (T,)}, Reason.UNKNOWN_SID),
        ({"lifetime_ms": 0}, Reason.DEADLINE_PASSED),
    ],
)
def test_a_refusal_at_the_door_is_seen_with_its_reason(
    changes: dict[str, Any], reason: Reason
) -> None:
    """What was never in custody is seen too, and what was refused is not seen as taken."""
    net = FakeNetwork()
    a, _ = net.host(A), net.host(B)
    capture = begin(net)
    data = chunk(payload=b"x" * 200, **changes)
    assert a.chunk(data) is not None
    (seen,) = sights(capture)
    assert (seen.point, seen.text) == (Point.ENDED, f"refused at the door: {reason.word}")
    header_bytes = int.from_bytes(data[2:4], "big")
    assert seen.content == data[: header_bytes + 64]
    assert seen.body_bytes == len(data)


def test_a_malformed_chunk_is_seen_too() -> None:
    """Whatever came is shown as far as its first bytes go."""
    net = FakeNetwork()
    a = net.host(A)
    capture = begin(net)
    for data in (b"", b"\xff", chunk()[:50], b"\x01\x02\xff\xff" + bytes(2000)):
        assert a.chunk(data) is not None
    assert [one.text for one in sights(capture)] == ["refused at the door: malformed"] * 4
    assert a.chunk(b"\xff" * 300) is not None
    assert len(decode(write(capture))) == 1


def test_every_end_in_custody_is_seen_with_its_reason() -> None:
    """Dropped by a service, expired, refused by the next hop: each with what its source is told."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    capture = begin(net, Wanted(frozenset({Point.ENDED})))
    assert a.chunk(chunk(services=(S,))) is None
    (task,) = vi.accept_all()
    vi.verdict(task, VerdictCode.DROP, detail=b"a virus")
    assert [one.text for one in sights(capture)] == ["dropped: dropped_by_service: a virus"]
    assert a.chunk(chunk(chunk_id=8)) is None
    b.go_down()
    net.pass_time(200.0)
    assert [one.text for one in sights(capture)] == [
        f"expired: neighbour_lost: host {B.short} was away for too long"
    ]


def test_a_chunk_that_the_disk_refuses_is_not_seen_as_taken() -> None:
    """With durable custody a chunk is taken when its record is written, and seen then."""
    net = FakeNetwork(settings(spool=SpoolSettings(is_durable=True)))
    a, b = net.host(A), net.host(B)
    capture = begin(net, Wanted(frozenset({Point.TAKEN, Point.ENDED})))
    a.chunk(chunk())
    assert points(capture) == []
    net.disk_turns()
    assert points(capture) == ["taken"]
    b.accept_all()
    net.disk_turns()


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Wanted(), True),
        (Wanted(guid=A.hex[:4]), True),
        (Wanted(guid=B.hex), True),
        (Wanted(guid=C.hex[:5]), False),
        (Wanted(source=A.hex, destination=B.hex), True),
        (Wanted(source=B.hex), False),
        (Wanted(destination=A.hex), False),
        (Wanted(sid=T.hex[:7]), True),
        (Wanted(sid=S.hex), True),
        (Wanted(sid=sid("x").hex), False),
        (Wanted(rule=7), False),
    ],
)
def test_a_filter_chooses_by_the_chunk_as_it_came(wanted: Wanted, taken: bool) -> None:
    """Names match by their beginning, a service anywhere in a sequence, and at every point alike,
    although the header changes on the way."""
    net = FakeNetwork(settings(service(S), service(T)))
    a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
    capture = begin(net, wanted)
    assert a.chunk(chunk(services=(S, T))) is None
    for vi in (s, t):
        vi.verdict(vi.accept_all()[0])
    assert len(b.accept_all()) == 1
    assert points(capture) == (["taken", *["task", "verdict"] * 2, "left"] if taken else [])


def test_a_plain_chunk_asks_for_no_service() -> None:
    """A filter by service leaves out what asks for none."""
    assert not Wanted(sid="61").takes(chunk())
    assert Wanted(sid=S.hex[:4]).takes(chunk(services=(S,)))


def test_samples_are_the_same_at_every_point() -> None:
    """One of N chunks is seen everywhere it passes, the others nowhere."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    capture = begin(net, Wanted(sample=10))
    for number in range(500):
        assert a.chunk(chunk(chunk_id=number)) is None
        b.accept_all()
    seen = sights(capture)
    chosen = {n for n in range(500) if not zlib.crc32(n.to_bytes(8, "big") + A.value) % 10}
    assert 20 < len(chosen) < 90
    for point in ("taken", "left"):
        ids = [int.from_bytes(one.content[8:16], "big") for one in seen if one.point == point]
        assert ids == sorted(chosen)


def test_a_count_ends_a_capture() -> None:
    """After the last look nothing more comes in."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    capture = begin(net, Wanted(count=3))
    for number in range(5):
        assert a.chunk(chunk(chunk_id=number)) is None
        b.accept_all()
    assert capture.is_over
    assert points(capture) == ["taken", "left", "taken"]


def test_what_finds_no_room_is_counted_where_it_is_missing() -> None:
    """A reader that takes nothing loses what comes last, and is told in the capture."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    size = MAX_RING_BYTES // 4
    capture = begin(net, Wanted(frozenset({Point.TAKEN}), snap_bytes=size))
    other = begin(net, Wanted(frozenset({Point.TAKEN}), snap_bytes=0))
    for number in range(10):
        assert a.chunk(chunk(chunk_id=number, payload=bytes(1 << 20))) is None
        b.accept_all()
    assert not capture.lost_count
    wide = chunk(payload=bytes(size - 2000))
    net.core.configure(replace(net.core.settings, max_payload_bytes=size), net.now)
    for _ in range(3):
        assert a.chunk(wide) is None
        b.accept_all()
    assert capture.lost_count == 2
    assert net.core.tap.lost_count == 2
    assert capture.ring_bytes <= MAX_RING_BYTES
    assert len(capture.take(1 << 30)) == 11
    assert capture.ring_bytes == 0
    assert a.chunk(chunk()) is None
    ((_, lost_count),) = capture.take(1)
    assert lost_count == 2
    assert len(sights(other)) == 14


def test_a_reader_is_woken_when_there_is_something_to_take() -> None:
    """Once for each time that the ring fills, and at the end."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    calls: list[int] = []
    capture = net.core.tap.begin(Wanted(), lambda: calls.append(1))
    for number in range(3):
        assert a.chunk(chunk(chunk_id=number)) is None
        b.accept_all()
    assert len(calls) == 1
    capture.take(1 << 30)
    assert a.chunk(chunk()) is None
    assert len(calls) == 2
    net.core.tap.end_all()
    assert len(calls) == 3
    assert capture.is_over


def test_no_more_captures_than_the_cap() -> None:
    """One more is refused with what to do; ended ones make room."""
    net = FakeNetwork()
    running = [begin(net) for _ in range(MAX_CAPTURES_COUNT)]
    with pytest.raises(TooManyCapturesError, match="end one of them"):
        begin(net)
    net.core.tap.end(running[0])
    net.core.tap.end(running[0])
    begin(net)


def test_the_file_is_read_as_hop_datagrams() -> None:
    """Chunks, tasks and verdicts with their comments; the verdict is told by the chunk of its
    task, whoever the neighbour is by its address."""
    net = FakeNetwork(settings(service(S)))
    a, b, vi = net.host(A), net.host(B), net.vi(S)
    vi.address = ("192.0.2.33", 9)
    capture = begin(net)
    assert a.chunk(chunk(services=(S,))) is None
    vi.verdict(vi.accept_all()[0])
    b.accept_all()
    assert a.chunk(chunk(destination=guid("x"))) is not None
    seen = decode(write(capture))
    assert [one.datagram.bodies[0].kind for one in seen] == [
        "chunk",
        "task",
        "verdict",
        "chunk",
        "chunk",
    ]
    assert [one.datagram.error or one.datagram.bodies[0].error for one in seen] == [None] * 5
    verdict = seen[2]
    assert verdict.source == ("192.0.2.33", 9)
    assert verdict.headers[0] is not None
    assert verdict.headers[0].source == A
    comments = [one.comment for one in seen]
    assert comments[0] == f"taken; from=host {A.hex}"
    assert comments[1] == "task; to=VI 1 of service s"
    assert comments[2].startswith("verdict; from=VI 1 of service s; forward; chunk=")
    assert comments[3] == f"left; to=host {B.hex}"
    assert comments[4] == f"ended; from=host {A.hex}; refused at the door: unresolvable_guid"


def test_a_chunk_in_the_file_can_be_taken_out_again() -> None:
    """What the file holds of a chunk is what came, byte by byte, however large it is."""
    net = FakeNetwork()
    a, b = net.host(A), net.host(B)
    capture = begin(net, Wanted(frozenset({Point.TAKEN}), snap_bytes=1 << 20))
    payload = bytes(range(256)) * 4096
    assert a.chunk(chunk(payload=payload)) is None
    b.accept_all()
    (found,) = captured_chunks(decode(write(capture)))
    assert found.payload == payload
    assert found.header.source == A
    assert found.point == "taken"


def test_captures_change_nothing() -> None:
    """With a capture of everything, chunks end as without, and all memory comes back."""
    ends = []
    for is_watched in (False, True):
        net = FakeNetwork(settings(service(S), service(T)))
        a, b, s, t = net.host(A), net.host(B), net.vi(S), net.vi(T)
        if is_watched:
            begin(net, Wanted(snap_bytes=1 << 20))
        for number, services in enumerate([(), (S,), (T, S), (sid("x"),)]):
            a.chunk(chunk(services=services, chunk_id=number))
        for _ in range(3):
            for vi, code in ((s, VerdictCode.UPDATE), (t, VerdictCode.DROP)):
                for task in vi.accept_all():
                    vi.verdict(task, code, b"new" if code is VerdictCode.UPDATE else b"")
        net.end_turn()
        ends.append(([sent.data for sent in b.accept_all()], net.sums, len(a.accept_all())))
        net.check_idle()
    assert ends[0] == ends[1]


def test_names_of_strangers_do_no_harm() -> None:
    """A GUID that looks like a filter's end matches only by its digits."""
    assert not Wanted(guid="00" * 20).takes(chunk())
    assert Wanted(guid="00" * 20).takes(chunk(destination=GUID(bytes(20))))
