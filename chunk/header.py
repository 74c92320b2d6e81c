"""The chunk header: its fields, its extensions, encode and decode.

A chunk is header ‖ payload. The fixed part has 88 bytes in network order; extensions follow as
type, flags, length, value, in ascending order of type, so that one header has one encoding.
A custodian rewrites hop limit, NAs, SID, cursor and lifetime in place: none of them changes length.

Source: MobiArch'13 paper, section 3.3 and figure 3; docs/protocol/chunk.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.names import (
    GUID,
    GUID_BYTES,
    NA,
    NA_UNBOUND,
    PUBLIC_KEY_BYTES,
    SID,
    SID_SEQUENCE,
    SID_ZERO,
    ChunkId,
)

CHUNK_VERSION = 1
FIXED = struct.Struct(">BBHBBHQI20sI20sI20s")
"""version, hop limit, header bytes, delivery mode, payload type, reserved (zero), chunk id,
payload bytes, source GUID, source NA, destination GUID, destination NA, SID."""
FIXED_BYTES = FIXED.size
assert FIXED_BYTES == 88
MAX_HEADER_BYTES = 1024
"""So that a header always fits the first segment on any path of 1280 bytes or more."""
DEFAULT_MAX_PAYLOAD_BYTES = 1 << 20
DEFAULT_HOP_LIMIT = 32
MAX_SEQUENCE_COUNT = 16
"""16 SIDs are 322 bytes: a third of the largest header."""

HOP_LIMIT_OFFSET = 1
PAYLOAD_TYPE_OFFSET = 5
PAYLOAD_BYTES_OFFSET = 16
SOURCE_NA_OFFSET = 40
DESTINATION_NA_OFFSET = 64
SID_OFFSET = 68

_EXTENSION = struct.Struct(">BBH")
_CRITICAL = 0x80
"""Flag of an extension: who does not know the type must refuse the chunk. Other bits are zero."""


class DeliveryMode(IntEnum):
    """How to reach the destination; the values are MobilityFirst's."""

    UNICAST = 0
    MULTICAST = 1
    ANYCAST = 2
    MULTIHOMING = 4


class PayloadType(IntEnum):
    """What the payload is. Values from 128 on belong to applications."""

    DATA = 0
    REPORT = 1
    """Delivery reports; see `messages.DeliveryReport`. Never asks for a report itself."""
    FILE = 2
    """File transfer between two hosts; see docs/protocol/chunk.md, "Payload types"."""
    STREAM = 3
    """Streams between a host and a translator; see docs/protocol/stream.md."""
    SEALED = 16
    """Encrypted on the way by a service; what it was before is inside. No host reads it."""
    COMPRESSED = 17
    """Made smaller on the way by a service; what it was before is inside. No host reads it."""
    SEALED_REPORT = 18
    """A delivery report, encrypted on the way. Nothing else becomes one: see `may_become`."""


REPORT_TYPES = frozenset({PayloadType.REPORT, PayloadType.SEALED_REPORT})
"""What only becomes a report again. A report never has a type that other payloads have, too."""
WRAPPED_TYPES = frozenset({PayloadType.SEALED, PayloadType.COMPRESSED, PayloadType.SEALED_REPORT})
"""What a service made of a payload that another one restores."""


def may_become(was: int, becomes: int) -> bool:
    """Tell whether a service may give a payload another type.

    It may wrap a payload and unwrap it. A report stays one, and nothing else becomes one, by
    however many services: what the source says in a report, no service can say in its name.
    """
    if was == becomes:
        return True
    is_wrapping = becomes in WRAPPED_TYPES or was in WRAPPED_TYPES
    return is_wrapping and (was in REPORT_TYPES) == (becomes in REPORT_TYPES)


class ExtensionType(IntEnum):
    """The known extensions, in the order in which they must appear."""

    SERVICE_SEQUENCE = 1
    LIFETIME = 2
    REPORT_REQUEST = 3
    TRACE_REQUEST = 4
    PAYLOAD_DIGEST = 5
    SOURCE_SIGNATURE = 6
    SERVICE_PARAMETERS = 7


_CRITICAL_TYPES = frozenset({ExtensionType.SERVICE_SEQUENCE})
"""A node that skipped it would deliver a chunk that no service has seen."""


class DigestAlgorithm(IntEnum):
    """Hash of a payload digest; both give 32 bytes."""

    SHA256 = 1
    BLAKE2B_256 = 2


_DIGEST_ALGORITHMS = frozenset(int(algorithm) for algorithm in DigestAlgorithm)


_RESERVED_SIDS = frozenset({SID_ZERO.value, SID_SEQUENCE.value})


