"""Datagrams that no honest neighbour sends, one by one, and what becomes of each.

Each takes the hostile neighbour and returns the datagram. The victim holds, from that neighbour,
transfer 0 (three segments, the first is here) and transfer 1 (whole, taken).
"""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind
from tests.unit.caps.hostile import SHARE_BYTES, Hostile

Craft = Callable[[Hostile], bytes]
BODY_BYTES = 3 * SHARE_BYTES
"""Of transfer 0."""


def data(
    *,
    first: int = wire.DATA_BYTE,
    kind: int = BodyKind.CHUNK,
    flow: int = 0,
    session: int | None = None,
    transfer: int = 2,
    body_bytes: int = 100,
    index: int = 0,
    burst: int = 1,
    check: int = 0,
    share: int | None = None,
) -> Craft:
    """A DATA datagram; by default the whole of transfer 2, whose body has 100 bytes."""

    def craft(hostile: Hostile) -> bytes:
        number = hostile.theirs.local_id if session is None else session
        head = wire.DATA_HEADER.pack(
            first, kind, flow, number, transfer & 0xFFFF_FFFF, body_bytes, index, burst, check
        )
        honest = max(0, min(SHARE_BYTES, body_bytes - index * SHARE_BYTES))
        return head + bytes(honest if share is None else share)

    return craft


def bundle(
    *records: tuple[int, int, int, int, int, bytes],
    count: int | None = None,
    kind: int = 0,
    reserved: int = 0,
    last: int = 0,
    tail: bytes = b"",
) -> Craft:
    """A BUNDLE of (transfer, body bytes, kind, zero, flow, body) records."""

    def craft(hostile: Hostile) -> bytes:
        head = wire.BUNDLE_HEADER.pack(
            wire.BUNDLE_BYTE,
            kind,
            reserved,
            hostile.theirs.local_id,
            0,
            1,
            len(records) if count is None else count,
            last,
        )
        packed = b"".join(
            wire.RECORD.pack(transfer & 0xFFFF_FFFF, size, body_kind, zero, flow) + body
            for transfer, size, body_kind, zero, flow, body in records
        )
        return head + packed + tail

    return craft


def control(*frames: bytes, reserved: int = 0, kind: int = 0, tail: bytes = b"") -> Craft:
    """A CONTROL datagram."""

    def craft(hostile: Hostile) -> bytes:
        head = wire.CONTROL_HEADER.pack(
            wire.CONTROL_BYTE, kind, reserved, hostile.theirs.local_id, 1 << 20
        )
        return head + b"".join(frames) + tail

    return craft


def frame(kind: int, value: bytes, *, flags: int = 0, length: int | None = None) -> bytes:
    """A frame with any head."""
    size = len(value) if length is None else length
    return bytes([kind, flags]) + size.to_bytes(2, "big") + value


def ack(
    burst: int = 0,
    *,
    below: int = 0,
    flags: int = 0,
    partials: int = 0,
    bitmap_bytes: int = 0,
    tail: bytes = b"",
    size: int | None = None,
) -> Craft:
    """A CONTROL with one ACK of any content."""
    value = (
        burst.to_bytes(4, "big")
        + bytes(4 + 8)
        + (1 << 30).to_bytes(8, "big")
        + (1 << 20).to_bytes(4, "big")
        + below.to_bytes(4, "big")
        + bytes([flags, partials])
        + bitmap_bytes.to_bytes(2, "big")
        + tail
    )
    return control(frame(1, value if size is None else value[:size]))


def of_type(kind: int, size: int, *, session: int | None = None, version: int = 2) -> Craft:
    """A datagram of any type, the rest zero."""

    def craft(hostile: Hostile) -> bytes:
        number = hostile.theirs.local_id if session is None else session
        head = bytes([version << 4 | kind, 0, 0, 0]) + number.to_bytes(8, "big")
        return head.ljust(size, b"\0")

    return craft


def raw(content: bytes) -> Craft:
    return lambda hostile: content


_SMALL = (2, 1, BodyKind.CHUNK, 0, 0, b"x")
_BIG = 1 << 20
UNKNOWN = 0x1234_5678_9ABC_DEF1

