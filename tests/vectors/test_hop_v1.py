"""hop-v1.json is what the code encodes, and what it decodes and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from tests.vectors import hop_v1
from tests.vectors.fields import plain_fields


def test_the_file_is_what_the_code_encodes() -> None:
    """The protocol never changes by accident: see `python -m tests.vectors.hop_v1`."""
    assert hop_v1.build() == hop_v1.FILE.load()


@hop_v1.FILE.each("datagrams")
def test_datagrams(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, what was decoded encodes to the bytes."""
    data, kind, fields = bytes.fromhex(vector["bytes"]), vector["type"], vector["fields"]
    first, body_kind, reserved, session = wire.PREFIX.unpack_from(data)
    assert (reserved, session) == (0, fields["session"])
    if kind == "segment":
        assert first == wire.DATA_BYTE
        names = ("transfer", "body_bytes", "index", "burst")
        assert body_kind == fields["kind"]
        assert wire.DATA_HEADER.unpack_from(data)[4:] == tuple(fields[name] for name in names)
        assert data[wire.DATA_HEADER_BYTES :].hex() == fields["data"]
    elif kind == "bundle":
        assert first == wire.BUNDLE_BYTE
        assert wire.BUNDLE_HEADER.unpack_from(data)[4:6] == (
            fields["burst"],
            len(fields["records"]),
        )
    elif kind == "control":
        assert first == wire.CONTROL_BYTE
        frames = list(wire.decode_control(data))
        assert [plain_fields(frame) for frame in frames] == fields["frames"]
        assert wire.encode_control(session, [frame.to_bytes() for frame in frames]) == data
    else:
        assert first == wire.type_byte(wire.DatagramType[kind.upper()])
        value: Any = hop_v1.DECODERS[kind](data)
        assert plain_fields(value) == fields
        assert value.to_bytes() == data


@hop_v1.FILE.each("invalid")
def test_invalid(vector: dict[str, Any]) -> None:
    """These bytes are refused, and with this reason."""
    with pytest.raises(ProtocolError) as raised:
        hop_v1.DECODERS[vector["kind"]](bytes.fromhex(vector["bytes"]))
    assert raised.value.reason == vector["reason"]


def test_each_type_and_frame_has_a_vector() -> None:
    """A new datagram type or frame does not get in without a vector."""
    vectors = hop_v1.FILE.load()["datagrams"]
    types = {bytes.fromhex(vector["bytes"])[0] & 15 for vector in vectors}
    assert types == set(wire.DatagramType)
    frames = {frame["frame"] for vector in vectors for frame in vector["fields"].get("frames", ())}
    assert frames == {kind.name.lower() for kind in wire.FrameType}
