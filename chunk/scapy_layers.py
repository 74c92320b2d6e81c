"""The chunk formats as scapy layers: to look into captures, and to craft chunks in tests.

    Chunk(body).show()
    bytes(Chunk(source=guid, sid=sid, extensions=[Lifetime(lifetime_ms=500)]) / b"payload")

Lengths and counts are filled in when they are left out, and kept as given otherwise, so that wrong
ones can be crafted too. The layers show what is there; what a node accepts is decided by `header`
and `messages`. The wire vectors hold both together. The hop protocol's layers: `scapy_hop`.

Importing scapy takes half a second: nothing of ours but this module, `scapy_hop`, `scapy_frames`
and `pcap` does.
Source: docs/protocol/chunk.md.
"""

# scapy declares fields as mutable class attributes of mixed type, and its callbacks are untyped.
# ruff: noqa: RUF012
# mypy: disable-error-code="misc"

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    LongField,
    PacketListField,
    ShortField,
    StrFixedLenField,
    StrLenField,
    XLongField,
)
from scapy.packet import Packet, Raw

from packetcloud.chunk.header import (
    CHUNK_VERSION,
    DEFAULT_HOP_LIMIT,
    FIXED_BYTES,
    MAX_HEADER_BYTES,
    PAYLOAD_BYTES_OFFSET,
    DeliveryMode,
    DigestAlgorithm,
    ExtensionType,
    PayloadType,
)
from packetcloud.chunk.messages import MAX_REPORT_ENTRIES, BodyKind, Outcome, VerdictCode
from packetcloud.chunk.names import GUID, GUID_BYTES
from packetcloud.chunk.reasons import Reason

_EXTENSION_HEAD = struct.Struct(">BBH")


def words(kinds: type[IntEnum]) -> dict[int, str]:
    """Return the words that scapy shows for the numbers of an enum."""
    return {int(kind): kind.name.lower() for kind in kinds}


class NameField(StrFixedLenField):
    """A GUID or SID: takes 20 bytes, 40 hex digits or our own type; shows hex."""

    def __init__(self, name: str, default: bytes = bytes(GUID_BYTES)) -> None:
        super().__init__(name, default, length=GUID_BYTES)

    def any2i(self, pkt: Packet | None, x: Any) -> Any:
        if isinstance(x, GUID):
            return x.value
        if isinstance(x, str):
            return GUID.from_hex(x).value
        return super().any2i(pkt, x)

    def i2repr(self, pkt: Packet | None, x: Any) -> str:
        return bytes(x).hex()


class HexField(StrFixedLenField):
    """Bytes of a fixed length, shown in hex: keys, digests, signatures."""

    def __init__(self, name: str, length: int) -> None:
        super().__init__(name, bytes(length), length=length)

    def i2repr(self, pkt: Packet | None, x: Any) -> str:
        return bytes(x).hex()


def counted_bytes(count: str, name: str, fmt: str = "H") -> list[Any]:
    """Return two fields: how many bytes `name` has, and then these bytes."""
    return [
        FieldLenField(count, None, length_of=name, fmt=fmt),
        StrLenField(name, b"", length_from=lambda packet: getattr(packet, count)),
    ]


class Part(Packet):
    """A member of a list: what follows it belongs to the next member."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


# --- chunk extensions -----------------------------------------------------------------------------


def _extension_head(kind: int, length: int | None) -> list[Any]:
    critical = 0x80 if kind == ExtensionType.SERVICE_SEQUENCE else 0
    return [
        ByteEnumField("type", kind, words(ExtensionType)),
        FlagsField("flags", critical, 8, [f"reserved{bit}" for bit in range(7)] + ["critical"]),
        ShortField("length", length),
    ]


class ServiceSequence(Part):
    """Ordered SIDs and a cursor."""

    name = "service sequence"
    fields_desc = [
        *_extension_head(ExtensionType.SERVICE_SEQUENCE, None)[:2],
        FieldLenField("length", None, count_of="sids", adjust=lambda _, n: 2 + GUID_BYTES * n),
        ByteField("cursor", 0),
        FieldLenField("count", None, count_of="sids", fmt="B"),
        FieldListField("sids", [], NameField("sid"), count_from=lambda packet: packet.count),
    ]


class Lifetime(Part):
    """What is left of the chunk's life."""

    name = "lifetime"
    fields_desc = [*_extension_head(ExtensionType.LIFETIME, 4), IntField("lifetime_ms", 60_000)]


class ReportRequest(Part):
    """The source wants a delivery report."""

    name = "report request"
    fields_desc = _extension_head(ExtensionType.REPORT_REQUEST, 0)


class TraceRequest(Part):
    """The source wants a trace."""

    name = "trace request"
    fields_desc = _extension_head(ExtensionType.TRACE_REQUEST, 0)


class PayloadDigest(Part):
    """Hash of the payload as the source sent it."""

    name = "payload digest"
    fields_desc = [
        *_extension_head(ExtensionType.PAYLOAD_DIGEST, 33),
        ByteEnumField("algorithm", DigestAlgorithm.SHA256, words(DigestAlgorithm)),
        HexField("digest", 32),
    ]


class SourceSignature(Part):
    """The source's key and signature."""

    name = "source signature"
    fields_desc = [
        *_extension_head(ExtensionType.SOURCE_SIGNATURE, 96),
        HexField("public_key", 32),
        HexField("signature", 64),
    ]