CASES: dict[str, Craft] = {
    "empty but for a byte": raw(b"\x21"),
    "11 bytes": raw(b"\x21" + bytes(10)),
    "DATA of version 0": data(first=0x01),
    "DATA of version 1": data(first=0x11),
    "DATA of version 15": data(first=0xF1),
    **{f"type {kind} in a session": of_type(kind, 100) for kind in (0, 9, 10, 11, 12, 13, 14, 15)},
    **{
        f"{wire.DatagramType(kind).name} in a session": of_type(kind, 1200)
        for kind in (4, 5, 6, 7, 8)
    },
    **{
        f"{wire.DatagramType(kind).name}, session 0": of_type(kind, 100, session=0)
        for kind in (1, 2, 3, 7, 8)
    },
    **{
        f"{wire.DatagramType(kind).name}, unknown session": of_type(kind, 1200, session=UNKNOWN)
        for kind in (1, 2, 3, 4, 5, 6, 7, 8)
    },
    "DATA cut in its header": lambda hostile: data()(hostile)[:31],
    "DATA without a share": data(share=0),
    "DATA with a share too short": data(share=99),
    "DATA with a share too long": data(share=101),
    "DATA with a share beyond the datagram": data(body_bytes=_BIG, share=SHARE_BYTES + 1),
    "DATA of kind 0": data(kind=0),
    "DATA of kind 4": data(kind=4),
    "DATA of kind 255": data(kind=255),
    "DATA of a body of no bytes": data(body_bytes=0, share=0),
    "DATA of a body over the limit": data(body_bytes=(1 << 20) + 2049),
    "DATA of a body of 4 GiB": data(body_bytes=0xFFFF_FFFF),
    "DATA with a check where there is none": data(check=1),
    "DATA, index beyond the last": data(index=1, share=100),
    "DATA, index at the largest": data(index=0xFFFF_FFFF, share=100),
    "DATA, index beyond the last of three": data(
        transfer=0, body_bytes=BODY_BYTES, index=3, share=1
    ),
    "DATA, the body grows": data(transfer=0, body_bytes=BODY_BYTES + 1, index=1),
    "DATA, the body shrinks": data(transfer=0, body_bytes=BODY_BYTES - 1, index=1),
    "DATA, the kind changes": data(transfer=0, body_bytes=BODY_BYTES, kind=2, index=1),
    "DATA, the flow changes": data(transfer=0, body_bytes=BODY_BYTES, flow=7, index=1),
    "DATA, the same segment again": data(transfer=0, body_bytes=BODY_BYTES, index=0),
    "DATA of a transfer that is taken": data(transfer=1, body_bytes=BODY_BYTES),
    "DATA beyond the window": data(transfer=4096),
    "DATA far beyond the window": data(transfer=0x7FFF_FFFF),
    "DATA of a transfer before the first": data(transfer=-1),
    "DATA that leaves transfers out": data(body_bytes=(1 << 20) + 2048, transfer=3000),
    "BUNDLE cut in its header": lambda hostile: bundle(_SMALL)(hostile)[:27],
    "BUNDLE of nothing": bundle(),
    "BUNDLE with a kind": bundle(_SMALL, kind=1),
    "BUNDLE with a reserved bit": bundle(_SMALL, reserved=1),
    "BUNDLE with a reserved bit at its end": bundle(_SMALL, last=1),
    "BUNDLE of more records than there are": bundle(_SMALL, count=2),
    "BUNDLE of 65 535 records": bundle(_SMALL, count=0xFFFF),
    "BUNDLE, record cut": bundle((2, 50, 1, 0, 0, b"x")),
    "BUNDLE, record of no bytes": bundle((2, 0, 1, 0, 0, b"")),
    "BUNDLE, record of kind 0": bundle((2, 1, 0, 0, 0, b"x")),
    "BUNDLE, record of kind 9": bundle((2, 1, 9, 0, 0, b"x")),
    "BUNDLE, record of an unknown form": bundle((2, 1, 1, 2, 0, b"x")),
    "BUNDLE, record beyond the window": bundle((4096, 1, 1, 0, 0, b"x")),
    "BUNDLE, record of a transfer under way": bundle((0, 1, 1, 0, 0, b"x")),
    "BUNDLE, record of a transfer that is taken": bundle((1, 1, 1, 0, 0, b"x")),
    "BUNDLE, padding that is not zero": bundle(_SMALL, tail=b"\xff" * 9),
    "CONTROL cut in its header": lambda hostile: control()(hostile)[:19],
    "CONTROL of nothing": control(),
    "CONTROL with a kind": control(kind=1),
    "CONTROL with a reserved bit": control(reserved=1),
    "CONTROL of 1201 bytes": control(tail=bytes(1201 - 20)),
    "frame cut in its head": control(tail=b"\x04\0\0"),
    "frame longer than its datagram": control(frame(4, bytes(4), length=5)),
    "frame with a flag": control(frame(4, bytes(4), flags=1)),
    "frame of type 0": control(frame(0, b"")),
    "frame of type 99": control(frame(99, b"")),
    "PROBE of 3 bytes": control(frame(4, bytes(3))),
    "PROBE of 5 bytes": control(frame(4, bytes(5))),
    "BLOCKED of 3 bytes": control(frame(5, bytes(3))),
    "BLOCKED of 4 GiB": control(frame(5, b"\xff" * 4)),
    "CLOSE of 257 bytes": control(frame(6, bytes(257))),
    "REFUSED of half an entry": control(frame(2, bytes(4))),
    "REFUSED of 65 entries": control(frame(2, bytes(8 * 65))),
    "REFUSED with a reserved bit": control(frame(2, bytes(7) + b"\1")),
    "REFUSED of what was never sent": control(frame(2, bytes(4) + b"\0\1\0\0")),
    "FORGET of half an entry": control(frame(3, bytes(4))),
    "FORGET of 65 entries": control(frame(3, bytes(8 * 65))),
    "FORGET beyond the window": control(frame(3, (4096).to_bytes(4, "big") + bytes(4))),
    "FORGET of a transfer that is taken": control(frame(3, (1).to_bytes(4, "big") + bytes(4))),
    "ACK cut": ack(size=35),
    "ACK of a burst that was never sent": ack(1000),
    "ACK of the largest burst there is": ack(0x7FFF_FFFF),
    "ACK of transfers that were never sent": ack(below=1),
    "ACK with unknown flags": ack(flags=0x80),
    "ACK with a bitmap that is not there": ack(bitmap_bytes=8),
    "ACK with a bitmap over 512 bytes": ack(bitmap_bytes=513, tail=bytes(513)),
    "ACK with bytes behind": ack(tail=b"\0"),
    "ACK with partials that are not there": ack(partials=1),
    "ACK with 17 partials": ack(partials=17, tail=bytes(170)),
    "ACK, partial with its bitmap cut": ack(partials=1, tail=bytes(8) + b"\0\x09"),
    "ACK, partial with a bitmap over 400 bytes": ack(
        partials=1, tail=bytes(8) + b"\x01\x91" + bytes(401)
    ),
}

