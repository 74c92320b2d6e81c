"""A capture of hop traffic: datagrams in any envelope, told by what came before them."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q
from scapy.packet import Packet, Raw

from packetcloud.chunk import pcap as pcap_module
from packetcloud.chunk.dissect import CUT_OFF
from packetcloud.chunk.header import ChunkHeader, ServiceSequence
from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind, TaskHeader, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, SID_SEQUENCE, ChunkId
from packetcloud.chunk.pcap import CaptureDecoder, Filter, Sighting, as_json, place_text
from tests.unit.chunk.captures import ETHER, HERE, THERE, frame, pcap, read
from tests.unit.chunk.hop.hop_link import OPEN, A, Link
from tests.vectors.chunk_v1_valid import DESTINATION, SIDS, SOURCE, make_header
from tests.vectors.hop_v2_valid import (
    KEY,
    OTHER_SESSION,
    PARAMETERS,
    SESSION,
    SHARE,
    SIGNATURE,
    SMALL_CHUNK,
    Segment,
    good_controls,
    good_handshakes,
    good_segments,
)

WHOLE = good_segments()["whole chunk"].to_bytes()


def sightings(frames: list[bytes], port: int | None = None, **how: Any) -> list[Sighting]:
    return list(CaptureDecoder(port).decode(read(pcap(frames, **how))))


@pytest.mark.parametrize(
    ("link_type", "envelope", "addresses"),
    [
        (1, ETHER / IP(src="192.0.2.1", dst="192.0.2.2"), "192.0.2."),
        (1, ETHER / Dot1Q(vlan=5) / IP(src="192.0.2.1", dst="192.0.2.2"), "192.0.2."),
        (1, ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2"), "2001:db8::"),
        (101, IP(src="192.0.2.1", dst="192.0.2.2"), "192.0.2."),
        (101, IPv6(src="2001:db8::1", dst="2001:db8::2"), "2001:db8::"),
        (113, CookedLinux(proto=0x800) / IP(src="192.0.2.1", dst="192.0.2.2"), "192.0.2."),
        (276, CookedLinuxV2(proto=0x800) / IP(src="192.0.2.1", dst="192.0.2.2"), "192.0.2."),
    ],
    ids=["ethernet", "vlan", "ipv6", "raw ip", "raw ipv6", "any device", "any device, v2"],
)
def test_envelopes(link_type: int, envelope: Packet, addresses: str) -> None:
    """Whatever device was captured on, the datagram and its places come out."""
    data = bytes(envelope / UDP(sport=5000, dport=4700) / Raw(WHOLE))
    [sighting] = sightings([data], link_type=link_type)
    assert sighting.source == (f"{addresses}1", 5000)
    assert sighting.destination == (f"{addresses}2", 4700)
    assert sighting.datagram.error is None
    assert sighting.headers[0] is not None


def test_other_traffic_is_counted() -> None:
    """TCP, other UDP, frames cut off below UDP and unknown link types are not shown, but told."""
    tcp = bytes(ETHER / IP() / TCP())
    dns = bytes(ETHER / IP() / UDP(sport=999, dport=53) / Raw(b"\x00\x01other protocol"))
    whole = frame(WHOLE)
    decoder = CaptureDecoder()
    assert len(list(decoder.decode(read(pcap([tcp, dns, whole[:20], b"", whole]))))) == 1
    assert (decoder.counts.packets, decoder.counts.other_packets) == (5, 3)
    assert decoder.counts.other_datagrams == 1
    assert list(decoder.decode(read(pcap([whole], link_type=147)))) == []
    assert decoder.counts.unknown_link_types == {147}


def test_a_port_shows_all_of_it() -> None:
    """With a port, unknown bytes on it are shown with the reason; other ports are not."""
    frames = [
        frame(b"garbage"),
        frame(b"", THERE, HERE),
        frame(WHOLE, ("192.0.2.9", 1), ("192.0.2.8", 2)),
    ]
    seen = sightings(frames, port=4700)
    assert [sighting.packet for sighting in seen] == [1, 2]
    assert seen[0].datagram.type == "unknown"
    assert seen[0].datagram.fields["bytes"] == b"garbage".hex()


def test_ethernet_padding_is_not_payload() -> None:
    """A short frame is padded on the wire; IP's length says where the datagram ends."""
    close = good_controls()["probe"].to_bytes()
    [sighting] = sightings([frame(close) + bytes(30)])
    assert sighting.datagram.datagram_bytes == len(close)
    assert sighting.datagram.error is None


