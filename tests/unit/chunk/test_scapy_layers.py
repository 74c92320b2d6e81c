"""The scapy layers agree with the codecs on every vector, when they dissect and when they build."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Padding, Raw

from packetcloud.chunk import scapy_frames, scapy_hop, scapy_layers
from packetcloud.chunk.header import ExtensionType, decode_header
from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind, decode_reports
from packetcloud.chunk.names import GUID
from packetcloud.chunk.scapy_hop import HopBundle, HopControl, HopData, bind_hop_port, hop_datagram
from packetcloud.chunk.scapy_layers import Chunk, Lifetime, Reports, Task, Verdict
from tests.unit.chunk.captures import ETHER
from tests.vectors import chunk_v1, hop_v2
from tests.vectors.chunk_v1_valid import DESTINATION, SIDS, SOURCE, make_header

EXTENSION_LAYERS = {
    "sequence": scapy_layers.ServiceSequence,
    "lifetime_ms": scapy_layers.Lifetime,
    "wants_report": scapy_layers.ReportRequest,
    "wants_trace": scapy_layers.TraceRequest,
    "digest": scapy_layers.PayloadDigest,
    "signature": scapy_layers.SourceSignature,
    "parameters": scapy_layers.ServiceParameters,
    "unknown": scapy_layers.UnknownExtension,
}


def rebuilt(packet: Packet) -> bytes:
    """Encode a dissected packet from its fields, not from the bytes that it remembers."""
    for layer in _layers(packet):
        layer.raw_packet_cache = None
        layer.raw_packet_cache_fields = None
    return bytes(packet)


def _layers(packet: Packet) -> list[Packet]:
    found = []
    while packet:
        found.append(packet)
        for value in packet.fields.values():
            if isinstance(value, list):
                packets = [member for member in value if isinstance(member, Packet)]
                found += [part for member in packets for part in _layers(member)]
        packet = packet.payload
    return found


def without_lengths(packet: Packet) -> Packet:
    """Forget every length and count, so that building has to find them again."""
    for layer in _layers(packet):
        for name in ("header_bytes", "length", "count", "detail_bytes", "body_bytes",
                     "bitmap_bytes", "partial_count", "cookie_bytes"):  # fmt: skip
            if name in layer.fields and layer.name != "forgotten transfer":
                del layer.fields[name]
    return packet


def hexed(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


@chunk_v1.FILE.each("headers")
def test_header_vectors(vector: dict[str, Any]) -> None:
    """All fields and extensions are what the vector says; building gives the vector's bytes."""
    data, fields = bytes.fromhex(vector["bytes"]), dict(vector["fields"])
    chunk = Chunk(data)
    assert not chunk.payload
    extensions: dict[str, Any] = {}
    for extension in chunk.extensions:
        name = next(n for n, layer in EXTENSION_LAYERS.items() if type(extension) is layer)
        extensions.setdefault(name, []).append(extension)
    seen = {name: hexed(chunk.fields[name]) for name in fields if name in chunk.fields}
    for name, found in extensions.items():
        if name == "lifetime_ms":
            seen[name] = found[0].lifetime_ms
        elif name.startswith("wants_"):
            seen[name] = True
        elif name == "sequence":
            sids = [sid.hex() for sid in found[0].sids]
            seen[name] = {"cursor": found[0].cursor, "sids": sids}
        elif name in ("digest", "signature"):
            seen[name] = {key: hexed(found[0].fields[key]) for key in fields[name]}
        else:
            seen[name] = [
                {key: hexed(entry.fields[key]) for key in fields[name][0]} for entry in found
            ]
    assert seen == fields
    assert rebuilt(chunk) == data
    assert rebuilt(without_lengths(chunk)) == data


@chunk_v1.FILE.each("tasks")
def test_task_vectors(vector: dict[str, Any]) -> None:
    """The fields are what the vector says; building gives the vector's bytes."""
    task = Task(bytes.fromhex(vector["bytes"]))
    assert {name: task.fields[name] for name in vector["fields"]} == vector["fields"]
    assert rebuilt(task).hex() == vector["bytes"]
    assert bytes(Task(**vector["fields"])).hex() == vector["bytes"]