class ServiceParameters(Part):
    """Bytes for one service."""

    name = "service parameters"
    fields_desc = [
        *_extension_head(ExtensionType.SERVICE_PARAMETERS, None)[:2],
        FieldLenField("length", None, length_of="data", adjust=lambda _, n: GUID_BYTES + n),
        NameField("sid"),
        StrLenField("data", b"", length_from=lambda packet: packet.length - GUID_BYTES),
    ]


class UnknownExtension(Part):
    """An extension of a type that we do not know, or one whose length is wrong for its type."""

    name = "unknown extension"
    fields_desc = [
        *_extension_head(255, None)[:2],
        *counted_bytes("length", "data"),
    ]


_FIXED_EXTENSIONS: dict[tuple[int, int], type[Packet]] = {
    (ExtensionType.LIFETIME, 4): Lifetime,
    (ExtensionType.REPORT_REQUEST, 0): ReportRequest,
    (ExtensionType.TRACE_REQUEST, 0): TraceRequest,
    (ExtensionType.PAYLOAD_DIGEST, 33): PayloadDigest,
    (ExtensionType.SOURCE_SIGNATURE, 96): SourceSignature,
}


def _extension(data: bytes, _parent: Packet | None = None) -> Packet:
    """Dissect one extension by the layer of its type, if its length suits that."""
    if len(data) < _EXTENSION_HEAD.size:
        return Raw(data)
    kind, _, length = _EXTENSION_HEAD.unpack_from(data)
    value = data[_EXTENSION_HEAD.size : _EXTENSION_HEAD.size + length]
    layer: type[Packet] = UnknownExtension
    if len(value) == length:
        layer = _FIXED_EXTENSIONS.get((kind, length), UnknownExtension)
        if kind == ExtensionType.SERVICE_PARAMETERS and length >= GUID_BYTES:
            layer = ServiceParameters
        elif kind == ExtensionType.SERVICE_SEQUENCE and length == 2 + GUID_BYTES * (
            value[1] if length >= 2 else 0
        ):
            layer = ServiceSequence
    return layer(data, _parent=_parent)


# --- chunk, reports, task, verdict ----------------------------------------------------------------


class Chunk(Packet):
    """The chunk header; the payload follows."""

    name = "chunk"
    fields_desc = [
        ByteField("version", CHUNK_VERSION),
        ByteField("hop_limit", DEFAULT_HOP_LIMIT),
        ShortField("header_bytes", None),
        ByteEnumField("delivery_mode", DeliveryMode.UNICAST, words(DeliveryMode)),
        ByteEnumField("payload_type", PayloadType.DATA, words(PayloadType)),
        ShortField("reserved", 0),
        XLongField("chunk_id", 0),
        IntField("payload_bytes", None),
        NameField("source"),
        IntField("source_na", 0),
        NameField("destination"),
        IntField("destination_na", 0),
        NameField("sid"),
        PacketListField(
            "extensions",
            [],
            _extension,
            length_from=lambda packet: max(packet.header_bytes - FIXED_BYTES, 0),
            max_count=MAX_HEADER_BYTES // _EXTENSION_HEAD.size,
        ),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.header_bytes is None:
            pkt = patch(pkt, 2, ">H", len(pkt))
        if self.payload_bytes is None:
            pkt = patch(pkt, PAYLOAD_BYTES_OFFSET, ">I", len(pay))
        return pkt + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return s[: self.payload_bytes], s[self.payload_bytes :]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return Reports if self.payload_type == PayloadType.REPORT else Raw


class ReportEntry(Part):
    """How one chunk's journey ended."""

    name = "report entry"
    fields_desc = [
        XLongField("chunk_id", 0),
        BitField("second_hand", 0, 1),
        BitEnumField("outcome", Outcome.DELIVERED, 7, words(Outcome)),
        ByteEnumField("reason", 0, words(Reason)),
        *counted_bytes("detail_bytes", "detail"),
    ]


class Reports(Packet):
    """The payload of a report chunk."""

    name = "delivery reports"
    fields_desc = [PacketListField("entries", [], ReportEntry, max_count=MAX_REPORT_ENTRIES)]


class Task(Packet):
    """Stands before a chunk on its way to a VI."""

    name = "task"
    fields_desc = [
        LongField("task_id", 0),
        IntField("deadline_ms", 30_000),
        IntField("reserved", 0),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return Chunk


class Verdict(Packet):
    """What a VI answers; new payload or emitted chunks follow."""

    name = "verdict"
    fields_desc = [
        LongField("task_id", 0),
        ByteEnumField("code", VerdictCode.FORWARD, words(VerdictCode)),
        FlagsField(
            "flags",
            0,
            8,
            ["keep", "retyped", "updates", "again", *(f"reserved{bit}" for bit in range(4, 8))],
        ),
        FieldLenField("detail_bytes", None, length_of="detail"),
        LongField("processing_ns", 0),
        IntField("emit_count", 0),
        StrLenField("detail", b"", length_from=lambda packet: packet.detail_bytes),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return EmittedChunks if self.code == VerdictCode.EMIT else Raw


class EmittedChunks(Packet):
    """The whole chunks that an EMIT verdict brings."""

    name = "emitted chunks"
    fields_desc = [PacketListField("chunks", [], Chunk, max_count=1 << 16)]


BODY_LAYERS: dict[int, type[Packet]] = {
    BodyKind.CHUNK: Chunk,
    BodyKind.TASK: Task,
    BodyKind.VERDICT: Verdict,
}
"""The layer that a hop body of each kind begins with."""


def patch(data: bytes, offset: int, layout: str, value: int) -> bytes:
    """Return `data` with a number written over it at `offset`; for layers that fill in lengths."""
    packed = struct.pack(layout, value)
    return data[:offset] + packed + data[offset + len(packed) :]