@dataclass(frozen=True, slots=True)
class ServiceSequence:
    """Ordered SIDs and a cursor: `sids[cursor]` is next; `cursor == len(sids)` means all ran."""

    sids: tuple[SID, ...]
    cursor: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.sids) <= MAX_SEQUENCE_COUNT:
            allowed = f"allowed 1..{MAX_SEQUENCE_COUNT}"
            raise ProtocolError("bad_sequence", f"{len(self.sids)} SIDs, {allowed}")
        if not 0 <= self.cursor <= len(self.sids):
            raise ProtocolError("bad_sequence", f"cursor {self.cursor} of {len(self.sids)}")
        if not _RESERVED_SIDS.isdisjoint([sid.value for sid in self.sids]):
            raise ProtocolError("bad_sequence", "a reserved SID inside the sequence")

    @property
    def current(self) -> SID | None:
        """The SID to visit next, or None when every service ran."""
        return self.sids[self.cursor] if self.cursor < len(self.sids) else None

    def to_bytes(self) -> bytes:
        names = b"".join(sid.value for sid in self.sids)
        return bytes([self.cursor, len(self.sids)]) + names

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        if len(value) < 2 or len(value) != 2 + GUID_BYTES * value[1]:
            raise ProtocolError("bad_sequence", "length does not match its count")
        starts = range(2, len(value), GUID_BYTES)
        return cls(tuple([SID.unchecked(value[i : i + GUID_BYTES]) for i in starts]), value[0])


@dataclass(frozen=True, slots=True)
class PayloadDigest:
    """Hash of the payload as the source sent it (32 bytes); services that update it clear it."""

    algorithm: DigestAlgorithm
    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            raise ProtocolError("bad_digest", f"{len(self.digest)} bytes, expected 32")

    def to_bytes(self) -> bytes:
        return bytes([self.algorithm]) + self.digest

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        if value[0] not in _DIGEST_ALGORITHMS:
            raise ProtocolError("bad_digest", f"algorithm {value[0]}")
        return cls(DigestAlgorithm(value[0]), value[1:])

    def matches(self, payload: bytes | memoryview) -> bool:
        """Tell whether it is the hash of `payload`."""
        if self.algorithm is DigestAlgorithm.SHA256:
            return hashlib.sha256(payload).digest() == self.digest
        return hashlib.blake2b(payload, digest_size=32).digest() == self.digest


@dataclass(frozen=True, slots=True)
class SourceSignature:
    """The source's public key (32 bytes) and its signature (64 bytes)."""

    public_key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.public_key) != 32 or len(self.signature) != 64:
            raise ProtocolError("bad_signature", "expected a 32-byte key and a 64-byte signature")

    def to_bytes(self) -> bytes:
        return self.public_key + self.signature

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        return cls(value[:PUBLIC_KEY_BYTES], value[PUBLIC_KEY_BYTES:])


@dataclass(frozen=True, slots=True)
class ServiceParameters:
    """Bytes that only the service named by `sid` understands."""

    sid: SID
    data: bytes

    def to_bytes(self) -> bytes:
        return self.sid.value + self.data

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        if len(value) < GUID_BYTES:
            raise ProtocolError("bad_extension", "service parameters without a SID")
        return cls(SID.unchecked(value[:GUID_BYTES]), value[GUID_BYTES:])


