"""The law of the hop protocol's decoders, for any bytes whatever.

A value or exactly ProtocolError; what was accepted encodes to the same bytes again.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from tests.vectors import hop_v2

VECTORS: dict[str, list[bytes]] = {kind: [] for kind in hop_v2.DECODERS}
for vector in hop_v2.FILE.load()["datagrams"]:
    if vector["type"] in VECTORS:
        VECTORS[vector["type"]].append(bytes.fromhex(vector["bytes"]))

kinds = pytest.mark.parametrize("kind", VECTORS)


def check_law(kind: str, data: bytes) -> bool:
    """Decode `data` as `kind` and check the law; tell whether it was accepted."""
    try:
        value: Any = hop_v2.DECODERS[kind](data)
    except ProtocolError as error:
        assert error.reason.isidentifier() and error.reason.islower()
        return False
    if kind == "control":
        _, _, _, session, counter = wire.CONTROL_HEADER.unpack_from(data)
        encoded = wire.encode_control(session, counter, [frame.to_bytes() for frame in value])
        texts = [frame.reason for frame in value if isinstance(frame, wire.CloseFrame)]
    else:
        encoded = value.to_bytes()
        texts = []
    if any("\ufffd" in text for text in texts):
        return True  # a farewell that is not UTF-8 is shown as well as it can be
    # Version and type are looked at before these decoders are called.
    assert encoded[1:] == data[1:]
    return True


@kinds
@given(data=st.binary(max_size=1300))
def test_any_bytes(kind: str, data: bytes) -> None:
    """Random bytes, also behind a good prefix."""
    if kind == "control":
        check_law(kind, data.ljust(wire.CONTROL_HEADER_BYTES, b"\0"))
        check_law(kind, VECTORS[kind][0][: wire.CONTROL_HEADER_BYTES] + data)
    else:
        check_law(kind, data)


@given(
    frames=st.lists(
        st.tuples(st.integers(0, 16), st.sampled_from([0, 0, 0, 1]), st.binary(max_size=80))
    )
)
def test_any_frames(frames: list[tuple[int, int, bytes]]) -> None:
    """Well-formed frame heads with any value behind a good prefix."""
    body = b"".join(
        bytes([kind, flags]) + len(value).to_bytes(2, "big") + value
        for kind, flags, value in frames
    )
    check_law("control", VECTORS["control"][0][: wire.CONTROL_HEADER_BYTES] + body)


@kinds
@given(data=st.data())
def test_mutated_vectors(kind: str, data: st.DataObject) -> None:
    """Good bytes with a few changed, cut out, doubled or put in."""
    wire_bytes = bytearray(data.draw(st.sampled_from(VECTORS[kind])))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(wire.PREFIX.size, len(wire_bytes)))
        length = data.draw(st.integers(0, 8))
        match data.draw(st.sampled_from(["overwrite", "cut", "double", "insert"])):
            case "overwrite":
                wire_bytes[offset : offset + length] = data.draw(st.binary(max_size=length))
            case "cut":
                del wire_bytes[offset : offset + length]
            case "double":
                wire_bytes[offset:offset] = wire_bytes[offset : offset + length]
            case _:
                wire_bytes[offset:offset] = data.draw(st.binary(max_size=8))
    check_law(kind, bytes(wire_bytes))


@kinds
def test_every_truncation_and_every_bit_flip(kind: str) -> None:
    """Exhaustive: each good vector cut at each length, and with each single bit turned over."""
    for data in VECTORS[kind]:
        for length in range(wire.PREFIX.size if kind == "control" else 0, len(data)):
            check_law(kind, data[:length])
        for index in range(1, len(data)):
            for bit in range(8):
                flipped = bytearray(data)
                flipped[index] ^= 1 << bit
                check_law(kind, bytes(flipped))
