"""The frames of CONTROL datagrams of the hop protocol as scapy layers.

See `scapy_hop` for the datagrams that carry them. Source: docs/protocol/hop.md, "CONTROL".
"""

# scapy declares fields as mutable class attributes of mixed type, and its callbacks are untyped.
# ruff: noqa: RUF012
# mypy: disable-error-code="misc"

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from scapy.fields import (
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
)
from scapy.packet import Packet, Padding, Raw

from packetcloud.chunk.hop import wire
from packetcloud.chunk.scapy_layers import HexField, Part, counted_bytes, patch, words

_FRAME_HEAD = struct.Struct(">BBH")


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


def frame_layer(data: bytes, _parent: Packet | None = None) -> Packet:
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