@dataclass(frozen=True, slots=True)
class UnknownExtension:
    """An extension of a newer version that is not critical: passed on unread."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """Everything a chunk says about itself besides its payload."""

    source: GUID
    destination: GUID
    chunk_id: ChunkId
    payload_bytes: int
    sid: SID = SID_ZERO
    source_na: NA = NA_UNBOUND
    destination_na: NA = NA_UNBOUND
    hop_limit: int = DEFAULT_HOP_LIMIT
    delivery_mode: DeliveryMode = DeliveryMode.UNICAST
    payload_type: int = PayloadType.DATA
    sequence: ServiceSequence | None = None
    lifetime_ms: int | None = None
    """What is left of the chunk's life when it was sent, in ms; every custodian takes off what it
    used. Relative, because clocks of hosts do not agree."""
    wants_report: bool = False
    wants_trace: bool = False
    digest: PayloadDigest | None = None
    signature: SourceSignature | None = None
    parameters: tuple[ServiceParameters, ...] = ()
    unknown: tuple[UnknownExtension, ...] = field(default=())

    @property
    def next_sid(self) -> SID | None:
        """The service that the source asked for and that has not run yet, or None."""
        if self.sid.is_zero:
            return None
        if self.sid == SID_SEQUENCE:
            return self.sequence.current if self.sequence else None
        return self.sid

    def after_service(self, sid: SID) -> Self:
        """Return the header as it is once `sid` has run: SID cleared or cursor moved on."""
        if self.next_sid != sid:
            return self
        if self.sequence is None or self.sid != SID_SEQUENCE:
            return replace(self, sid=SID_ZERO)
        return replace(self, sequence=ServiceSequence(self.sequence.sids, self.sequence.cursor + 1))

    def to_bytes(self) -> bytes:
        """Encode the header.

        Raises:
            LocalMisuseError: a value does not fit its field, or the header is over 1024 bytes.
        """
        if (self.sid == SID_SEQUENCE) != (self.sequence is not None):
            raise LocalMisuseError("a service sequence and SID_SEQUENCE go together")
        if self.delivery_mode not in _DELIVERY_MODES:
            raise LocalMisuseError(f"delivery mode {self.delivery_mode} does not exist")
        extensions = self._extension_bytes()
        header_bytes = FIXED_BYTES + len(extensions)
        if header_bytes > MAX_HEADER_BYTES:
            raise LocalMisuseError(f"header of {header_bytes} bytes, at most {MAX_HEADER_BYTES}")
        try:
            fixed = FIXED.pack(
                CHUNK_VERSION,
                self.hop_limit,
                header_bytes,
                self.delivery_mode,
                self.payload_type,
                0,
                self.chunk_id.value,
                self.payload_bytes,
                self.source.value,
                self.source_na.value,
                self.destination.value,
                self.destination_na.value,
                self.sid.value,
            )
        except struct.error as error:
            raise LocalMisuseError(f"a chunk header field does not fit: {error}") from None
        return fixed + extensions

    def _extension_bytes(self) -> bytes:
        parts: list[bytes] = []

        def add(kind: int, value: bytes) -> None:
            if len(value) > MAX_HEADER_BYTES:
                raise LocalMisuseError(f"an extension of {len(value)} bytes")
            flags = _CRITICAL if kind in _CRITICAL_TYPES else 0
            parts.append(_EXTENSION.pack(kind, flags, len(value)) + value)

        if self.sequence is not None:
            add(ExtensionType.SERVICE_SEQUENCE, self.sequence.to_bytes())
        if self.lifetime_ms is not None:
            if not 0 <= self.lifetime_ms <= 0xFFFF_FFFF:
                raise LocalMisuseError(f"lifetime_ms {self.lifetime_ms} is not a 32-bit number")
            add(ExtensionType.LIFETIME, self.lifetime_ms.to_bytes(4, "big"))
        if self.wants_report:
            add(ExtensionType.REPORT_REQUEST, b"")
        if self.wants_trace:
            add(ExtensionType.TRACE_REQUEST, b"")
        if self.digest is not None:
            add(ExtensionType.PAYLOAD_DIGEST, self.digest.to_bytes())
        if self.signature is not None:
            add(ExtensionType.SOURCE_SIGNATURE, self.signature.to_bytes())
        for parameter in self.parameters:
            add(ExtensionType.SERVICE_PARAMETERS, parameter.to_bytes())
        last = _LARGEST_KNOWN + 1
        for extension in self.unknown:
            if not last <= extension.type <= 0xFF:
                raise LocalMisuseError(f"unknown extension {extension.type} out of order")
            last = extension.type
            add(extension.type, extension.data)
        return b"".join(parts)


def decode_header(data: bytes | bytearray | memoryview) -> ChunkHeader:
    """Decode the chunk header at the start of `data`; what follows the header is not looked at.

    Raises:
        ProtocolError: and nothing else, whatever the bytes are.
    """
    if len(data) < FIXED_BYTES:
        raise ProtocolError("short_header", f"{len(data)} bytes, at least {FIXED_BYTES}")
    (
        version,
        hop_limit,
        header_bytes,
        delivery_mode,
        payload_type,
        reserved,
        chunk_id,
        payload_bytes,
        source,
        source_na,
        destination,
        destination_na,
        sid,
    ) = FIXED.unpack_from(data)
    if version != CHUNK_VERSION:
        raise ProtocolError("bad_version", f"chunk version {version}, known: {CHUNK_VERSION}")
    if not FIXED_BYTES <= header_bytes <= min(MAX_HEADER_BYTES, len(data)):
        raise ProtocolError("bad_header_length", f"{header_bytes} of {len(data)} bytes")
    if reserved:
        raise ProtocolError("reserved_bits", f"{reserved:#06x}")
    mode = _DELIVERY_MODES.get(delivery_mode)
    if mode is None:
        raise ProtocolError("bad_delivery_mode", str(delivery_mode))
    fields: dict[str, object] = {}
    if header_bytes > FIXED_BYTES:
        fields = _decode_extensions(bytes(data[FIXED_BYTES:header_bytes]))
    if (sid == SID_SEQUENCE.value) != ("sequence" in fields):
        raise ProtocolError("bad_sequence", "a service sequence and the reserved SID go together")
    return ChunkHeader(
        GUID.unchecked(source),
        GUID.unchecked(destination),
        ChunkId(chunk_id),
        payload_bytes,
        SID.unchecked(sid),
        NA(source_na),
        NA(destination_na),
        hop_limit,
        mode,
        payload_type,
        **fields,  # type: ignore[arg-type]  # each value was made for its field just below
    )


def decode_chunk(data: bytes | bytearray | memoryview) -> tuple[ChunkHeader, memoryview]:
    """Decode a whole chunk; the payload is a view into `data`, not a copy.

    Raises:
        ProtocolError: the header is bad, or the payload has not the length that it states.
    """
    header = decode_header(data)
    payload = memoryview(data)[int.from_bytes(data[2:4], "big") :]
    if len(payload) != header.payload_bytes:
        stated = f"the header says {header.payload_bytes}"
        raise ProtocolError("bad_payload_length", f"{len(payload)} bytes, {stated}")
    return header, payload


def extension_value_offset(data: bytes | bytearray | memoryview, kind: ExtensionType) -> int | None:
    """Return where the value of extension `kind` starts in an encoded header, None if absent.

    The header must have been decoded without error before.
    """
    header_bytes = int.from_bytes(data[2:4], "big")
    offset = FIXED_BYTES
    while offset < header_bytes:
        found, _, length = _EXTENSION.unpack_from(data, offset)
        offset += _EXTENSION.size
        if found == kind:
            return offset
        offset += length
    return None


_DELIVERY_MODES = {int(mode): mode for mode in DeliveryMode}
_LARGEST_KNOWN = max(ExtensionType)


def _decode_extensions(data: bytes) -> dict[str, object]:
    fields: dict[str, object] = {}
    parameters: list[ServiceParameters] = []
    unknown: list[UnknownExtension] = []
    offset, last = 0, 0
    while offset < len(data):
        if len(data) - offset < _EXTENSION.size:
            raise ProtocolError("bad_extension", "cut off in its head")
        kind, flags, length = _EXTENSION.unpack_from(data, offset)
        offset += _EXTENSION.size
        value = data[offset : offset + length]
        if len(value) != length:
            raise ProtocolError("bad_extension", f"type {kind} is cut off")
        offset += length
        # `last` starts at 0, so that type 0, which does not exist, is out of order too.
        if kind < last or (kind == last and kind < ExtensionType.SERVICE_PARAMETERS):
            raise ProtocolError("bad_extension", f"type {kind} out of order")
        last = kind
        if kind > _LARGEST_KNOWN and flags & _CRITICAL:
            raise ProtocolError("unknown_critical_extension", f"type {kind}")
        if flags != (_CRITICAL if kind in _CRITICAL_TYPES else 0):
            raise ProtocolError("bad_extension", f"type {kind}, flags {flags:#04x}")
        if kind > _LARGEST_KNOWN:
            unknown.append(UnknownExtension(kind, value))
        elif kind == ExtensionType.SERVICE_PARAMETERS:
            parameters.append(ServiceParameters.from_bytes(value))
        else:
            field_name, expected, decode = _SINGLE_EXTENSIONS[kind]
            if expected is not None and length != expected:
                raise ProtocolError("bad_extension", f"type {kind} has {length} bytes")
            fields[field_name] = decode(value)
    if parameters:
        fields["parameters"] = tuple(parameters)
    if unknown:
        fields["unknown"] = tuple(unknown)
    return fields


_SINGLE_EXTENSIONS: dict[int, tuple[str, int | None, Callable[[bytes], object]]] = {
    ExtensionType.SERVICE_SEQUENCE: ("sequence", None, ServiceSequence.from_bytes),
    ExtensionType.LIFETIME: ("lifetime_ms", 4, lambda value: int.from_bytes(value, "big")),
    ExtensionType.REPORT_REQUEST: ("wants_report", 0, lambda _: True),
    ExtensionType.TRACE_REQUEST: ("wants_trace", 0, lambda _: True),
    ExtensionType.PAYLOAD_DIGEST: ("digest", 33, PayloadDigest.from_bytes),
    ExtensionType.SOURCE_SIGNATURE: ("signature", 96, SourceSignature.from_bytes),
}
"""The extensions that appear at most once: field of `ChunkHeader`, length if fixed, decoder."""
