"""Datagrams that hop protocol 2 refuses, each made by hand from a good one, and the reason."""

from __future__ import annotations

import struct

from packetcloud.chunk.hop import wire
from tests.vectors.chunk_v1_invalid import BadBytes, put
from tests.vectors.hop_v2_valid import good_controls, good_handshakes


def bad_datagrams() -> dict[str, BadBytes]:
    """Return, for each decoder of `hop_v2.DECODERS`, what it must refuse."""
    return {
        "control": _bad_controls(),
        "hello": _bad_hellos(),
        "retry": _bad_retries(),
        "welcome": _bad_welcomes(),
        "confirm": _bad_confirms(),
        "reject": _bad_rejects(),
    }


def _bad_controls() -> BadBytes:
    none = good_controls()["no frame"].to_bytes()
    ack = good_controls()["ack"].to_bytes()
    gaps = good_controls()["ack with gaps, busy, more"].to_bytes()
    value = wire.CONTROL_HEADER_BYTES + wire.FRAME_HEAD_BYTES
    flags, count, bitmap = value + 32, value + 33, value + 34
    over_entries = (wire.MAX_ENTRIES_COUNT + 1) * 8
    long_bitmap = wire.TRANSFER_WINDOW_COUNT // 8 + 1
    long_partial = struct.pack(">IIH", 1, 0, wire.MAX_BITMAP_BYTES + 1)
    fixed = put(ack[value:], 33, b"\x01")
    return {
        "longer than 1200 bytes": (
            none + _frame(wire.FrameType.CLOSE, b"x" * 92) * 13,
            "long_control",
        ),
        "cut off inside the counter": (none[:-1], "short_control"),
        "neither open nor sealed": (put(none, 1, b"\x02"), "reserved_bits"),
        "epoch, where it is open": (put(none, 1, b"\x10"), "reserved_bits"),
        "reserved bits": (put(none, 3, b"\x01"), "reserved_bits"),
        "frame head cut off": (ack + b"\x01\x00\x00", "bad_frame"),
        "frame cut off": (ack[:-1], "bad_frame"),
        "frame flags": (put(ack, value - 3, b"\x01"), "bad_frame"),
        "frame type 0": (none + _frame(0), "unknown_frame"),
        "frame type 17": (none + _frame(17), "unknown_frame"),
        "ack cut off": (none + _frame(1, ack[value:-1]), "bad_frame"),
        "ack with trailing bytes": (none + _frame(1, ack[value:] + b"\x00"), "bad_frame"),
        "ack with a reserved flag": (put(ack, flags, b"\x04"), "bad_frame"),
        "ack bitmap cut off": (put(ack, bitmap, b"\x00\x01"), "bad_frame"),
        "ack bitmap over the window": (
            none + _frame(1, put(ack[value:], 34, struct.pack(">H", long_bitmap)) + bytes(513)),
            "bad_frame",
        ),
        "ack with 17 partials": (
            none + _frame(1, put(ack[value:], 33, b"\x11") + bytes(170)),
            "bad_frame",
        ),
        "ack partial cut off": (put(ack, count, b"\x01"), "bad_frame"),
        "ack partial bitmap cut off": (
            none + _frame(1, fixed + struct.pack(">IIH", 1, 0, 2) + b"\x00"),
            "bad_frame",
        ),
        "ack partial bitmap too long": (
            none + _frame(1, fixed + long_partial + bytes(wire.MAX_BITMAP_BYTES + 1)),
            "bad_frame",
        ),
        "ack, bytes after the partials": (none + _frame(1, gaps[value:] + b"\x00"), "bad_frame"),
        "refused of 7 bytes": (none + _frame(2, bytes(7)), "bad_frame"),
        "refused with reserved bits": (none + _frame(2, bytes(7) + b"\x01"), "reserved_bits"),
        "refused, 65 entries": (none + _frame(2, bytes(over_entries)), "bad_frame"),
        "forget of 9 bytes": (none + _frame(3, bytes(9)), "bad_frame"),
        "forget, 65 entries": (none + _frame(3, bytes(over_entries)), "bad_frame"),
        "probe of 3 bytes": (none + _frame(4, bytes(3)), "bad_frame"),
        "blocked of 5 bytes": (none + _frame(5, bytes(5)), "bad_frame"),
        "digests wanted of 7 bytes": (none + _frame(7, bytes(7)), "bad_frame"),
        "digests without a digest": (none + _frame(8, bytes(8)), "bad_frame"),
        "digests, 7 bytes of one": (none + _frame(8, bytes(15)), "bad_frame"),
        "digests, 141": (none + _frame(8, bytes(8 + 8 * 141)), "bad_frame"),
        "damaged without a bitmap": (none + _frame(9, bytes(14)), "bad_frame"),
        "damaged, bitmap cut off": (none + _frame(9, bytes(12) + b"\0\2\1"), "bad_frame"),
        "damaged, bitmap too long": (
            none + _frame(9, bytes(12) + struct.pack(">H", 401) + bytes(401)),
            "bad_frame",
        ),
        "rekey of 39 bytes": (none + _frame(11, bytes(39)), "bad_frame"),
        "rekey, step 0": (none + _frame(11, bytes(40)), "bad_frame"),
        "rekey, step 3": (none + _frame(11, bytes(4) + b"\3" + bytes(35)), "bad_frame"),
        "rekey, reserved bits": (
            none + _frame(11, bytes(4) + b"\1\0\0\1" + bytes(32)),
            "bad_frame",
        ),
        "path challenge of 7 bytes": (none + _frame(12, bytes(7)), "bad_frame"),
        "path response of 9 bytes": (none + _frame(13, bytes(9)), "bad_frame"),
        "stride of 7 bytes": (none + _frame(14, bytes(7)), "bad_frame"),
        "stride, step 0": (none + _frame(14, b"\0\0\4\xb0" + bytes(4)), "bad_frame"),
        "stride, step 5": (none + _frame(14, b"\5\0\4\xb0" + bytes(4)), "bad_frame"),
        "stride, reserved bits": (none + _frame(14, b"\1\1\4\xb0" + bytes(4)), "bad_frame"),
        "stride of 1199": (none + _frame(14, b"\3\0\4\xaf" + bytes(4)), "bad_frame"),
        "stride, a probe with a burst": (
            none + _frame(14, b"\1\0\4\xb0\0\0\0\1"),
            "bad_frame",
        ),
        "stride, a confirmation with an entry": (
            none + _frame(14, b"\4\0\4\xb0\0\0\0\1" + bytes(8)),
            "bad_frame",
        ),
        "stride, 65 entries": (
            none + _frame(14, b"\3\0\4\xb0" + bytes(4) + bytes(over_entries)),
            "bad_frame",
        ),
        "whole, no transfers": (none + _frame(16, bytes(8)), "bad_frame"),
        "whole, reserved bits": (none + _frame(16, bytes(5) + b"\1\0\1"), "bad_frame"),
        "whole, ranges that overlap": (none + _whole((4, 3), (6, 1)), "bad_frame"),
        "whole, ranges that descend": (none + _whole((6, 1), (4, 1)), "bad_frame"),
        "whole, more than a window": (
            none + _whole((4, 1), (6, wire.TRANSFER_WINDOW_COUNT - 1)),
            "bad_frame",
        ),
        "padding that is not zero": (none + _frame(15, b"\x00\x01"), "bad_frame"),
        "close of 257 bytes": (none + _frame(6, b"z" * 257), "bad_frame"),
    }


