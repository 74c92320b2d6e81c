"""hop-v2.json is what the code encodes, and what it decodes and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.body_seal import open_body, terms_of
from packetcloud.chunk.hop.buffers import BufferPool, RowBuffer
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.keys import KeyRing
from packetcloud.chunk.hop.replay import ReplayWindow
from packetcloud.chunk.hop.resets import check_reset
from tests.vectors import hop_v2
from tests.vectors.fields import plain_fields


def test_the_file_is_what_the_code_encodes() -> None:
    """The protocol never changes by accident: see `python -m tests.vectors.hop_v2`."""
    assert hop_v2.build() == hop_v2.FILE.load()


@hop_v2.FILE.each("datagrams")
def test_datagrams(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, what was decoded encodes to the bytes."""
    data, kind, fields = bytes.fromhex(vector["bytes"]), vector["type"], vector["fields"]
    first, second, flow, session = wire.PREFIX.unpack_from(data)
    assert (flow, session) == (fields.get("flow", 0), fields["session"])
    if kind == "segment":
        assert first == wire.DATA_BYTE
        names = ("transfer", "body_bytes", "index", "burst", "check")
        assert second == fields["epoch"] << 4 | fields["kind"]
        assert wire.DATA_HEADER.unpack_from(data)[4:] == tuple(fields[name] for name in names)
        assert data[wire.DATA_HEADER_BYTES :].hex() == fields["data"]
    elif kind == "bundle":
        assert first == wire.BUNDLE_BYTE
        assert wire.BUNDLE_HEADER.unpack_from(data)[4:7] == (
            fields["counter"],
            fields["burst"],
            len(fields["records"]),
        )
    elif kind == "control":
        assert first == wire.CONTROL_BYTE
        frames = list(wire.decode_control(data))
        assert [plain_fields(frame) for frame in frames] == fields["frames"]
        encoded = [frame.to_bytes() for frame in frames]
        assert wire.encode_control(session, fields["counter"], encoded) == data
    else:
        assert first == wire.type_byte(wire.DatagramType[kind.upper()])
        value: Any = hop_v2.DECODERS[kind](data)
        assert plain_fields(value) == fields
        assert value.to_bytes() == data


@hop_v2.FILE.each("resets")
def test_resets(vector: dict[str, Any]) -> None:
    """A reset counts from the bearer of the key that signed it, and from no other."""
    reset = wire.Reject.from_bytes(bytes.fromhex(vector["bytes"]))
    public_key = bytes.fromhex(vector["public_key"])
    check_reset(reset, public_key, vector["instance"])
    with pytest.raises(ProtocolError, match="bad_signature"):
        check_reset(reset, public_key, vector["instance"] + 1)


@hop_v2.FILE.each("invalid")
def test_invalid(vector: dict[str, Any]) -> None:
    """These bytes are refused, and with this reason."""
    with pytest.raises(ProtocolError) as raised:
        hop_v2.DECODERS[vector["kind"]](bytes.fromhex(vector["bytes"]))
    assert raised.value.reason == vector["reason"]


@hop_v2.FILE.each("sealed")
def test_sealed(vector: dict[str, Any]) -> None:
    """What was sealed with these keys opens to this, in the order of the counters."""
    fields = vector["fields"]
    suite = wire.Suite(fields["suite"])
    ring = KeyRing(suite, bytes.fromhex(fields["secret"]), is_client=False)
    datagrams = [bytes.fromhex(text) for text in vector["datagrams"]]
    match vector["type"]:
        case "control":
            assert Envelope(1, ring).open_control(datagrams[0]).hex() == fields["frames"]
        case "bundle":
            burst, count, records = Envelope(1, ring).open_bundle(memoryview(datagrams[0]))
            assert (burst, count) == (fields["burst"], fields["records_count"])
            assert records.hex() == fields["records"]
        case _:
            store = RowBuffer(len(datagrams), len(datagrams[0]))
            train = b"".join(datagrams)
            store.memory[: len(train)] = train
            words = store.bytes.view(">u4").reshape(len(datagrams), -1)[:, :8].astype(np.uint32)
            keys = ring.receive_keys(fields["epoch"])
            assert keys.check.is_right(words).all()
            size, pool = fields["body_bytes"], BufferPool()
            terms = terms_of(fields["transfer"], fields["kind"], fields["flow"], size)
            body = open_body(keys, terms, size, store, pool)
            assert body is not None and body[: size - 16].tobytes().hex() == fields["body"]


@hop_v2.FILE.each("replay")
def test_replay_window(vector: dict[str, Any]) -> None:
    """Step by step: taken, or refused for this reason."""
    window = ReplayWindow()
    for counter, expected in vector["steps"]:
        try:
            window.check(counter)
        except ProtocolError as error:
            assert error.reason == expected, counter
        else:
            assert expected == "taken", counter
            window.note(counter)


def test_each_type_and_frame_has_a_vector() -> None:
    """A new datagram type or frame does not get in without a vector."""
    vectors = hop_v2.FILE.load()["datagrams"]
    types = {bytes.fromhex(vector["bytes"])[0] & 15 for vector in vectors}
    assert types == set(wire.DatagramType)
    frames = {frame["frame"] for vector in vectors for frame in vector["fields"].get("frames", ())}
    assert frames == {kind.name.lower().replace("_", "") for kind in wire.FrameType}