def test_a_train_is_several_datagrams() -> None:
    """What the kernel captured in one piece is shown as what went over the wire."""
    segments = [good_segments()[f"{n} of three"] for n in ("first", "second", "last")]
    seen = sightings([frame(b"".join(segment.to_bytes() for segment in segments))])
    assert [sighting.packet for sighting in seen] == [1, 1, 1]
    assert [sighting.datagram.bodies[0].segment for sighting in seen] == [0, 1, 2]


def test_later_segments_know_their_chunk() -> None:
    """A segment is told by the first one of its transfer, in its direction and session only."""
    first, second = good_segments()["first of three"], good_segments()["second of three"]
    other = replace(second, transfer=99)
    seen = sightings(
        [
            frame(second.to_bytes()),
            frame(first.to_bytes()),
            frame(second.to_bytes()),
            frame(other.to_bytes()),
            frame(second.to_bytes(), THERE, HERE),
            frame(replace(second, session=5).to_bytes()),
        ]
    )
    ids = [header.chunk_id.value if header else None for [header] in (s.headers for s in seen)]
    assert ids == [None, 9, 9, None, None, None]
    assert as_json(seen[2])["bodies"][0]["of_chunk"]["chunk_id"] == f"{9:016x}"


def test_a_verdict_knows_the_chunk_of_its_task() -> None:
    """The answer of a VI is told by the chunk that the router gave it."""
    task = TaskHeader(7, 1000).to_bytes() + SMALL_CHUNK
    verdict = VerdictHeader(7, VerdictCode.FORWARD, 5).to_bytes()
    asked = Segment(BodyKind.TASK, 1, len(task), 0, 1, task).to_bytes()
    said = Segment(
        BodyKind.VERDICT, 1, len(verdict), 0, 1, verdict, session=OTHER_SESSION
    ).to_bytes()
    seen = sightings([frame(said, THERE, HERE), frame(asked), frame(said, THERE, HERE)])
    assert [sighting.headers[0] is not None for sighting in seen] == [False, True, True]


