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
from collections.abc import Callable
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
    StrLenField,
    XIntField,
    XLongField,
)
from scapy.layers.inet import UDP
from scapy.packet import Packet, Padding, Raw, bind_layers

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.scapy_layers import BODY_LAYERS, HexField, Part, counted_bytes, patch, words

_FRAME_HEAD = struct.Struct(">BBH")
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


class BundleRecord(Packet):
    """One small body, whole."""

    name = "bundle record"
    fields_desc = [
        IntField("transfer", 0),
        ShortField("body_bytes", None),
        ByteEnumField("kind", BodyKind.CHUNK, words(BodyKind)),
        ByteField("reserved", 0),
        ShortField("flow", 0),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.body_bytes is None:
            pkt = patch(pkt, 4, ">H", len(pay))
        return pkt + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return s[: self.body_bytes], s[self.body_bytes :]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
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


def _frame_head(kind: int) -> list[Any]:
    return [
        ByteEnumField("type", kind, words(wire.FrameType)),
        ByteField("flags", 0),
        ShortField("length", None),
    ]


def _rest(name: str) -> Any:
    """The bytes of a frame that is nothing else."""
    return StrLenField(name, b"", length_from=lambda packet: packet.length)


def _entries(layer: type[Packet]) -> Any:
    """The members of a frame that is a list."""
    return PacketListField("entries", [], layer, length_from=lambda packet: packet.length)


class _Frame(Part):
    """A control frame; its length is filled in from what it holds."""

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.length is None:
            pkt = patch(pkt, 2, ">H", len(pkt) - wire.FRAME_HEAD_BYTES)
        return pkt + pay


class PartialTransfer(Part):
    """A transfer that is not whole: which of its segments arrived."""

    name = "partial transfer"
    fields_desc = [
        IntField("transfer", 0),
        IntField("base", 0),
        *counted_bytes("bitmap_bytes", "bitmap"),
    ]


class Ack(_Frame):
    """What a receiver has, and what it can take."""

    name = "ACK"
    fields_desc = [
        *_frame_head(wire.FrameType.ACK),
        IntField("largest_burst", 0),
        IntField("delay_us", 0),
        LongField("received_bytes", 0),
        LongField("credit_limit_bytes", 0),
        IntField("window_bytes", 0),
        IntField("done_below", 0),
        FlagsField("ack_flags", 0, 8, ["busy", "more", *(f"reserved{bit}" for bit in range(2, 8))]),
        FieldLenField("partial_count", None, count_of="partials", fmt="B"),
        *counted_bytes("bitmap_bytes", "done_bitmap"),
        PacketListField(
            "partials", [], PartialTransfer, count_from=lambda packet: packet.partial_count
        ),
    ]


class RefusedEntry(Part):
    """A transfer that is refused, and why."""

    name = "refused transfer"
    fields_desc = [
        IntField("transfer", 0),
        ShortField("reason", 0),
        ShortField("reserved", 0),
    ]

    def mysummary(self) -> str:
        return f"transfer {self.transfer} refused, reason {self.reason}"


class Refused(_Frame):
    """Transfers that arrived whole and are refused."""

    name = "REFUSED"
    fields_desc = [*_frame_head(wire.FrameType.REFUSED), _entries(RefusedEntry)]


class ForgetEntry(Part):
    """A transfer that its sender has settled."""

    name = "forgotten transfer"
    fields_desc = [IntField("transfer", 0), IntField("body_bytes", 0)]


class Forget(_Frame):
    """Transfers that their sender has settled or given up."""

    name = "FORGET"
    fields_desc = [*_frame_head(wire.FrameType.FORGET), _entries(ForgetEntry)]


class Probe(_Frame):
    """Asks for an ACK at once."""

    name = "PROBE"
    fields_desc = [*_frame_head(wire.FrameType.PROBE), IntField("burst", 0)]


class Blocked(_Frame):
    """The sender has no credit."""

    name = "BLOCKED"
    fields_desc = [*_frame_head(wire.FrameType.BLOCKED), IntField("wanted_bytes", 0)]


class Close(_Frame):
    """The session ends."""

    name = "CLOSE"
    fields_desc = [*_frame_head(wire.FrameType.CLOSE), _rest("reason")]


class DigestsWanted(_Frame):
    """Asks for digests of a transfer that arrived altered."""

    name = "DIGESTS_WANTED"
    fields_desc = [
        *_frame_head(wire.FrameType.DIGESTS_WANTED),
        IntField("transfer", 0),
        IntField("first", 0),
    ]


class Digests(_Frame):
    """Digests of consecutive segments, 8 bytes each."""

    name = "DIGESTS"
    fields_desc = [
        *_frame_head(wire.FrameType.DIGESTS),
        IntField("transfer", 0),
        IntField("first", 0),
        StrLenField("digests", b"", length_from=lambda packet: packet.length - 8),
    ]


class Damaged(_Frame):
    """Segments that arrived altered."""

    name = "DAMAGED"
    fields_desc = [
        *_frame_head(wire.FrameType.DAMAGED),
        IntField("transfer", 0),
        IntField("burst", 0),
        IntField("base", 0),
        *counted_bytes("bitmap_bytes", "bitmap"),
    ]


class Rekey(_Frame):
    """One side of an exchange for new keys."""

    name = "REKEY"
    fields_desc = [
        *_frame_head(wire.FrameType.REKEY),
        IntField("epoch", 1),
        ByteEnumField("step", wire.RekeyStep.OFFER, words(wire.RekeyStep)),
        HexField("reserved", 3),
        HexField("share", 32),
    ]


class PathChallenge(_Frame):
    """Asks for its token back."""

    name = "PATH_CHALLENGE"
    fields_desc = [
        *_frame_head(wire.FrameType.PATH_CHALLENGE),
        HexField("token", wire.PATH_TOKEN_BYTES),
    ]


class PathResponse(_Frame):
    """The token of a challenge."""

    name = "PATH_RESPONSE"
    fields_desc = [
        *_frame_head(wire.FrameType.PATH_RESPONSE),
        HexField("token", wire.PATH_TOKEN_BYTES),
    ]


class Stride(_Frame):
    """The size of full datagrams: probed, or changed."""

    name = "STRIDE"
    fields_desc = [
        *_frame_head(wire.FrameType.STRIDE),
        ByteEnumField("step", wire.StrideStep.PROBE, words(wire.StrideStep)),
        ByteField("reserved", 0),
        ShortField("stride_bytes", wire.MIN_DATAGRAM_BYTES),
        IntField("burst", 0),
        PacketListField("entries", [], ForgetEntry, length_from=lambda packet: packet.length - 8),
    ]


class PaddingFrame(_Frame):
    """Zeros that make a datagram long enough."""

    name = "PADDING"
    fields_desc = [*_frame_head(wire.FrameType.PADDING), _rest("zeros")]


class Busy(_Frame):
    """Flows that may not start a body now; a leading 0: there are more."""

    name = "BUSY"
    fields_desc = [
        *_frame_head(wire.FrameType.BUSY),
        FieldListField(
            "flows", [], ShortField("flow", 0), count_from=lambda packet: packet.length // 2
        ),
    ]


class WholeRange(Part):
    """Transfers that are whole and not settled."""

    name = "whole transfers"
    fields_desc = [IntField("first", 0), ShortField("number", 1), ShortField("reserved", 0)]


class Whole(_Frame):
    """Transfers that wait for the layer above."""

    name = "WHOLE"
    fields_desc = [*_frame_head(wire.FrameType.WHOLE), _entries(WholeRange)]


class UnknownFrame(_Frame):
    """A frame of a type that we do not know, or one whose length is wrong for its type."""

    name = "unknown frame"
    fields_desc = [*_frame_head(255), _rest("data")]


_FRAME_LAYERS: dict[int, tuple[type[Packet], Callable[[int], bool]]] = {
    wire.FrameType.ACK: (Ack, lambda length: length >= wire.ACK_FIXED_BYTES),
    wire.FrameType.REFUSED: (Refused, lambda length: length % 8 == 0),
    wire.FrameType.FORGET: (Forget, lambda length: length % 8 == 0),
    wire.FrameType.PROBE: (Probe, lambda length: length == 4),
    wire.FrameType.BLOCKED: (Blocked, lambda length: length == 4),
    wire.FrameType.CLOSE: (Close, lambda _: True),
    wire.FrameType.DIGESTS_WANTED: (DigestsWanted, lambda length: length == 8),
    wire.FrameType.DIGESTS: (Digests, lambda length: length >= 8),
    wire.FrameType.DAMAGED: (Damaged, lambda length: length >= 14),
    wire.FrameType.BUSY: (Busy, lambda length: length % 2 == 0),
    wire.FrameType.WHOLE: (Whole, lambda length: length % 8 == 0),
    wire.FrameType.REKEY: (Rekey, lambda length: length == 40),
    wire.FrameType.PATH_CHALLENGE: (PathChallenge, lambda length: length == 8),
    wire.FrameType.PATH_RESPONSE: (PathResponse, lambda length: length == 8),
    wire.FrameType.STRIDE: (Stride, lambda length: length >= 8 and length % 8 == 0),
    wire.FrameType.PADDING: (PaddingFrame, lambda _: True),
}
"""The layer of each frame type, and whether a length suits it."""


def _frame(data: bytes, _parent: Packet | None = None) -> Packet:
    """Dissect one control frame by the layer of its type, if its length suits that."""
    if len(data) < wire.FRAME_HEAD_BYTES:
        return Raw(data)
    kind, _, length = _FRAME_HEAD.unpack_from(data)
    end = wire.FRAME_HEAD_BYTES + length
    layer, suits = _FRAME_LAYERS.get(kind, (UnknownFrame, bool))
    if end > len(data) or not suits(length):
        layer = UnknownFrame
    frame = layer(data[:end], _parent=_parent)
    if data[end:]:
        frame.add_payload(Padding(data[end:]))
    return frame


class HopControl(Packet):
    """Control frames of an open session."""

    name = "hop control"
    fields_desc = [
        *_hop_head(wire.DatagramType.CONTROL),
        *_sealing(0),
        PacketListField(
            "frames",
            [],
            _frame,
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
