"""The hop datagrams of a capture file, with what was learnt from the ones before.

scapy takes link, IP and UDP layers off; `dissect` reads the rest. Segments after the first are told
by the chunk that their transfer began with, verdicts by the chunk of their task, sessions by the
names that their handshake states. Signatures are not checked here.

Source: docs/protocol/hop.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from scapy.config import conf
from scapy.layers import inet6  # noqa: F401  # packets that begin with an IP header of version 6
from scapy.layers.inet import UDP

from packetcloud.chunk.capture import CapturedPacket
from packetcloud.chunk.dissect import Body, Datagram, dissect, looks_like_hop, split_train
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID
from packetcloud.chunk.open_frames import Place

MAX_REMEMBERED_COUNT = 65_536
"""Transfers, tasks and sessions remembered, each; the oldest are forgotten first."""
_UDP_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Sighting:
    """One hop datagram of a capture."""

    packet: int
    """Number of the packet in the capture."""
    time_ns: int | None
    source: Place
    destination: Place
    datagram: Datagram
    headers: tuple[ChunkHeader | None, ...] = ()
    """For each body the header of the chunk that it is about, as far as the capture showed it."""
    sender: GUID | None = None
    receiver: GUID | None = None
    comment: str = ""
    """What the capture says about the packet."""
    is_cut: bool = False
    """The capture has not all of its bytes."""


@dataclass(slots=True)
class Counts:
    """What was in the capture and is not shown."""

    packets: int = 0
    other_packets: int = 0
    """Not UDP over IP, or damaged below UDP."""
    other_datagrams: int = 0
    """UDP, but nothing of ours."""
    unknown_link_types: set[int] = field(default_factory=set)
    lost_packets: int = 0
    """Whoever captured had no room for them."""


class CaptureDecoder:
    """Reads packets in the order of the capture.

    Args:
        port: show all that comes from or goes to this UDP port. Without it, every UDP datagram
            counts as hop datagram that begins like one.
    """

    def __init__(self, port: int | None = None) -> None:
        self.counts = Counts()
        self._port = port
        self._transfers: _Memory[tuple[Place, int | None, int], ChunkHeader] = _Memory()
        self._tasks: _Memory[tuple[Place, Place, int], ChunkHeader] = _Memory()
        self._names: _Memory[int, GUID] = _Memory()
        self._twins: _Memory[int, int] = _Memory()
        """The session id of the other direction."""

    def decode(self, packets: Iterable[CapturedPacket]) -> Iterator[Sighting]:
        """Yield the hop datagrams of `packets`; several for a packet that holds a train."""
        for packet in packets:
            self.counts.packets += 1
            self.counts.lost_packets += packet.lost_count
            found = self._udp(packet)
            if found is None:
                self.counts.other_packets += 1
                continue
            source, destination, payload, cut_bytes = found
            if not self._is_ours(source, destination, payload):
                self.counts.other_datagrams += 1
                continue
            rows = split_train(payload)
            for row in rows:
                row_cut_bytes = cut_bytes if row is rows[-1] else 0
                datagram = dissect(row, row_cut_bytes)
                yield self._sighting(packet, source, destination, datagram, row_cut_bytes > 0)

    def _is_ours(self, source: Place, destination: Place, payload: bytes) -> bool:
        if self._port is not None:
            return self._port in (source[1], destination[1])
        return looks_like_hop(payload)

    def _udp(self, packet: CapturedPacket) -> tuple[Place, Place, bytes, int] | None:
        """Return both places, the UDP payload, and how many of its bytes are missing."""
        layer = conf.l2types.num2layer.get(packet.link_type)
        if layer is None:
            self.counts.unknown_link_types.add(packet.link_type)
            return None
        try:
            frame = layer(packet.data)
        except Exception:  # scapy raises whatever its fields raise on bytes that are cut short
            return None
        udp = frame.getlayer(UDP)
        if udp is None or udp.underlayer is None or "src" not in udp.underlayer.fields:
            return None
        network = udp.underlayer
        stated = int(udp.len) or len(udp.original)
        payload = udp.original[_UDP_HEADER_BYTES:stated]
        cut_bytes = max(stated - len(udp.original), 0)
        return (network.src, udp.sport), (network.dst, udp.dport), payload, cut_bytes

    # --- what was learnt --------------------------------------------------------------------------

    def _sighting(
        self,
        packet: CapturedPacket,
        source: Place,
        destination: Place,
        datagram: Datagram,
        is_cut: bool,
    ) -> Sighting:
        for session, guid in datagram.keys.items():
            self._names.put(session, guid)
            if datagram.type == "welcome" and datagram.session is not None:
                self._twins.put(session, datagram.session)
                self._twins.put(datagram.session, session)
        headers = tuple(
            self._header(source, destination, datagram, body) for body in datagram.bodies
        )
        sender, receiver = self._neighbours(datagram)
        return Sighting(
            packet.number,
            packet.time_ns,
            source,
            destination,
            datagram,
            headers,
            sender,
            receiver,
            packet.comment,
            is_cut,
        )

    def _neighbours(self, datagram: Datagram) -> tuple[GUID | None, GUID | None]:
        """Return the names of sender and receiver, as far as a handshake in the capture told."""
        if datagram.session is None:
            return next(iter(datagram.keys.values()), None), None
        twin = self._twins.get(datagram.session)
        sender = self._names.get(twin) if twin is not None else None
        return sender, self._names.get(datagram.session)

    def _header(
        self, source: Place, destination: Place, datagram: Datagram, body: Body
    ) -> ChunkHeader | None:
        transfer = (source, datagram.session, body.transfer)
        header = body.header
        if body.kind == "verdict" and "verdict" in body.fields:
            header = self._tasks.get((destination, source, body.fields["verdict"]["task_id"]))
        if header is None:
            return self._transfers.get(transfer) if body.segment else None
        self._transfers.put(transfer, header)
        if "task" in body.fields:
            self._tasks.put((source, destination, body.fields["task"]["task_id"]), header)
        return header


@dataclass(frozen=True, slots=True)
class Filter:
    """Which datagrams to show. Names are the beginning of a GUID or SID in hex digits."""

    guid: str | None = None
    """The source or destination of a chunk, or a node that introduces itself."""
    sid: str | None = None
    """A service that a chunk asks for, alone or in a sequence."""

    def __call__(self, sighting: Sighting) -> bool:
        headers = [header for header in sighting.headers if header is not None]
        return self._takes(headers, sighting.datagram.keys.values())

    def takes(self, header: ChunkHeader) -> bool:
        """Tell whether to show a chunk with this header."""
        return self._takes([header], ())

    def _takes(self, headers: Iterable[ChunkHeader], others: Iterable[GUID]) -> bool:
        names, sids = {*others}, set[GUID]()
        for header in headers:
            names |= {header.source, header.destination}
            sids |= {header.sid, *(header.sequence.sids if header.sequence else ())}
        return (self.guid is None or any(name.hex.startswith(self.guid) for name in names)) and (
            self.sid is None or any(sid.hex.startswith(self.sid) for sid in sids)
        )


def as_json(sighting: Sighting) -> dict[str, Any]:
    """Return a sighting as one JSON object."""
    datagram = sighting.datagram
    found: dict[str, Any] = {
        "packet": sighting.packet,
        "time_ns": sighting.time_ns,
        "from": place_text(sighting.source),
        "to": place_text(sighting.destination),
        "sender": sighting.sender.hex if sighting.sender else None,
        "receiver": sighting.receiver.hex if sighting.receiver else None,
        "session": None if datagram.session is None else f"{datagram.session:016x}",
        "type": datagram.type,
        "datagram_bytes": datagram.datagram_bytes,
        **datagram.fields,
    }
    if datagram.bodies:
        found["bodies"] = [
            _body_json(body, header)
            for body, header in zip(datagram.bodies, sighting.headers, strict=True)
        ]
    if sighting.comment:
        found["comment"] = sighting.comment
    found["error"] = datagram.error
    return found


def place_text(place: Place) -> str:
    """Return address and port as people write them."""
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _body_json(body: Body, header: ChunkHeader | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": body.kind,
        "transfer": body.transfer,
        "body_bytes": body.body_bytes,
        "segment": body.segment,
        "whole": body.is_whole,
        **body.fields,
    }
    if header is not None and body.header is None:
        found["of_chunk"] = {"chunk_id": str(header.chunk_id), "source": header.source.hex}
    return found | {"error": body.error}


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Memory(Generic[_Key, _Value]):
    """A dictionary of at most `MAX_REMEMBERED_COUNT` entries."""

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        return self._entries.get(key)

    def put(self, key: _Key, value: _Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_REMEMBERED_COUNT:
            self._entries.popitem(last=False)
