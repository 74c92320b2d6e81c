"""The datagrams of the hop protocol as scapy layers.

    bind_hop_port(4700)                       # from now on rdpcap() and sniff() show hop datagrams
    hop_datagram(payload).show()              # or look at one by itself
    bytes(HopData(session=7) / Chunk(source=guid) / b"payload")

See `scapy_layers` for what these layers are and are not. What a node accepts is decided by
`hop.wire`. Source: docs/protocol/hop.md.
"""

# scapy declares fields as mutable class attributes of mixed type, and its callbacks are untyped.
# ruff: noqa: RUF012
# mypy: disable-error-code="misc"

from __future__ import annotations

import struct
from typing import Any

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    FieldLenField,
    FlagsField,
    IntField,
    LongField,
    PacketListField,
    ShortField,
    XIntField,
    XLongField,
)
from scapy.layers.inet import UDP
from scapy.packet import Packet, Padding, Raw, bind_layers

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.scapy_frames import frame_layer
from packetcloud.chunk.scapy_layers import BODY_LAYERS, HexField, patch, words

_SUITE_FLAGS = ["reserved", *(suite.name.lower() for suite in wire.Suite), *map(str, range(4, 8))]
_HELLO_PADDING_BYTES = wire.HELLO_CORE_BYTES - wire.PREFIX.size - 64 - 8 - wire.PARAMETERS_BYTES


def _hop_head(kind: wire.DatagramType) -> list[Any]:
    return [
        BitField("version", wire.HOP_VERSION, 4),
        BitEnumField("type", kind, 4, words(wire.DatagramType)),
    ]


def _sealing(is_sealed: int) -> list[Any]:
    """The second byte of CONTROL and BUNDLE, and what follows it up to the counter."""
    return [
        BitField("epoch", 0, 4),
        BitField("sealed", is_sealed, 4),
        ShortField("reserved", 0),
        XLongField("session", 0),
        LongField("counter", 0),
    ]


def _session_head(kind: wire.DatagramType) -> list[Any]:
    """The head of a datagram that carries no body."""
    return [
        *_hop_head(kind),
        ByteField("kind", 0),
        ShortField("reserved", 0),
        XLongField("session", 0),
    ]


# --- hop: data ------------------------------------------------------------------------------------


