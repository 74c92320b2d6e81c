"""`dissect` says what every vector says, why bad bytes are bad, and never raises."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.dissect import (
    CUT_OFF,
    Datagram,
    dissect,
    header_fields,
    looks_like_hop,
    split_train,
)
from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind, VerdictCode, VerdictHeader, encode_reports
from packetcloud.chunk.names import GUID
from tests.vectors import chunk_v1, hop_v2
from tests.vectors.chunk_v1_valid import (
    DESTINATION,
    good_headers,
    good_reports,
    good_verdicts,
    make_header,
)
from tests.vectors.hop_v2_valid import (
    KEY,
    OTHER_SESSION,
    SESSION,
    SMALL_CHUNK,
    Bundle,
    Record,
    Segment,
    good_bundles,
    good_controls,
    good_datagrams,
    good_handshakes,
    good_segments,
)


def segment(kind: BodyKind, data: bytes) -> Datagram:
    return dissect(replace(WHOLE, kind=kind, body_bytes=len(data), data=data).to_bytes())


WHOLE = good_segments()["whole chunk"]


@hop_v2.FILE.each("datagrams")
def test_every_good_datagram_is_read(vector: dict[str, Any]) -> None:
    """Type and session are told, nothing is an error, and all of it is JSON."""
    data = bytes.fromhex(vector["bytes"])
    assert looks_like_hop(data)
    datagram = dissect(data)
    assert datagram.error is None
    assert datagram.datagram_bytes == len(data)
    names = {"segment": "data"}
    assert datagram.type == names.get(vector["type"], vector["type"])
    assert datagram.session == (None if datagram.type == "hello" else vector["fields"]["session"])
    json.dumps([datagram.fields, [body.fields for body in datagram.bodies]])


@hop_v2.FILE.each("invalid")
def test_every_bad_datagram_has_its_reason(vector: dict[str, Any]) -> None:
    """The reason is the one that a node counts; the bytes are shown as they are."""
    data = bytes.fromhex(vector["bytes"])
    datagram = dissect(data)
    assert datagram.error is not None
    if len(data) >= wire.PREFIX.size:
        assert datagram.error.startswith(vector["reason"])
        assert data.hex().startswith(datagram.fields["bytes"])


@chunk_v1.FILE.each("invalid")
def test_every_bad_body_has_its_reason(vector: dict[str, Any]) -> None:
    """A bad header, task or verdict does not hide the segment that carries it."""
    data, kind = bytes.fromhex(vector["bytes"]), vector["kind"]
    if not data:
        return
    if kind == "reports":
        data = make_header(payload_type=1, payload_bytes=len(data)).to_bytes() + data
    kinds = {"task": BodyKind.TASK, "verdict": BodyKind.VERDICT}
    datagram = segment(kinds.get(kind, BodyKind.CHUNK), data)
    [body] = datagram.bodies
    assert datagram.error is None
    assert body.error is not None and body.error.startswith(vector["reason"])


@pytest.mark.parametrize("name", good_headers())
def test_header_fields_are_complete(name: str) -> None:
    """Every field of the vectors is in the JSON of a header, by its own name."""
    header = good_headers()[name]
    vector = next(v for v in chunk_v1.FILE.load()["headers"] if v["name"] == name)
    found = header_fields(header)
    assert set(found) == set(vector["fields"])
    same = ("source", "destination", "sid", "sequence", "lifetime_ms", "payload_bytes", "signature")
    for field in same:
        assert found.get(field) == vector["fields"].get(field)
    json.dumps(found)


def test_the_segments_of_a_chunk() -> None:
    """The first segment shows the header; the others their place."""
    bodies = [
        dissect(good_segments()[name].to_bytes()).bodies[0]
        for name in ("first of three", "second of three", "last of three")
    ]
    assert [body.segment for body in bodies] == [0, 1, 2]
    assert [body.is_whole for body in bodies] == [False] * 3
    assert bodies[0].header is not None and bodies[0].header.chunk_id.value == 9
    assert bodies[1].header is None and bodies[1].fields == {}


def test_a_bundle_shows_each_body() -> None:
    """Bodies of a bundle are whole; zeros behind the last one are padding."""
    datagram = dissect(good_bundles()["two bodies, padded"].to_bytes())
    chunk, verdict = datagram.bodies
    assert (chunk.kind, verdict.kind) == ("chunk", "verdict")
    assert chunk.is_whole and chunk.header is not None
    assert verdict.fields["verdict"]["verdict"] == "forward"


def test_a_damaged_bundle_shows_the_bodies_before() -> None:
    """A record that is cut off, and bytes in the padding, are told with what came before."""
    bundle = good_bundles()["two bodies"].to_bytes()
    for damaged in (bundle[:-1], bundle + b"\x00\x01"):
        datagram = dissect(damaged)
        assert datagram.error is not None and datagram.error.startswith("bad_bundle")
        assert datagram.bodies[0].header is not None


def test_reports_are_read() -> None:
    """The entries of a report chunk that arrived whole, with the word of each reason."""
    payload = encode_reports(good_reports()["all outcomes"])
    data = make_header(payload_type=1, payload_bytes=len(payload)).to_bytes() + payload
    [body] = segment(BodyKind.CHUNK, data).bodies
    outcomes = [(entry["outcome"], entry["reason"]) for entry in body.fields["reports"]]
    assert outcomes == [
        ("delivered", None),
        ("refused", "unknown_sid"),
        ("expired", "deadline_passed"),
    ]


def test_emitted_chunks_are_read() -> None:
    """All chunks of an EMIT verdict; one that is cut off is an error."""
    head = VerdictHeader(1, VerdictCode.EMIT, 5, emit_count=2).to_bytes()
    [body] = segment(BodyKind.VERDICT, head + SMALL_CHUNK * 2).bodies
    assert [entry["payload_bytes"] for entry in body.fields["emitted"]] == [5, 5]
    [body] = segment(BodyKind.VERDICT, head + SMALL_CHUNK + SMALL_CHUNK[:-1]).bodies
    assert body.error is not None and "bad_payload_length" in body.error


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (1, 0x11, "reserved_bits"),
        (16, 4, "bad_segment"),
        (19, 1, "bad_segment"),
        (19, 0, "bad_segment"),
    ],
)
def test_a_bad_segment_has_its_reason(offset: int, value: int, reason: str) -> None:
    """An epoch where nothing is sealed, more bytes than a body may have, and than this one has."""
    data = bytearray(replace(WHOLE, body_bytes=len(WHOLE.data)).to_bytes())
    data[offset] = value
    assert str(dissect(bytes(data)).error).startswith(reason)


def test_an_empty_segment_is_an_error() -> None:
    """A segment carries at least one byte."""
    assert str(dissect(replace(WHOLE, data=b"").to_bytes()).error).startswith("bad_segment")


@pytest.mark.parametrize(("offset", "value"), [(1, 2), (1, 16), (2, 1), (3, 1), (26, 1), (27, 1)])
def test_reserved_bits_of_a_bundle(offset: int, value: int) -> None:
    """Each reserved field alone is enough."""
    data = bytearray(good_bundles()["one body"].to_bytes())
    data[offset] = value
    assert str(dissect(bytes(data)).error).startswith("reserved_bits")


def test_what_verdicts_say() -> None:
    """A word where there is one, the target of a redirect, the number of emitted chunks."""
    said = {
        name: segment(BodyKind.VERDICT, verdict.to_bytes()).bodies[0].fields["verdict"]
        for name, verdict in good_verdicts().items()
        if verdict.emit_count < 10
    }
    assert said["drop"]["detail"] == "no such key"
    assert "detail" not in said["drop without a word"] and "emit_count" not in said["drop"]
    assert said["redirect"]["destination"] == DESTINATION.hex
    assert said["redirect"]["destination_na"] == 7
    assert (said["emit as well"]["emit_count"], said["emit as well"]["keep"]) == (1, True)


def test_a_cookie_is_shown_where_there_is_one() -> None:
    """A HELLO under load carries one, the first does not."""
    assert "cookie" not in dissect(good_handshakes()["hello"].to_bytes()).fields
    fields = dissect(good_handshakes()["hello with a cookie"].to_bytes()).fields
    assert fields["cookie"] == bytes(range(16)).hex()


@hop_v2.FILE.each("sealed")
def test_what_is_sealed_is_told_as_such(vector: dict[str, Any]) -> None:
    """What stands outside the seal is shown, nothing of its inside is guessed."""
    for text in vector["datagrams"]:
        datagram = dissect(bytes.fromhex(text))
        assert (datagram.type, datagram.error) == (vector["type"], None)
        assert datagram.fields["sealed"] and "frames" not in datagram.fields
        assert all(body.header is None and body.error is None for body in datagram.bodies)


def test_an_unknown_body_kind_is_shown() -> None:
    """Its number and its reason; nothing is guessed."""
    [body] = segment(cast(BodyKind, 9), b"whatever").bodies
    assert (body.kind, body.fields["bytes"]) == ("kind_9", b"whatever".hex())
    assert body.error is not None and body.error.startswith("bad_segment")


def test_handshakes_name_their_nodes() -> None:
    """HELLO and WELCOME tell which node chose which session id."""
    guid = GUID.from_public_key(KEY)
    assert dissect(good_handshakes()["hello"].to_bytes()).keys == {SESSION: guid}
    welcome = dissect(good_handshakes()["welcome"].to_bytes())
    assert welcome.keys == {OTHER_SESSION: guid}
    assert (welcome.fields["guid"], welcome.fields["role"]) == (guid.hex, "router")


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x11" + bytes(40), b"\x29" + bytes(40)])
def test_what_is_no_hop_datagram(data: bytes) -> None:
    """Other versions and types are unknown, with the reason."""
    datagram = dissect(data)
    assert (datagram.type, datagram.session) == ("unknown", None)
    assert datagram.error
    assert not looks_like_hop(data)


@pytest.mark.parametrize("name", [*good_segments(), *good_bundles(), *good_controls()])
def test_every_cut_is_told_as_such(name: str) -> None:
    """What a capture cut off is told as such, not only as malformed; the size is the real one."""
    good = good_datagrams()[name]
    for length in range(1, len(good)):
        datagram = dissect(good[:length], len(good) - length)
        assert datagram.datagram_bytes == len(good)
        errors = [datagram.error, *(body.error for body in datagram.bodies)]
        assert all(CUT_OFF in error for error in errors if error)
    header = wire.DATA_HEADER_BYTES + 92
    if name == "whole chunk":
        [body] = dissect(good[:header], len(good) - header).bodies
        assert body.header is not None and not body.is_whole


@given(data=st.binary(max_size=1500), cut_bytes=st.integers(0, 3))
def test_any_bytes(data: bytes, cut_bytes: int) -> None:
    """Whatever the bytes, also behind each good first byte, something is said about them."""
    for first in (b"", b"\x21", b"\x22", b"\x23", b"\x24", b"\x25", b"\x26", b"\x27", b"\x28"):
        for row in split_train(first + data):
            datagram = dissect(row, cut_bytes)
            json.dumps([datagram.fields, datagram.error, [b.fields for b in datagram.bodies]])


@given(st.data())
def test_any_mutation(data: st.DataObject) -> None:
    """Good datagrams with a few bytes changed, cut or put in."""
    wire_bytes = bytearray(data.draw(st.sampled_from([*good_datagrams().values()])))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(wire_bytes)))
        wire_bytes[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    dissect(bytes(wire_bytes))


# --- trains ---------------------------------------------------------------------------------------


def train(size: int, count: int, last_bytes: int) -> list[bytes]:
    body_bytes = (count - 1) * size + last_bytes
    return [
        Segment(BodyKind.CHUNK, 1, body_bytes, n, 1, bytes([n]) * length).to_bytes()
        for n, length in enumerate([size] * (count - 1) + [last_bytes])
    ]


@pytest.mark.parametrize("size", [1, 16, 100, 1444])
@pytest.mark.parametrize("count", [1, 2, 3, 44])
@pytest.mark.parametrize("last_bytes", [1, 16, 1444])
def test_a_train_is_split(size: int, count: int, last_bytes: int) -> None:
    """Datagrams of one size, the last one perhaps shorter, come apart as they were."""
    rows = train(size, count, min(size, last_bytes))
    assert split_train(b"".join(rows)) == rows


def test_a_train_that_the_capture_cut_off_is_split() -> None:
    """Wherever the snapshot ends, the whole datagrams before come apart."""
    rows = train(100, 3, 100)
    data = b"".join(rows)
    for length in range(2 * 132 + 1, len(data)):
        assert split_train(data[:length]) == [*rows[:2], rows[2][: length - 2 * 132]]


def test_a_train_of_several_transfers_is_split() -> None:
    """Transfers may follow each other in one train, and bundles and control frames may join it."""
    first = Segment(BodyKind.CHUNK, 1, 100, 0, 1, bytes(100)).to_bytes()
    second = Segment(BodyKind.TASK, 2, 100, 0, 1, bytes(100)).to_bytes()
    bundle = Bundle(1, 1, (Record(3, BodyKind.CHUNK, b"x" * 20),), 74).to_bytes()
    control = good_controls()["probe"].to_bytes()
    assert len(first) == len(second) == len(bundle)
    for rows in ([first, second, bundle, control], [bundle, first], [first, control]):
        assert split_train(b"".join(rows)) == rows


def test_a_session_id_in_the_payload_does_not_split() -> None:
    """A body that quotes its session id stays whole, as long as it does not build a datagram."""
    data = SESSION.to_bytes(8, "big") * 20 + b"tail"
    whole = Segment(BodyKind.CHUNK, 1, len(data), 0, 1, data).to_bytes()
    assert split_train(whole) == [whole]


def test_a_handshake_is_never_split() -> None:
    """Only datagrams of a session travel in trains."""
    hello = good_handshakes()["hello"].to_bytes()
    assert split_train(hello + hello) == [hello + hello]


def test_splitting_is_cheap_for_any_bytes() -> None:
    """64 KiB of the worst bytes, a session id that is everywhere, take no noticeable time."""
    data = b"\x21" + bytes(65_000)
    assert split_train(data) == [data]