@chunk_v1.FILE.each("verdicts")
def test_verdict_vectors(vector: dict[str, Any]) -> None:
    """The fields are what the vector says; building gives the vector's bytes."""
    verdict = Verdict(bytes.fromhex(vector["bytes"]))
    fields = dict(vector["fields"], detail=bytes.fromhex(vector["fields"]["detail"]))
    keep = fields.pop("keep")
    retyped = "payload_type" in fields
    updates, again = fields.pop("updates", False), fields.pop("again", False)
    if retyped:  # it stands where an EMIT has its count, or in the first byte of that
        fields["emit_count"] |= fields.pop("payload_type") << (24 if updates else 0)
    assert {name: verdict.fields[name] for name in fields} == fields
    assert (bool(verdict.flags.keep), bool(verdict.flags.retyped)) == (keep, retyped)
    assert (bool(verdict.flags.updates), bool(verdict.flags.again)) == (updates, again)
    flags = keep | retyped << 1 | updates << 2 | again << 3
    assert rebuilt(verdict).hex() == vector["bytes"]
    assert bytes(Verdict(flags=flags, **fields)).hex() == vector["bytes"]


@chunk_v1.FILE.each("reports")
def test_report_vectors(vector: dict[str, Any]) -> None:
    """The entries are what the vector says; building gives the vector's bytes."""
    data = bytes.fromhex(vector["bytes"])
    reports = Reports(data)
    fields = [
        {**entry.fields, "detail": entry.detail.decode()}
        for entry in reports.entries
        if entry.fields.pop("detail_bytes") is not None
    ]
    assert fields == vector["fields"]
    assert rebuilt(reports) == data
    entries = [
        scapy_layers.ReportEntry(**dict(entry, detail=entry["detail"].encode()))
        for entry in vector["fields"]
    ]
    assert bytes(Reports(entries=entries)) == data


@hop_v2.FILE.each("datagrams")
def test_hop_vectors(vector: dict[str, Any]) -> None:
    """Type and numbers are what the vector says; building gives the vector's bytes."""
    data, fields = bytes.fromhex(vector["bytes"]), dict(vector["fields"])
    packet = hop_datagram(data)
    assert type(packet) is scapy_hop.HOP_LAYERS[data[0]]
    parameters = fields.pop("parameters", {})
    for name, expected in {**fields, **parameters}.items():
        if name == "records":
            for record, wanted in zip(packet.records, expected, strict=True):
                assert (record.transfer, record.kind) == (wanted["transfer"], wanted["kind"])
                assert bytes(record.payload).hex() == wanted["data"]
        elif name == "frames":
            for frame, wanted in zip(packet.frames, expected, strict=True):
                _check_frame(frame, wanted)
        elif name == "data":
            assert bytes(packet.payload).hex() == expected
        elif name == "padding_bytes":
            assert len(packet.payload) == expected
        elif name == "reason":
            assert packet.reason.decode() == expected
        else:
            assert hexed(packet.fields[name]) == expected
    assert rebuilt(packet) == data
    if vector["type"] != "segment" or (fields["index"] == 0 and fields["body_bytes"] < 1000):
        assert rebuilt(without_lengths(packet)) == data


def _check_frame(frame: Packet, wanted: dict[str, Any]) -> None:
    assert str(frame.name).lower().replace("_", "") == wanted["frame"]
    for name, expected in wanted.items():
        if name == "frame":
            continue
        if name in ("busy", "more"):
            assert bool(getattr(frame.ack_flags, name)) == expected
        elif name == "partials":
            seen = [[part.transfer, part.base, part.bitmap.hex()] for part in frame.partials]
            assert seen == [[part["transfer"], part["base"], part["bitmap"]] for part in expected]
        elif name == "entries":
            seen = [list(entry.fields.values())[:2] for entry in frame.entries]
            assert seen == expected
        elif name == "value_bytes":
            assert frame.zeros == bytes(expected)
        elif name == "reason":
            assert frame.reason.decode() == expected
        else:
            assert hexed(frame.fields[name]) == expected


@chunk_v1.FILE.each("invalid")
def test_invalid_chunk_vectors_do_not_crash(vector: dict[str, Any]) -> None:
    """As a hop's body, bytes that a node refuses are shown as far as they go, and kept whole."""
    kind = {"task": BodyKind.TASK, "verdict": BodyKind.VERDICT}.get(vector["kind"], BodyKind.CHUNK)
    body = bytes.fromhex(vector["bytes"])
    datagram = bytes(HopData(kind=kind, body_bytes=len(body))) + body
    packet = hop_datagram(datagram)
    assert packet.show(dump=True)
    assert bytes(packet) == datagram


@hop_v2.FILE.each("invalid")
def test_invalid_hop_vectors_do_not_crash(vector: dict[str, Any]) -> None:
    """Datagrams that a node refuses are shown as far as they go, and kept whole."""
    data = bytes.fromhex(vector["bytes"])
    packet = hop_datagram(data)
    assert packet.show(dump=True) is not None
    assert bytes(packet)[: len(data)] == data


@hop_v2.FILE.each("sealed")
def test_sealed_datagrams_are_shown_as_such(vector: dict[str, Any]) -> None:
    """What stands outside the seal is shown, the rest is bytes."""
    for text in vector["datagrams"]:
        packet = hop_datagram(bytes.fromhex(text))
        assert type(packet.payload) is Raw
        if vector["type"] == "data":
            assert packet.check and packet.transfer == 2
        else:
            assert packet.counter == 1