class HopData(Packet):
    """One segment of a body; the first one of an open session shows what the body is."""

    name = "hop data"
    fields_desc = [
        *_hop_head(wire.DatagramType.DATA),
        BitField("epoch", 0, 4),
        BitEnumField("kind", BodyKind.CHUNK, 4, words(BodyKind)),
        ShortField("flow", 0),
        XLongField("session", 0),
        IntField("transfer", 0),
        IntField("body_bytes", None),
        IntField("index", 0),
        IntField("burst", 0),
        XIntField("check", 0),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.body_bytes is None:
            pkt = patch(pkt, 16, ">I", len(pay))
        return pkt + pay

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        is_readable = self.index == 0 and not self.check
        return BODY_LAYERS.get(self.kind, Raw) if is_readable else Raw


class Reference(Packet):
    """Where a body lies in the memory that both ends share."""

    name = "reference"
    fields_desc = [IntField("start", 0), IntField("size", 0)]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class BundleRecord(Packet):
    """One body: whole, if it is small, or where it lies."""

    name = "bundle record"
    fields_desc = [
        IntField("transfer", 0),
        ShortField("body_bytes", None),
        ByteEnumField("kind", BodyKind.CHUNK, words(BodyKind)),
        ByteEnumField("form", wire.FORM_WHOLE, {wire.FORM_WHOLE: "whole", wire.FORM_LENT: "lent"}),
        ShortField("flow", 0),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.body_bytes is None:
            pkt = patch(pkt, 4, ">H", len(pay))
        return pkt + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return s[: self.body_bytes], s[self.body_bytes :]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        if self.form == wire.FORM_LENT:
            return Reference
        return BODY_LAYERS.get(self.kind, Raw)


class HopBundle(Packet):
    """Several small bodies; zeros may follow."""

    name = "hop bundle"
    fields_desc = [
        *_hop_head(wire.DatagramType.BUNDLE),
        *_sealing(0),
        IntField("burst", 0),
        FieldLenField("count", None, count_of="records"),
        ShortField("reserved2", 0),
        PacketListField(
            "records",
            [],
            BundleRecord,
            count_from=lambda packet: packet.count,
            max_count=wire.MAX_DATAGRAM_BYTES // wire.RECORD_BYTES,
        ),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return Padding


# --- hop: control ---------------------------------------------------------------------------------


class HopControl(Packet):
    """Control frames of an open session."""

    name = "hop control"
    fields_desc = [
        *_hop_head(wire.DatagramType.CONTROL),
        *_sealing(0),
        PacketListField(
            "frames",
            [],
            frame_layer,
            max_count=wire.MAX_DATAGRAM_BYTES // wire.FRAME_HEAD_BYTES,
        ),
    ]


class HopSealed(Packet):
    """A CONTROL or BUNDLE datagram of a sealed session: only its ends can read on."""

    name = "hop sealed"
    fields_desc = [*_hop_head(wire.DatagramType.CONTROL), *_sealing(wire.SEALED)]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return Raw


# --- hop: handshake -------------------------------------------------------------------------------


def _key_fields() -> list[Any]:
    """Who this side is, and its half of the key exchange."""
    return [HexField("public_key", 32), HexField("share", 32)]


def _side_fields() -> list[Any]:
    """What each side says of itself."""
    return [
        FlagsField("suites", wire.KNOWN_SUITES, 8, _SUITE_FLAGS),
        ByteEnumField("role", Role.HOST, words(Role)),
        ShortField("max_datagram_bytes", wire.MIN_DATAGRAM_BYTES),
        IntField("max_body_bytes", 1),
        IntField("window_bytes", 1),
        LongField("credit_bytes", 1),
        IntField("instance", 0),
    ]


class HopHello(Packet):
    """First message of a handshake, 1200 bytes."""

    name = "hop HELLO"
    fields_desc = [
        *_session_head(wire.DatagramType.HELLO),
        *_key_fields(),
        LongField("stamp", 0),
        *_side_fields(),
        HexField("padding", _HELLO_PADDING_BYTES),
        HexField("mac", wire.MAC_BYTES),
        HexField("cookie", wire.COOKIE_BYTES),
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return Raw


class HopRetry(Packet):
    """Say HELLO again, to this name and with this cookie."""

    name = "hop RETRY"
    fields_desc = [
        *_session_head(wire.DatagramType.RETRY),
        HexField("guid", 20),
        HexField("cookie", wire.COOKIE_BYTES),
        LongField("stamp", 0),
        HexField("mac", wire.MAC_BYTES),
    ]


class HopWelcome(Packet):
    """Answer to a HELLO."""

    name = "hop WELCOME"
    fields_desc = [
        *_session_head(wire.DatagramType.WELCOME),
        XLongField("own_session", 0),
        *_key_fields(),
        *_side_fields(),
        ByteEnumField("suite", wire.Suite.AES_256_GCM, words(wire.Suite)),
        HexField("reserved2", 3),
        HexField("signature", wire.SIGNATURE_BYTES),
    ]


class HopConfirm(Packet):
    """Last message of a handshake."""

    name = "hop CONFIRM"
    fields_desc = [
        *_session_head(wire.DatagramType.CONFIRM),
        HexField("signature", wire.SIGNATURE_BYTES),
        HexField("tag", wire.MAC_BYTES),
    ]


class HopReject(Packet):
    """The answer to a datagram of a session that is not known."""

    name = "hop REJECT"
    fields_desc = [
        *_session_head(wire.DatagramType.REJECT),
        HexField("signature", wire.SIGNATURE_BYTES),
    ]


HOP_LAYERS: dict[int, type[Packet]] = {
    wire.type_byte(wire.DatagramType.DATA): HopData,
    wire.type_byte(wire.DatagramType.BUNDLE): HopBundle,
    wire.type_byte(wire.DatagramType.CONTROL): HopControl,
    wire.type_byte(wire.DatagramType.HELLO): HopHello,
    wire.type_byte(wire.DatagramType.RETRY): HopRetry,
    wire.type_byte(wire.DatagramType.WELCOME): HopWelcome,
    wire.type_byte(wire.DatagramType.CONFIRM): HopConfirm,
    wire.type_byte(wire.DatagramType.REJECT): HopReject,
}
"""The layer for each first byte of a datagram."""


_SEALABLE = (wire.CONTROL_BYTE, wire.BUNDLE_BYTE)


class Hop(Packet):
    """Any hop datagram: becomes the layer of its type when it is dissected."""

    name = "hop"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        if not _pkt:
            return cls
        if _pkt[0] in _SEALABLE and len(_pkt) > 1 and _pkt[1] & 15 == wire.SEALED:
            return HopSealed
        return HOP_LAYERS.get(_pkt[0], Raw)


def hop_datagram(data: bytes) -> Packet:
    """Dissect the payload of one UDP datagram; `Raw` when it is none of ours or cut off."""
    if not data:
        return Raw(data)
    try:
        return Hop(data)
    except struct.error:
        return Raw(data)


def bind_hop_port(port: int) -> None:
    """Let scapy dissect UDP datagrams from and to `port` as hop datagrams, in this process."""
    bind_layers(UDP, Hop, sport=port)
    bind_layers(UDP, Hop, dport=port)
