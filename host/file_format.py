"""The messages of a file transfer: the payloads of chunks with payload type FILE.

OFFER, DATA and FINISH go from sender to receiver, through the services that the sender asked for;
ANSWER goes back. Every message begins with the same 24 bytes. Network byte order.
Source: docs/protocol/file-transfer.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError

MAGIC = b"PCF1"
TRANSFER_ID_BYTES = 16
FILE_KEY_BYTES = 16
DIGEST_BYTES = 32
MAX_NAME_BYTES = 1024
"""A name longer than any file system takes; the receiver shortens it to its own."""
MAX_DETAIL_BYTES = 512
MAX_RANGES_COUNT = 4096
"""Missing ranges in one answer: 64 KiB. When more are missing, the rest is asked for later."""
MAX_FILE_BYTES = (1 << 63) - 1
"""What a file offset can hold on the systems we run on."""

_HEAD = struct.Struct(">4sBBH16s")
_OFFER = struct.Struct(">I16sQH")
_DATA = struct.Struct(">Q")
_ANSWER = struct.Struct(">IBBHHQ32s")
_RANGE = struct.Struct(">QQ")
_FINISH = struct.Struct(">IQ32s")
DATA_HEADER_BYTES = _HEAD.size + _DATA.size
_RESUME = 1


class MessageKind(IntEnum):
    """What a message is; the byte after the magic."""

    OFFER = 1
    DATA = 2
    ANSWER = 3
    FINISH = 4


class AnswerState(IntEnum):
    """What the receiver says of a transfer."""

    WANTED = 1
    """Send the missing ranges (none: send FINISH)."""
    COMPLETE = 2
    """The file is in its place, with this digest."""
    FAILED = 3
    """The receiver gave it up; the detail says why."""


@dataclass(frozen=True, slots=True)
class Offer:
    """May I send this file? `question` is echoed by the answer."""

    transfer_id: bytes
    question: int
    file_key: bytes
    """Names the content (see `file_key`): a resumed transfer must have the same."""
    size_bytes: int
    name: str
    resume: bool = False

    def to_bytes(self) -> bytes:
        name = self.name.encode("utf-8", "surrogateescape")
        if len(name) > MAX_NAME_BYTES:
            raise LocalMisuseError(f"a file name of {len(name)} bytes, at most {MAX_NAME_BYTES}")
        flags = _RESUME if self.resume else 0
        head = _HEAD.pack(MAGIC, MessageKind.OFFER, flags, 0, self.transfer_id)
        return head + _OFFER.pack(self.question, self.file_key, self.size_bytes, len(name)) + name


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the file from `offset` on; they follow the header in the payload."""

    transfer_id: bytes
    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Finish:
    """All was sent; this is the SHA-256 of the whole."""

    transfer_id: bytes
    question: int
    size_bytes: int
    digest: bytes

    def to_bytes(self) -> bytes:
        head = _HEAD.pack(MAGIC, MessageKind.FINISH, 0, 0, self.transfer_id)
        return head + _FINISH.pack(self.question, self.size_bytes, self.digest)


@dataclass(frozen=True, slots=True)
class Answer:
    """The receiver's word on an OFFER or FINISH (`question`), or on its own (0)."""

    transfer_id: bytes
    question: int
    state: AnswerState
    have_bytes: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    text: str = ""
    """COMPLETE: the file's name at the receiver. FAILED: why."""
    missing: tuple[tuple[int, int], ...] = ()

    def to_bytes(self) -> bytes:
        text = self.text.encode("utf-8", "surrogateescape")[:MAX_NAME_BYTES]
        parts = [
            _HEAD.pack(MAGIC, MessageKind.ANSWER, 0, 0, self.transfer_id),
            _ANSWER.pack(
                self.question,
                self.state,
                0,
                len(text),
                len(self.missing),
                self.have_bytes,
                self.digest,
            ),
            text,
        ]
        parts.extend(_RANGE.pack(start, end) for start, end in self.missing)
        return b"".join(parts)