def _whole(*ranges: tuple[int, int]) -> bytes:
    return wire.WholeFrame(ranges).to_bytes()


def _bad_hellos() -> BadBytes:
    hello = good_handshakes()["hello"].to_bytes()
    parameters = 84
    return {
        "empty": (b"", "bad_hello"),
        "1199 bytes": (hello[:-1], "bad_hello"),
        "1201 bytes": (hello + b"\x00", "bad_hello"),
        "padding is not zero": (put(hello, wire.HELLO_CORE_BYTES - 1, b"\x01"), "bad_hello"),
        "kind is set": (put(hello, 1, b"\x01"), "reserved_bits"),
        "reserved bits": (put(hello, 2, b"\x80"), "reserved_bits"),
        **{
            name: (put(hello, parameters + offset, data), reason)
            for name, (offset, data, reason) in _BAD_PARAMETERS.items()
        },
    }


_BAD_PARAMETERS = {
    "no suite": (0, b"\x00", "unknown_suite"),
    "unknown suites only": (0, b"\xf1", "unknown_suite"),
    "role 0": (1, b"\x00", "bad_role"),
    "role 4": (1, b"\x04", "bad_role"),
    "datagrams of 1199 bytes": (2, b"\x04\xaf", "bad_parameters"),
    "datagrams of 65508 bytes": (2, b"\xff\xe4", "bad_parameters"),
    "bodies of 0 bytes": (4, bytes(4), "bad_parameters"),
    "bodies larger than a header can say": (4, b"\x04\x00\x00\x00", "bad_parameters"),
    "window of 0 bytes": (8, bytes(4), "bad_parameters"),
    "credit of 0 bytes": (12, bytes(8), "bad_parameters"),
}


def _bad_retries() -> BadBytes:
    retry = good_handshakes()["retry"].to_bytes()
    return {
        "one byte short": (retry[:-1], "bad_retry"),
        "one byte too many": (retry + b"\x00", "bad_retry"),
        "reserved bits": (put(retry, 3, b"\x01"), "reserved_bits"),
        "cut off inside the prefix": (retry[:11], "bad_retry"),
    }


def _bad_welcomes() -> BadBytes:
    welcome = good_handshakes()["welcome"].to_bytes()
    return {
        "one byte short": (welcome[:-1], "bad_welcome"),
        "one byte too many": (welcome + b"\x00", "bad_welcome"),
        "kind is set": (put(welcome, 1, b"\x02"), "reserved_bits"),
        "suite 0": (put(welcome, 108, b"\x00"), "unknown_suite"),
        "suite 4": (put(welcome, 108, b"\x04"), "unknown_suite"),
        "reserved bits behind the suite": (put(welcome, 111, b"\x01"), "reserved_bits"),
        **{
            name: (put(welcome, 84 + offset, data), reason)
            for name, (offset, data, reason) in _BAD_PARAMETERS.items()
        },
    }


def _bad_confirms() -> BadBytes:
    confirm = good_handshakes()["confirm"].to_bytes()
    return {
        "one byte short": (confirm[:-1], "bad_confirm"),
        "one byte too many": (confirm + b"\x00", "bad_confirm"),
        "reserved bits": (put(confirm, 2, b"\x01"), "reserved_bits"),
    }


def _bad_rejects() -> BadBytes:
    reject = good_handshakes()["reject"].to_bytes()
    return {
        "one byte short": (reject[:-1], "bad_reject"),
        "one byte too many": (reject + b"\x00", "bad_reject"),
        "reserved bits": (put(reject, 2, b"\x01"), "reserved_bits"),
        "cut off inside the prefix": (reject[:11], "bad_reject"),
    }


def _frame(kind: int, value: bytes = b"") -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value
