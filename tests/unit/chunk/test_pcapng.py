"""Captures that we write ourselves: read back by our reader, and as chunks."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from packetcloud.chunk import pcapng
from packetcloud.chunk.captured import CapturedChunk, captured_chunks
from packetcloud.chunk.errors import CaptureError
from packetcloud.chunk.messages import BodyKind, TaskHeader
from packetcloud.chunk.open_frames import SEGMENT_BYTES, OpenBody
from packetcloud.chunk.pcap import CaptureDecoder
from packetcloud.chunk.scapy_hop import hop_datagram
from packetcloud.chunk.scapy_layers import Chunk
from tests.unit.chunk.captures import read
from tests.unit.router.router_fakes import chunk

HERE, THERE = ("192.0.2.1", 4700), ("198.51.100.7", 5000)
BEGINNING = pcapng.section("test") + pcapng.interface("r1", pcapng.LINK_RAW)
TIME_NS = 1_700_000_000_123_456_789


def open_body(
    content: bytes, body_bytes: int | None = None, kind: BodyKind = BodyKind.CHUNK, number: int = 1
) -> OpenBody:
    size = len(content) if body_bytes is None else body_bytes
    return OpenBody(HERE, THERE, 77, number, kind, content, size, 5)


def file_of(*bodies: OpenBody, comment: str = "") -> bytes:
    packets = [
        pcapng.packet(data, wire_bytes, TIME_NS, comment=comment)
        for body in bodies
        for data, wire_bytes in body.frames()
    ]
    return BEGINNING + b"".join(packets)


def chunks_of(data: bytes) -> list[CapturedChunk]:
    return list(captured_chunks(CaptureDecoder().decode(read(data))))


def test_a_packet_says_what_was_written() -> None:
    """Data, length on the wire, time to the nanosecond, comment and losses come back."""
    packets = [
        pcapng.packet(b"abc", 60, TIME_NS, comment="täken; x", lost_count=3),
        pcapng.packet(b"abcd", 4, 5, direction=pcapng.Direction.OUTBOUND),
    ]
    first, second = read(BEGINNING + b"".join(packets) + pcapng.statistics(9, 4))
    assert (first.data, first.wire_bytes, first.time_ns) == (b"abc", 60, TIME_NS)
    assert (first.comment, first.lost_count) == ("täken; x", 3)
    assert (second.data, second.wire_bytes, second.comment, second.lost_count) == (
        b"abcd",
        4,
        "",
        0,
    )
    assert first.link_type == pcapng.LINK_RAW


def test_a_long_comment_is_cut_between_two_letters() -> None:
    """Whatever a service says, a packet stays small and its comment is text."""
    (packet,) = read(BEGINNING + pcapng.packet(b"", 0, 0, comment="x" + "ä" * 5000))
    assert packet.comment == "x" + "ä" * ((pcapng.MAX_COMMENT_BYTES - 1) // 2)


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES - 88, SEGMENT_BYTES, 3 * SEGMENT_BYTES + 1])
def test_a_chunk_of_any_size_comes_back_whole(size: int) -> None:
    """Chunks larger than a packet are put together from their segments."""
    payload = bytes(range(256)) * (size // 256 + 1)
    data = chunk(payload=payload[:size])
    (found,) = chunks_of(file_of(open_body(data), comment="taken; from=host"))
    assert found.is_whole
    assert (found.payload, found.point, found.time_ns) == (payload[:size], "taken", TIME_NS)


@pytest.mark.parametrize("kept", [0, 10, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 5])
def test_a_cut_chunk_is_told(kept: int) -> None:
    """What the capture has not is missed, what it has is there, and the next chunk is untouched."""
    data, after = chunk(payload=b"x" * 200_000), chunk(payload=b"whole")
    head_bytes = int.from_bytes(data[2:4], "big")
    cut = open_body(data[: head_bytes + kept], len(data))
    first, second = chunks_of(file_of(cut, open_body(after, number=2)))
    assert not first.is_whole
    assert first.payload == b"x" * kept
    assert second.payload == b"whole"


def test_a_task_is_the_chunk_behind_its_head() -> None:
    """A chunk on its way to a VI is read like any other, and marked."""
    task = TaskHeader(9, 1000).to_bytes() + chunk(payload=b"abc")
    (found,) = chunks_of(file_of(open_body(task, kind=BodyKind.TASK)))
    assert found.is_task
    assert found.payload == b"abc"


def test_repeated_and_missing_segments_do_no_harm() -> None:
    """A segment seen twice counts once; behind a missing one nothing is taken for the payload."""
    data = chunk(payload=b"y" * (2 * SEGMENT_BYTES))
    packets = [pcapng.packet(kept, size, 0) for kept, size in open_body(data).frames()]
    assert len(packets) == 3
    (found,) = chunks_of(BEGINNING + packets[0] + packets[0] + packets[2] + packets[1])
    assert found.is_whole
    (holed,) = chunks_of(BEGINNING + packets[0] + packets[2])
    assert not holed.is_whole
    assert holed.payload == b"y" * (SEGMENT_BYTES - len(data) + 2 * SEGMENT_BYTES)
    assert chunks_of(BEGINNING + packets[1] + packets[2]) == []


def test_scapy_reads_what_was_written() -> None:
    """IP and UDP headers are right, and the chunk layer is found below them."""
    data = chunk(payload=b"z" * 100)
    ((packet, wire_bytes),) = open_body(data).frames()
    frame = IP(packet)
    assert (frame.src, frame.dst, frame.len) == (HERE[0], THERE[0], wire_bytes)
    assert bytes(IP(bytes(frame))) == packet
    del frame.chksum
    assert IP(bytes(frame)).chksum == IP(packet).chksum
    assert (frame[UDP].sport, frame[UDP].dport) == (HERE[1], THERE[1])
    assert bytes(hop_datagram(bytes(frame[UDP].payload))[Chunk])[: len(data)] == data


@pytest.mark.parametrize(
    ("there", "shown"), [("2001:db8::1", "2001:db8::1"), ("192.0.2.9", "::ffff:192.0.2.9")]
)
def test_addresses_of_version_6(there: str, shown: str) -> None:
    """One address of version 6 makes the packet one; the other is mapped."""
    body = OpenBody(("::1", 1), (there, 2), 1, 1, BodyKind.CHUNK, b"abc", 3)
    ((packet, wire_bytes),) = body.frames()
    frame = IPv6(packet)
    assert (frame.src, frame.dst, frame.plen) == ("::1", shown, wire_bytes - 40)
    assert frame[UDP].len == wire_bytes - 40


def test_blocks_are_cut_and_counted() -> None:
    """However the stream comes, whole blocks go on, packets and losses are counted."""
    stream = (
        BEGINNING
        + pcapng.packet(b"abc", 3, 1, lost_count=2)
        + pcapng.packet(b"abcdef", 6, 2, comment="x")
        + pcapng.statistics(3, 7)
    )
    for step in (1, 7, len(stream)):
        counter = pcapng.BlockCounter()
        out = b"".join(counter.feed(stream[at : at + step]) for at in range(0, len(stream), step))
        assert out == stream
        assert (counter.packets_count, counter.lost_count) == (2, 7)
        assert counter.commented_count == 1
    cut = pcapng.BlockCounter()
    whole = cut.feed(stream[:-5])
    assert list(read(whole))
    assert (cut.packets_count, cut.lost_count) == (2, 2)


@pytest.mark.parametrize("data", [b"<html>not a capture</html>", struct.pack(">III", 6, 13, 0)])
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    """Something else that answers on the port does not become a file."""
    with pytest.raises(CaptureError, match="no capture"):
        pcapng.BlockCounter().feed(data)