def test_sessions_know_their_nodes() -> None:
    """After a handshake each datagram of the session names who sent it and who gets it."""
    other_key = bytes(range(100, 132))
    hello = good_handshakes()["hello"].to_bytes()
    welcome = wire.Welcome(SESSION, OTHER_SESSION, other_key, SHARE, PARAMETERS, 2, SIGNATURE)
    to_client = good_segments()["whole chunk"].to_bytes()
    to_server = replace(good_segments()["whole chunk"], session=OTHER_SESSION).to_bytes()
    seen = sightings(
        [
            frame(hello),
            frame(welcome.to_bytes(), THERE, HERE),
            frame(to_server),
            frame(to_client, THERE, HERE),
        ]
    )
    client, server = GUID.from_public_key(KEY), GUID.from_public_key(other_key)
    assert [(sighting.sender, sighting.receiver) for sighting in seen] == [
        (client, None),
        (server, client),
        (client, server),
        (server, client),
    ]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transfers that never end do not fill the memory: the oldest are forgotten."""
    monkeypatch.setattr(pcap_module, "MAX_REMEMBERED_COUNT", 3)
    first, second = good_segments()["first of three"], good_segments()["second of three"]
    frames = [frame(replace(first, transfer=n).to_bytes()) for n in range(4)]
    frames += [frame(replace(second, transfer=n).to_bytes()) for n in range(4)]
    known = [sighting.headers[0] is not None for sighting in sightings(frames)[4:]]
    assert known == [False, True, True, True]


def test_a_short_snapshot_is_told() -> None:
    """With tcpdump -s the header of a chunk is still read, and the rest told as cut off."""
    data = frame(good_segments()["first of three"].to_bytes())
    [sighting] = sightings([data], snap_bytes=42 + 32 + 88)
    [body] = sighting.datagram.bodies
    assert sighting.datagram.datagram_bytes == 1200
    assert body.header is not None and body.error is None
    [sighting] = sightings([data], snap_bytes=42 + 32 + 80)
    assert CUT_OFF in str(sighting.datagram.bodies[0].error)


@pytest.mark.parametrize("length", range(0, 140, 3))
def test_every_snapshot_length(length: int) -> None:
    """However short, nothing raises."""
    for sighting in sightings([frame(WHOLE)], snap_bytes=length):
        json.dumps(as_json(sighting))


def test_filters() -> None:
    """By source, destination, SID alone and SID in a sequence; by the first digits."""
    sequence = ServiceSequence((SIDS[1], SIDS[2]))
    headers = [
        make_header(chunk_id=ChunkId(1)),
        make_header(chunk_id=ChunkId(2), sid=SIDS[0], source=GUID(b"\x99" * 20)),
        make_header(chunk_id=ChunkId(3), sid=SID_SEQUENCE, sequence=sequence),
    ]
    frames = []
    for n, header in enumerate(headers):
        data = header.to_bytes()
        frames.append(frame(Segment(BodyKind.CHUNK, n, len(data), 0, 1, data).to_bytes()))
    frames += [
        frame(good_handshakes()["hello"].to_bytes()),
        frame(good_controls()["ack"].to_bytes()),
    ]
    seen = sightings(frames)

    def packets(chosen: Filter) -> list[int]:
        return [sighting.packet for sighting in seen if chosen(sighting)]

    assert packets(Filter()) == [1, 2, 3, 4, 5]
    assert packets(Filter(guid=SOURCE.hex)) == [1, 3]
    assert packets(Filter(guid=DESTINATION.hex[:4])) == [1, 2, 3]
    assert packets(Filter(guid=GUID.from_public_key(KEY).hex[:8])) == [4]
    assert packets(Filter(sid=SIDS[0].hex)) == [2]
    assert packets(Filter(sid=SIDS[2].hex[:6])) == [3]
    assert packets(Filter(guid="9999", sid=SIDS[0].hex)) == [2]
    assert packets(Filter(guid="9999", sid=SIDS[1].hex)) == []


def test_places_read_as_people_write_them() -> None:
    """IPv6 addresses stand in brackets."""
    assert place_text(("192.0.2.1", 80)) == "192.0.2.1:80"
    assert place_text(("2001:db8::1", 80)) == "[2001:db8::1]:80"


@given(data=st.binary(max_size=200), link_type=st.sampled_from([0, 1, 101, 113, 276]))
def test_any_frame(data: bytes, link_type: int) -> None:
    """Random bytes as a frame of any device, and behind good headers: nothing raises."""
    for sighting in sightings([data, frame(data)], port=4700, link_type=link_type):
        json.dumps(as_json(sighting))


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_whole_conversation(loss: float) -> None:
    """All that two nodes say to each other is understood, and every chunk is seen."""
    link = Link(seed=3, loss=loss, config=OPEN)
    frames: list[bytes] = []

    def capture(source: object, datagram: bytes) -> bool:
        places = (HERE, THERE) if source == A else (THERE, HERE)
        frames.append(frame(datagram, *places))
        return True

    link.on_datagram = capture
    session = link.connect()
    sizes = (0, 1, 500, 5_000, 300_000)
    for number, size in enumerate(sizes):
        header = ChunkHeader(SOURCE, DESTINATION, ChunkId(number), size, lifetime_ms=1000)
        session.send(BodyKind.CHUNK, header.to_bytes(), bytes(size), number)
    link.run_until_settled(len(sizes))
    decoder = CaptureDecoder()
    seen = list(decoder.decode(read(pcap(frames))))
    assert len(seen) == len(frames)
    errors = [sighting.datagram.error for sighting in seen]
    errors += [body.error for sighting in seen for body in sighting.datagram.bodies]
    assert not any(errors)
    headers = {header for sighting in seen for header in sighting.headers if header}
    assert {header.chunk_id.value: header.payload_bytes for header in headers} == dict(
        enumerate(sizes)
    )
    assert all(sighting.receiver for sighting in seen if sighting.datagram.type == "data")
    for sighting in seen:
        json.dumps(as_json(sighting))


def test_a_length_of_zero_is_taken_as_the_whole() -> None:
    """Some drivers leave UDP's length to the hardware; the capture then holds a zero."""
    data = bytearray(frame(WHOLE))
    data[14 + 20 + 4 : 14 + 20 + 6] = struct.pack(">H", 0)
    [sighting] = sightings([bytes(data)])
    assert sighting.datagram.error is None