Message = Offer | Data | Finish | Answer


def data_header(transfer_id: bytes, offset: int) -> bytes:
    """Return the 32 bytes that stand before the file's bytes in a DATA payload."""
    return _HEAD.pack(MAGIC, MessageKind.DATA, 0, 0, transfer_id) + _DATA.pack(offset)


def decode_message(payload: memoryview) -> Message:
    """Decode the payload of a FILE chunk; `Data.data` points into it.

    Raises:
        ProtocolError: and nothing else, whatever the bytes are.
    """
    if len(payload) < _HEAD.size:
        raise ProtocolError("bad_file_message", f"{len(payload)} bytes")
    magic, kind, flags, reserved, transfer_id = _HEAD.unpack_from(payload)
    if magic != MAGIC:
        raise ProtocolError("not_a_file_message", "other first bytes")
    if reserved or flags & ~(_RESUME if kind == MessageKind.OFFER else 0):
        raise ProtocolError("reserved_bits", f"{flags:#04x} {reserved:#06x}")
    rest = payload[_HEAD.size :]
    try:
        match kind:
            case MessageKind.OFFER:
                return _decode_offer(transfer_id, flags, rest)
            case MessageKind.DATA:
                return _decode_data(transfer_id, rest)
            case MessageKind.ANSWER:
                return _decode_answer(transfer_id, rest)
            case MessageKind.FINISH:
                return _decode_finish(transfer_id, rest)
    except struct.error:
        raise ProtocolError("bad_file_message", f"kind {kind} is cut off") from None
    raise ProtocolError("bad_file_message", f"kind {kind}")


def _decode_offer(transfer_id: bytes, flags: int, rest: memoryview) -> Offer:
    question, file_key, size_bytes, name_bytes = _OFFER.unpack_from(rest)
    name = bytes(rest[_OFFER.size :])
    if len(name) != name_bytes or name_bytes > MAX_NAME_BYTES:
        raise ProtocolError("bad_file_message", f"a name of {name_bytes} bytes")
    if size_bytes > MAX_FILE_BYTES:
        raise ProtocolError("bad_file_message", f"a file of {size_bytes} bytes")
    text = name.decode("utf-8", "surrogateescape")
    return Offer(transfer_id, question, file_key, size_bytes, text, bool(flags & _RESUME))


def _decode_data(transfer_id: bytes, rest: memoryview) -> Data:
    (offset,) = _DATA.unpack_from(rest)
    data = rest[_DATA.size :]
    if not data or offset + len(data) > MAX_FILE_BYTES:
        raise ProtocolError("bad_file_message", f"{len(data)} bytes of data at {offset}")
    return Data(transfer_id, offset, data)


def _decode_finish(transfer_id: bytes, rest: memoryview) -> Finish:
    question, size_bytes, digest = _FINISH.unpack_from(rest)
    if len(rest) != _FINISH.size:
        raise ProtocolError("bad_file_message", "trailing bytes")
    return Finish(transfer_id, question, size_bytes, digest)


def _decode_answer(transfer_id: bytes, rest: memoryview) -> Answer:
    question, state, reserved, text_bytes, count, have, digest = _ANSWER.unpack_from(rest)
    ranges_at = _ANSWER.size + text_bytes
    expected = ranges_at + count * _RANGE.size
    if reserved or state not in (1, 2, 3) or len(rest) != expected or count > MAX_RANGES_COUNT:
        raise ProtocolError("bad_file_message", f"answer {state}, {len(rest)} of {expected} bytes")
    text = bytes(rest[_ANSWER.size : ranges_at]).decode("utf-8", "surrogateescape")
    missing = []
    for index in range(count):
        start, end = _RANGE.unpack_from(rest, ranges_at + index * _RANGE.size)
        if not start < end <= MAX_FILE_BYTES:
            raise ProtocolError("bad_file_message", f"range {start}-{end}")
        missing.append((start, end))
    return Answer(transfer_id, question, AnswerState(state), have, digest, text, tuple(missing))