OUTCOMES: dict[str, tuple[str, str, str]] = {
    "empty but for a byte": ("short_datagram", "", ""),
    "11 bytes": ("short_datagram", "", ""),
    "DATA of version 0": ("unexpected_type", "", ""),
    "DATA of version 1": ("unexpected_type", "", ""),
    "DATA of version 15": ("unexpected_type", "", ""),
    "type 0 in a session": ("unexpected_type", "", ""),
    "type 9 in a session": ("unexpected_type", "", ""),
    "type 10 in a session": ("unexpected_type", "", ""),
    "type 11 in a session": ("unexpected_type", "", ""),
    "type 12 in a session": ("unexpected_type", "", ""),
    "type 13 in a session": ("unexpected_type", "", ""),
    "type 14 in a session": ("unexpected_type", "", ""),
    "type 15 in a session": ("unexpected_type", "", ""),
    "HELLO in a session": ("unexpected_type", "", ""),
    "RETRY in a session": ("unexpected_type", "", ""),
    "WELCOME in a session": ("unexpected_type", "", ""),
    "CONFIRM in a session": ("unexpected_type", "", ""),
    "REJECT in a session": ("unexpected_type", "", ""),
    "DATA, session 0": ("unknown_session", "REJECT", ""),
    "BUNDLE, session 0": ("unknown_session", "REJECT", ""),
    "CONTROL, session 0": ("unknown_session", "REJECT", ""),
    "CONFIRM, session 0": ("bad_confirm", "", ""),
    "REJECT, session 0": ("bad_reject", "", ""),
    "DATA, unknown session": ("unknown_session", "REJECT", ""),
    "BUNDLE, unknown session": ("unknown_session", "REJECT", ""),
    "CONTROL, unknown session": ("unknown_session", "REJECT", ""),
    "HELLO, unknown session": ("", "RETRY", ""),
    "RETRY, unknown session": ("unknown_session", "", ""),
    "WELCOME, unknown session": ("unknown_session", "", ""),
    "CONFIRM, unknown session": ("bad_confirm", "", ""),
    "REJECT, unknown session": ("bad_reject", "", ""),
    "DATA cut in its header": ("short_segment", "", ""),
    "DATA without a share": ("bad_segment_length", "", ""),
    "DATA with a share too short": ("bad_segment_length", "", ""),
    "DATA with a share too long": ("bad_segment_length", "", ""),
    "DATA with a share beyond the datagram": ("bad_segment_length", "", ""),
    "DATA of kind 0": ("bad_segment", "", ""),
    "DATA of kind 4": ("bad_segment", "", ""),
    "DATA of kind 255": ("bad_segment", "", ""),
    "DATA of a body of no bytes": ("bad_segment", "", ""),
    "DATA of a body over the limit": ("", "CONTROL", "refused"),
    "DATA of a body of 4 GiB": ("bad_segment", "", ""),
    "DATA with a check where there is none": ("bad_check", "", ""),
    "DATA, index beyond the last": ("bad_segment", "", ""),
    "DATA, index at the largest": ("bad_segment", "", ""),
    "DATA, index beyond the last of three": ("bad_segment", "", ""),
    "DATA, the body grows": ("bad_segment", "", ""),
    "DATA, the body shrinks": ("bad_segment", "", ""),
    "DATA, the kind changes": ("bad_segment", "", ""),
    "DATA, the flow changes": ("bad_segment", "", ""),
    "DATA, the same segment again": ("", "CONTROL", ""),
    "DATA of a transfer that is taken": ("", "CONTROL", ""),
    "DATA beyond the window": ("beyond_window", "", ""),
    "DATA far beyond the window": ("beyond_window", "", ""),
    "DATA of a transfer before the first": ("", "CONTROL", ""),
    "DATA that leaves transfers out": ("", "", "begun"),
    "BUNDLE cut in its header": ("short_bundle", "", ""),
    "BUNDLE of nothing": ("", "", ""),
    "BUNDLE with a kind": ("reserved_bits", "", ""),
    "BUNDLE with a reserved bit": ("reserved_bits", "", ""),
    "BUNDLE with a reserved bit at its end": ("reserved_bits", "", ""),
    "BUNDLE of more records than there are": ("bad_bundle", "CONTROL", "taken"),
    "BUNDLE of 65 535 records": ("bad_bundle", "CONTROL", "taken"),
    "BUNDLE, record cut": ("bad_bundle", "", ""),
    "BUNDLE, record of no bytes": ("bad_bundle", "", ""),
    "BUNDLE, record of kind 0": ("bad_bundle", "", ""),
    "BUNDLE, record of kind 9": ("bad_bundle", "", ""),
    "BUNDLE, record of an unknown form": ("bad_bundle", "", ""),
    "BUNDLE, record beyond the window": ("beyond_window", "", ""),
    "BUNDLE, record of a transfer under way": ("", "CONTROL", ""),
    "BUNDLE, record of a transfer that is taken": ("", "CONTROL", ""),
    "BUNDLE, padding that is not zero": ("", "CONTROL", "taken"),
    "CONTROL cut in its header": ("short_control", "", ""),
    "CONTROL of nothing": ("", "", ""),
    "CONTROL with a kind": ("reserved_bits", "", ""),
    "CONTROL with a reserved bit": ("reserved_bits", "", ""),
    "CONTROL of 1201 bytes": ("long_control", "", ""),
    "frame cut in its head": ("bad_frame", "", ""),
    "frame longer than its datagram": ("bad_frame", "", ""),
    "frame with a flag": ("bad_frame", "", ""),
    "frame of type 0": ("unknown_frame", "", ""),
    "frame of type 99": ("unknown_frame", "", ""),
    "PROBE of 3 bytes": ("bad_frame", "", ""),
    "PROBE of 5 bytes": ("bad_frame", "", ""),
    "BLOCKED of 3 bytes": ("bad_frame", "", ""),
    "BLOCKED of 4 GiB": ("", "CONTROL", ""),
    "CLOSE of 257 bytes": ("bad_frame", "", ""),
    "REFUSED of half an entry": ("bad_frame", "", ""),
    "REFUSED of 65 entries": ("bad_frame", "", ""),
    "REFUSED with a reserved bit": ("reserved_bits", "", ""),
    "REFUSED of what was never sent": ("", "", ""),
    "FORGET of half an entry": ("bad_frame", "", ""),
    "FORGET of 65 entries": ("bad_frame", "", ""),
    "FORGET beyond the window": ("beyond_window", "", ""),
    "FORGET of a transfer that is taken": ("", "CONTROL", ""),
    "ACK cut": ("bad_frame", "", ""),
    "ACK of a burst that was never sent": ("optimistic_ack", "", ""),
    "ACK of the largest burst there is": ("optimistic_ack", "", ""),
    "ACK of transfers that were never sent": ("optimistic_ack", "", ""),
    "ACK with unknown flags": ("bad_frame", "", ""),
    "ACK with a bitmap that is not there": ("bad_frame", "", ""),
    "ACK with a bitmap over 512 bytes": ("bad_frame", "", ""),
    "ACK with bytes behind": ("bad_frame", "", ""),
    "ACK with partials that are not there": ("bad_frame", "", ""),
    "ACK with 17 partials": ("bad_frame", "", ""),
    "ACK, partial with its bitmap cut": ("bad_frame", "", ""),
    "ACK, partial with a bitmap over 400 bytes": ("bad_frame", "", ""),
}
"""For each: the reason that it is counted under, the type of what is answered, and what changed of
the session's transfers; empty is nothing."""
