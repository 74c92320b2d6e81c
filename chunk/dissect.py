"""What one hop datagram says: for people and programs that look into captures, not for nodes.

`dissect` never raises: bytes that a node would refuse come back with the reason, as far as they
could be read. Fields are JSON values: names and bytes in hex, enums by their word.

Source: docs/protocol/hop.md, docs/protocol/chunk.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import ChunkHeader, PayloadType, decode_chunk, decode_header
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.messages import (
    TASK_BYTES,
    BodyKind,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
)
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import reason_word

Fields = dict[str, Any]

CUT_OFF = "cut off: snapshot length of the capture, or an IP fragment"
SHOWN_BYTES = 64
"""How much of bytes that nobody understands is shown."""
_HEADER_BYTES_OFFSET = 2
_SESSION_OFFSET = 4


@dataclass(frozen=True, slots=True)
class Body:
    """What a datagram holds of one body: a segment of it, or all of a small one."""

    kind: str
    transfer: int
    body_bytes: int
    segment: int
    """Its index; 0 is the one with the header."""
    is_whole: bool
    fields: Fields = field(default_factory=dict)
    header: ChunkHeader | None = None
    """The chunk's, if this is its first segment and it could be read."""
    error: str | None = None
    content: bytes = b""
    """What the capture has of this segment; empty if it is sealed."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """One hop datagram. `type` is "unknown" when it is none."""

    type: str
    datagram_bytes: int
    session: int | None = None
    """Chosen by the node that receives this datagram."""
    fields: Fields = field(default_factory=dict)
    bodies: tuple[Body, ...] = ()
    keys: dict[int, GUID] = field(default_factory=dict)
    """Which node chose which session id, as a handshake tells."""
    error: str | None = None


def looks_like_hop(data: bytes) -> bool:
    """Tell whether a UDP payload begins like a hop datagram."""
    return len(data) >= wire.PREFIX.size and data[0] in _TYPES


def split_train(data: bytes) -> list[bytes]:
    """Split a payload that the kernel captured in one piece into its datagrams.

    With segmentation offload a capture holds whole trains: datagrams of one size, the last one
    perhaps shorter. The size is not in the capture. It is found by the session id, 64 unpredictable
    bits that stand at the same place of each datagram.
    """
    if len(data) < 2 * wire.PREFIX.size or data[0] not in _SESSION_TYPES:
        return [data]
    session = data[_SESSION_OFFSET : wire.PREFIX.size]
    at = data.find(session, wire.PREFIX.size + _SESSION_OFFSET)
    while at >= 0:
        size = at - _SESSION_OFFSET
        starts = range(0, len(data), size)
        # The capture may have cut the last one off anywhere.
        if all(
            data[start] in _SESSION_TYPES
            and session.startswith(data[start + _SESSION_OFFSET : start + wire.PREFIX.size])
            for start in starts
        ):
            return [data[start : start + size] for start in starts]
        at = data.find(session, at + 1)
    return [data]


def dissect(data: bytes, cut_bytes: int = 0) -> Datagram:
    """Describe one hop datagram, of whose end the capture has cut off `cut_bytes`."""
    size = len(data) + cut_bytes
    kind = _TYPES.get(data[0]) if data else None
    if kind is None:
        what = (
            f"first byte {data[0]:#04x} is no type of version {wire.HOP_VERSION}"
            if data
            else "no bytes"
        )
        return Datagram("unknown", size, fields=_unread(data), error=what)
    word = kind.name.lower()
    if len(data) < wire.PREFIX.size:
        error = CUT_OFF if cut_bytes else "short_datagram"
        return Datagram(word, size, fields=_unread(data), error=error)
    session = int(wire.PREFIX.unpack_from(data)[3])
    try:
        match kind:
            case wire.DatagramType.DATA:
                return _data(data, session, cut_bytes)
            case wire.DatagramType.BUNDLE:
                return _bundle(data, session, cut_bytes)
            case wire.DatagramType.CONTROL:
                return Datagram(word, size, session, _control(data))
            case _:
                return _handshake(kind, data, session)
    except ProtocolError as error:
        text = _error_text(error, cut_bytes)
        return Datagram(word, size, session, _unread(data), error=text)


def header_fields(header: ChunkHeader) -> Fields:
    """Return a chunk header as JSON values; extensions that are absent are left out."""
    found: Fields = {
        "chunk_id": str(header.chunk_id),
        "source": header.source.hex,
        "source_na": header.source_na.value,
        "destination": header.destination.hex,
        "destination_na": header.destination_na.value,
        "sid": header.sid.hex,
        "hop_limit": header.hop_limit,
        "delivery_mode": header.delivery_mode.name.lower(),
        "payload_type": _payload_type(header.payload_type),
        "payload_bytes": header.payload_bytes,
    }
    if header.sequence is not None:
        sids = [sid.hex for sid in header.sequence.sids]
        found["sequence"] = {"cursor": header.sequence.cursor, "sids": sids}
    if header.lifetime_ms is not None:
        found["lifetime_ms"] = header.lifetime_ms
    if header.wants_report:
        found["wants_report"] = True
    if header.wants_trace:
        found["wants_trace"] = True
    if header.digest is not None:
        algorithm = header.digest.algorithm.name.lower()
        found["digest"] = {"algorithm": algorithm, "digest": header.digest.digest.hex()}
    if header.signature is not None:
        found["signature"] = {
            "public_key": header.signature.public_key.hex(),
            "signature": header.signature.signature.hex(),
        }
    if header.parameters:
        found["parameters"] = [
            {"sid": entry.sid.hex, "data": entry.data.hex()} for entry in header.parameters
        ]
    if header.unknown:
        found["unknown"] = [
            {"type": entry.type, "data": entry.data.hex()} for entry in header.unknown
        ]
    return found


# --- data -----------------------------------------------------------------------------------------


def _data(data: bytes, session: int, cut_bytes: int) -> Datagram:
    size = len(data) + cut_bytes
    if len(data) < wire.DATA_HEADER_BYTES:
        raise ProtocolError("short_segment", f"{len(data)} bytes")
    _, second, flow, _, transfer, body_bytes, index, burst, check = wire.DATA_HEADER.unpack_from(
        data
    )
    kind, epoch = second & 15, second >> 4
    # An open session has no checks; a sealed one has this one by chance once in 2^32.
    is_sealed = check != 0
    if epoch and not is_sealed:
        raise ProtocolError("reserved_bits")
    content = data[wire.DATA_HEADER_BYTES :]
    here_bytes = size - wire.DATA_HEADER_BYTES
    if not 1 <= here_bytes <= body_bytes <= wire.MAX_WIRE_BODY_BYTES:
        raise ProtocolError("bad_segment", f"{here_bytes} bytes of a body of {body_bytes}")
    whole = index == 0 and here_bytes == body_bytes and not cut_bytes
    described: Fields = {"burst": burst, "flow": flow, "sealed": is_sealed}
    if is_sealed:
        body = Body(_kind_word(kind), transfer, body_bytes, index, whole, {"sealed": True})
        return Datagram("data", size, session, described | {"epoch": epoch}, (body,))
    body = _body(kind, transfer, body_bytes, index, content, whole=whole, cut_bytes=cut_bytes)
    return Datagram("data", size, session, described, (body,))


def _bundle(data: bytes, session: int, cut_bytes: int) -> Datagram:
    size = len(data) + cut_bytes
    if len(data) < wire.BUNDLE_HEADER_BYTES:
        raise ProtocolError("short_bundle", f"{len(data)} bytes")
    _, second, reserved, _, counter, burst, count, reserved_too = wire.BUNDLE_HEADER.unpack_from(
        data
    )
    described: Fields = {"counter": counter, "burst": burst, "records_count": count}
    if second & 15 == wire.SEALED and not reserved and not reserved_too:
        return Datagram("bundle", size, session, described | _sealed(second))
    if second or reserved or reserved_too:
        raise ProtocolError("reserved_bits")
    bodies: list[Body] = []
    error = None
    at = wire.BUNDLE_HEADER_BYTES
    for number in range(count):
        if len(data) - at < wire.RECORD_BYTES:
            error = CUT_OFF if cut_bytes else f"bad_bundle: record {number + 1} is cut off"
            break
        transfer, body_bytes, kind, form, _flow = wire.RECORD.unpack_from(data, at)
        at += wire.RECORD_BYTES
        content = data[at : at + body_bytes]
        at += body_bytes
        whole = len(content) == body_bytes
        is_reference = form == wire.FORM_LENT and body_bytes == wire.REFERENCE.size
        if (form and not is_reference) or not body_bytes or (not whole and not cut_bytes):
            error = f"bad_bundle: record {number + 1}, length or form"
            break
        if is_reference and whole:
            start, lent_bytes = wire.REFERENCE.unpack(content)
            lent = {"lent_from": start}
            bodies.append(Body(_kind_word(kind), transfer, lent_bytes, 0, False, lent))
            continue
        missing = 0 if whole else cut_bytes
        body = _body(kind, transfer, body_bytes, 0, content, whole=whole, cut_bytes=missing)
        bodies.append(body)
    else:
        if any(data[at:]):
            error = f"bad_bundle: {len(data) - at} bytes behind the last record are not zero"
    described["sealed"] = False
    return Datagram("bundle", size, session, described, tuple(bodies), error=error)


def _body(
    kind: int,
    transfer: int,
    body_bytes: int,
    index: int,
    content: bytes,
    *,
    whole: bool,
    cut_bytes: int,
) -> Body:
    described: Fields = {}
    header: ChunkHeader | None = None
    error = None
    if index == 0:
        try:
            header = _read_body(kind, content, whole, described)
        except ProtocolError as refused:
            error = _error_text(refused, cut_bytes)
            described.update(_unread(content))
    word = _kind_word(kind)
    return Body(word, transfer, body_bytes, index, whole, described, header, error, content)


def _read_body(kind: int, content: bytes, whole: bool, described: Fields) -> ChunkHeader | None:
    """Fill in what a body says at its beginning; return the chunk header in it."""
    match kind:
        case BodyKind.CHUNK:
            return _read_chunk(content, whole, described)
        case BodyKind.TASK:
            task = TaskHeader.from_bytes(content)
            described["task"] = {"task_id": task.task_id, "deadline_ms": task.deadline_ms}
            return _read_chunk(content[TASK_BYTES:], whole, described)
        case BodyKind.VERDICT:
            _read_verdict(content, whole, described)
            return None
        case _:
            raise ProtocolError("bad_segment", f"body kind {kind}")


def _read_chunk(content: bytes, whole: bool, described: Fields) -> ChunkHeader:
    header = decode_header(content)
    described["chunk"] = header_fields(header)
    if whole:
        _, payload = decode_chunk(content)
        if header.payload_type == PayloadType.REPORT:
            described["reports"] = [
                {
                    "chunk_id": str(report.chunk_id),
                    "outcome": report.outcome.name.lower(),
                    "reason": reason_word(report.reason) if report.reason else None,
                    "detail": report.detail,
                    "second_hand": report.is_second_hand,
                }
                for report in decode_reports(payload)
            ]
    return header


def _read_verdict(content: bytes, whole: bool, described: Fields) -> None:
    verdict = VerdictHeader.from_bytes(content)
    found: Fields = {
        "task_id": verdict.task_id,
        "verdict": verdict.code.name.lower(),
        "processing_ns": verdict.processing_ns,
    }
    if verdict.code is VerdictCode.REDIRECT:
        guid, na = verdict.redirect_target
        found |= {"destination": guid.hex, "destination_na": na.value}
    elif verdict.detail:
        found["detail"] = verdict.detail.decode("utf-8", "backslashreplace")
    if verdict.code is VerdictCode.EMIT:
        found |= {"emit_count": verdict.emit_count, "keep": verdict.keep}
    if verdict.payload_type is not None:
        found["payload_type"] = _payload_type(verdict.payload_type)
    if verdict.updates or verdict.again:
        found |= {"updates": verdict.updates, "again": verdict.again}
    described["verdict"] = found
    if verdict.code is VerdictCode.EMIT and whole:
        rest = content[verdict.encoded_bytes :]
        described["emitted"] = []
        for _ in range(verdict.emit_count):
            header = decode_header(rest)
            end = int.from_bytes(rest[_HEADER_BYTES_OFFSET:4], "big") + header.payload_bytes
            decode_chunk(rest[:end])
            described["emitted"].append(header_fields(header))
            rest = rest[end:]


# --- control and handshake ------------------------------------------------------------------------


def _control(data: bytes) -> Fields:
    """Return the frames of an open CONTROL datagram; of a sealed one what is outside its seal."""
    if len(data) < wire.CONTROL_HEADER_BYTES:
        raise ProtocolError("short_control", f"{len(data)} bytes")
    _, second, reserved, _, counter = wire.CONTROL_HEADER.unpack_from(data)
    if second & 15 == wire.SEALED and not reserved:
        return {"counter": counter} | _sealed(second)
    frames = [_frame_fields(frame) for frame in wire.decode_control(data)]
    return {"counter": counter, "sealed": False, "frames": frames}


def _sealed(second: int) -> Fields:
    return {"sealed": True, "epoch": second >> 4}


def _frame_fields(frame: wire.Frame) -> Fields:
    word = type(frame).__name__.removesuffix("Frame").lower()
    match frame:
        case wire.AckFrame():
            found = {entry.name: getattr(frame, entry.name) for entry in fields(frame)}
            found["done_bitmap"] = frame.done_bitmap.hex()
            found["partials"] = [
                {"transfer": part.transfer, "base": part.base, "bitmap": part.bitmap.hex()}
                for part in frame.partials
            ]
        case wire.RefusedFrame():
            found = {
                "transfers": [
                    {"transfer": transfer, "reason": reason_word(reason)}
                    for transfer, reason in frame.entries
                ]
            }
        case wire.WholeFrame():
            ranges = [{"transfer": first, "count": count} for first, count in frame.entries]
            found = {"ranges": ranges}
        case wire.BusyFrame():
            found = {"flows": [{"flow": flow} for flow in frame.flows]}
        case wire.ForgetFrame():
            found = {
                "transfers": [
                    {"transfer": transfer, "body_bytes": size} for transfer, size in frame.entries
                ]
            }
        case _:
            found = {entry.name: _plain(getattr(frame, entry.name)) for entry in fields(frame)}
    return {"frame": word} | found


def _handshake(kind: wire.DatagramType, data: bytes, session: int) -> Datagram:
    described: Fields = {}
    keys: dict[int, GUID] = {}
    message = _HANDSHAKE[kind].from_bytes(data)
    match message:
        case wire.Hello():
            keys[message.session] = guid = GUID.from_public_key(message.public_key)
            described = _side_fields(guid, message.session, message.parameters)
            described["stamp"] = str(message.stamp)
            if any(message.cookie):
                described["cookie"] = message.cookie.hex()
            # The id in a HELLO is the one that its sender chose for itself.
            return Datagram("hello", len(data), None, described, keys=keys)
        case wire.Retry():
            described = {
                "guid": message.guid.hex,
                "cookie": message.cookie.hex(),
                "stamp": str(message.stamp),
            }
        case wire.Welcome():
            keys[message.own_session] = guid = GUID.from_public_key(message.public_key)
            described = _side_fields(guid, message.own_session, message.parameters)
            described["suite"] = wire.Suite(message.suite).name.lower()
    return Datagram(kind.name.lower(), len(data), session, described, keys=keys)


def _side_fields(guid: GUID, session: int, parameters: wire.Parameters) -> Fields:
    """What one side of a handshake says of itself."""
    found: Fields = {"guid": guid.hex, "own_session": f"{session:016x}"}
    found |= {entry.name: getattr(parameters, entry.name) for entry in fields(parameters)}
    offered = " ".join(suite.name.lower() for suite in wire.Suite if parameters.suites & suite.bit)
    return found | {"role": Role(parameters.role).name.lower(), "suites": offered}


# --- words ----------------------------------------------------------------------------------------

_TYPES = {wire.type_byte(kind): kind for kind in wire.DatagramType}
_SESSION_TYPES = frozenset((wire.DATA_BYTE, wire.BUNDLE_BYTE, wire.CONTROL_BYTE))
_HANDSHAKE: dict[
    wire.DatagramType, type[wire.Hello | wire.Retry | wire.Welcome | wire.Confirm | wire.Reject]
] = {
    wire.DatagramType.HELLO: wire.Hello,
    wire.DatagramType.RETRY: wire.Retry,
    wire.DatagramType.WELCOME: wire.Welcome,
    wire.DatagramType.CONFIRM: wire.Confirm,
    wire.DatagramType.REJECT: wire.Reject,
}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _kind_word(kind: int) -> str:
    return BodyKind(kind).name.lower() if kind in list(BodyKind) else f"kind_{kind}"


def _payload_type(value: int) -> str:
    return PayloadType(value).name.lower() if value in list(PayloadType) else f"type_{value}"


def _error_text(error: ProtocolError, cut_bytes: int) -> str:
    return f"{error} ({CUT_OFF})" if cut_bytes else str(error)


def _unread(data: bytes) -> Fields:
    return {"bytes": data[:SHOWN_BYTES].hex()}
