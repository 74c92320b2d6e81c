"""Capture files: both formats and byte orders; damage is told, after what came before it."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.capture import (
    MAX_BLOCK_BYTES,
    MAX_INTERFACES_COUNT,
    MAX_PACKET_BYTES,
    CapturedPacket,
)
from packetcloud.chunk.errors import CaptureError
from tests.unit.chunk.captures import (
    block,
    enhanced,
    interface,
    pcap,
    pcapng,
    read,
    section,
)

FRAMES = [b"first", b"second!", b""]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap(order: str, nano: bool) -> None:
    """Both byte orders, micro- and nanoseconds: data, times and lengths are right."""
    unit_ns = 1 if nano else 1000
    assert list(read(pcap(FRAMES, order, nano=nano))) == [
        CapturedPacket(n, n * 1_000_000_000 + n * unit_ns, 1, data, len(data))
        for n, data in enumerate(FRAMES, 1)
    ]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(order: str) -> None:
    """Both byte orders; unknown blocks are skipped."""
    data = pcapng(FRAMES, order) + block(order, 5, b"statistics") + enhanced(b"last", 7, order)
    assert [(packet.time_ns, packet.data) for packet in read(data)] == [
        (1000, b"first"),
        (2000, b"second!"),
        (3000, b""),
        (7000, b"last"),
    ]


def test_pcapng_sections_and_interfaces() -> None:
    """A second section has its own byte order and interfaces; each interface its own clock."""
    nano = struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HHq", 14, 8, 100) + bytes(4)
    binary = struct.pack("<HHB3x", 9, 1, 0x80 | 10)
    data = (
        section()
        + interface(options=nano)
        + interface(link_type=101, options=binary)
        + enhanced(b"a", 5)
        + enhanced(b"b", 2048, index=1)
        + enhanced(b"late", 1 << 40, index=1)
        + section(">")
        + interface(">", 113)
        + enhanced(b"c", 1, ">")
    )
    assert [(packet.time_ns, packet.link_type) for packet in read(data)] == [
        (100_000_000_005, 1),
        (2_000_000_000, 101),
        ((1 << 30) * 1_000_000_000, 101),
        (1000, 113),
    ]


def test_pcapng_simple_packets() -> None:
    """A simple packet has no time and the first interface's link type."""
    data = section() + interface() + block("<", 3, struct.pack("<I", 5) + b"hello")
    assert list(read(data)) == [CapturedPacket(1, None, 1, b"hello", 5)]


def test_a_short_snapshot_is_told() -> None:
    """What the capture cut off is missing in `data`, not in `wire_bytes`."""
    [packet] = read(pcap([b"0123456789"], snap_bytes=4))
    assert (packet.data, packet.wire_bytes) == (b"0123", 10)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"#!/bin/sh\n", "neither a pcap nor a pcapng"),
        (b"\xd4\xc3", "neither"),
    ],
)
def test_other_files_are_told_apart(data: bytes, text: str) -> None:
    """The error names the file and says what it is not."""
    with pytest.raises(CaptureError, match=text) as raised:
        list(read(data))
    assert "test.pcap" in str(raised.value)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_every_truncation(make: type) -> None:
    """A file cut off anywhere gives the packets before, and then says so; unless it is a cut
    between two packets, which no reader can know."""
    data = make(FRAMES)
    whole = list(read(data))
    ends_well = 0
    for length in range(4, len(data)):
        seen = []
        try:
            for packet in read(data[:length]):
                seen.append(packet)
            ends_well += 1
        except CaptureError as error:
            assert f"after packet {len(seen)}" in str(error)
        assert seen == whole[: len(seen)]
    assert ends_well <= 5


@pytest.mark.parametrize(
    "damaged",
    [
        pcap([])[:24] + struct.pack("<IIII", 0, 0, MAX_PACKET_BYTES + 1, 0),
        section()[:8] + b"\x00\x00\x00\x00" + section()[12:],
        block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)),
        section() + block("<", 1, b"\x01\x00\x00\x00"),
        section() + enhanced(b"no interface", 1),
        section() + interface() + block("<", 6, bytes(16)),
        section() + interface() + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 900, 900)),
        section() + interface() + block("<", 3, b""),
        section() + block("<", 3, struct.pack("<I", 1)),
        section() + interface() + block("<", 3, struct.pack("<I", 99) + b"short"),
        section() + struct.pack("<II", 5, 8),
        section() + struct.pack("<II", 5, 15),
        section() + struct.pack("<II", 5, 0xFFFFFFF0),
        section() + struct.pack("<III", 5, 12, 16),
        section() + interface() * (MAX_INTERFACES_COUNT + 1),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_damage_is_told(damaged: bytes) -> None:
    """Lengths that contradict each other or are over their cap are a CaptureError, no more."""
    with pytest.raises(CaptureError, match="after packet 0"):
        list(read(damaged))


def test_caps_come_before_reading() -> None:
    """A packet or block over its cap is refused for its size, although all of it is there."""
    with pytest.raises(CaptureError, match=f"a packet of {MAX_PACKET_BYTES + 1} bytes"):
        list(read(pcap([bytes(MAX_PACKET_BYTES + 1)], snap_bytes=1 << 20)))
    with pytest.raises(CaptureError, match=f"a block of {MAX_BLOCK_BYTES + 12} bytes"):
        list(read(section() + block("<", 5, bytes(MAX_BLOCK_BYTES))))


def test_caps_are_not_too_low() -> None:
    """The largest packet and number of interfaces are read."""
    largest = bytes(MAX_PACKET_BYTES)
    [packet] = read(pcap([largest]))
    assert packet.data == largest
    assert list(read(section() + interface() * MAX_INTERFACES_COUNT)) == []


@pytest.mark.parametrize("start", [pcap(FRAMES), pcapng(FRAMES)], ids=["pcap", "pcapng"])
@given(data=st.data())
def test_any_bytes(start: bytes, data: st.DataObject) -> None:
    """Whatever follows a good beginning: packets or exactly CaptureError."""
    kept = data.draw(st.integers(4, len(start)))
    tail = data.draw(st.binary(max_size=200))
    with contextlib.suppress(CaptureError):
        list(read(start[:kept] + tail))