def test_every_truncation_dissects() -> None:
    """A capture with a short snapshot length shows what is there; nothing raises."""
    for section in (hop_v2.FILE.load()["datagrams"],):
        for vector in section:
            data = bytes.fromhex(vector["bytes"])
            for length in range(0, len(data), 1 if len(data) < 300 else 37):
                hop_datagram(data[:length])


def test_a_chunk_is_crafted_from_scratch() -> None:
    """Names in any form, lengths filled in; the codec accepts what comes out."""
    packet = Chunk(
        chunk_id=5,
        source=SOURCE,
        destination=DESTINATION.hex,
        sid=SIDS[0].value,
        extensions=[Lifetime(lifetime_ms=9)],
    ) / Raw(b"payload")
    expected = make_header(payload_bytes=7, sid=SIDS[0], lifetime_ms=9)
    header = decode_header(bytes(packet))
    assert (header.source, header.destination, header.lifetime_ms) == (SOURCE, DESTINATION, 9)
    assert (header.sid, header.payload_bytes) == (expected.sid, 7)
    assert str(SOURCE) in str(packet.show(dump=True))


def test_wrong_values_can_be_crafted() -> None:
    """A given length is kept, whatever it is: tests need bad datagrams."""
    assert Chunk(bytes(Chunk(header_bytes=9, payload_bytes=77))).payload_bytes == 77
    assert bytes(Chunk(header_bytes=9))[2:4] == b"\x00\x09"
    assert HopData(bytes(HopData(body_bytes=3) / b"x")).body_bytes == 3


def test_a_report_chunk_shows_its_entries() -> None:
    """The payload of a report chunk is dissected too, and ends where the payload ends."""
    reports = bytes.fromhex(chunk_v1.FILE.load()["reports"][2]["bytes"])
    packet = Chunk(bytes(Chunk(payload_type="report") / Raw(reports)) + b"tail")
    assert len(packet[Reports].entries) == len(decode_reports(reports)) == 3
    assert packet[Padding].load == b"tail"


def test_emitted_chunks_are_all_shown() -> None:
    """Whole chunks one after the other, each by its own length."""
    two = bytes(Chunk(chunk_id=1) / b"one") + bytes(Chunk(chunk_id=2) / b"two!")
    verdict = Verdict(bytes(Verdict(code="emit", emit_count=2)) + two)
    chunks = verdict[scapy_layers.EmittedChunks].chunks
    assert [chunk.chunk_id for chunk in chunks] == [1, 2]
    assert [bytes(chunk.payload) for chunk in chunks] == [b"one", b"two!"]


def test_a_bundle_and_control_frames_are_crafted() -> None:
    """Counts and lengths are filled in; the codec reads what comes out."""
    record = scapy_hop.BundleRecord(transfer=4) / Chunk() / b"small"
    bundle = bytes(HopBundle(session=7, records=[record]))
    assert wire.BUNDLE_HEADER.unpack_from(bundle)[6] == 1
    assert wire.RECORD.unpack_from(bundle, wire.BUNDLE_HEADER_BYTES) == (4, 93, 1, 0, 0)
    control = bytes(
        HopControl(
            session=7, frames=[scapy_frames.Probe(burst=3), scapy_frames.Close(reason=b"bye")]
        )
    )
    assert list(wire.decode_control(control)) == [wire.ProbeFrame(3), wire.CloseFrame("bye")]


def test_a_bound_port_is_dissected() -> None:
    """After `bind_hop_port` scapy shows hop datagrams from and to this port in whole packets."""
    bind_hop_port(47_123)
    body = Chunk(source=GUID(b"s" * 20)) / b"x"
    for source, destination in ((47_123, 9), (9, 47_123)):
        udp = UDP(sport=source, dport=destination)
        frame = bytes(ETHER / IP() / udp / HopData(session=1) / body)
        assert Ether(frame)[Chunk].source == b"s" * 20
    assert not Ether(bytes(ETHER / IP() / UDP(sport=8, dport=9) / HopData() / body)).haslayer(Chunk)


def test_every_extension_has_a_layer() -> None:
    """A new extension type is not shown as unknown."""
    kinds = {layer().type for name, layer in EXTENSION_LAYERS.items() if name != "unknown"}
    assert kinds == set(ExtensionType)


@pytest.mark.parametrize("module", ["header", "messages", "hop.udp"])
def test_scapy_is_not_imported_by_others(module: str) -> None:
    """scapy takes half a second to import: no daemon and no other command pays for it."""
    code = f"import sys, packetcloud.chunk.{module}; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
