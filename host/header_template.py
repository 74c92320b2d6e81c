"""Chunk headers by the thousand: encoded once per kind of send, then three fields are filled in."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.flow_labels import FlowLabels
from packetcloud.chunk.header import (
    PAYLOAD_BYTES_OFFSET,
    SID_OFFSET,
    ChunkHeader,
    DeliveryMode,
    ExtensionType,
    PayloadDigest,
    PayloadType,
    ServiceParameters,
    ServiceSequence,
    extension_value_offset,
)
from packetcloud.chunk.names import (
    GUID,
    GUID_BYTES,
    NA,
    NA_UNBOUND,
    SID,
    SID_SEQUENCE,
    SID_ZERO,
    ChunkId,
)

_ID_AND_LENGTH = struct.Struct(">QI")
_ID_OFFSET = PAYLOAD_BYTES_OFFSET - 8
_U32 = struct.Struct(">I")
MAX_LIFETIME_MS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What all chunks of one kind of send have in common; hashable, so templates are cached."""

    destination: GUID
    services: tuple[SID, ...] = ()
    """Visited in this order; one: its SID stands in the header; more: a service sequence."""
    payload_type: int = PayloadType.DATA
    wants_report: bool = True
    wants_trace: bool = False
    destination_na: NA = NA_UNBOUND
    delivery_mode: DeliveryMode = DeliveryMode.UNICAST
    parameters: tuple[ServiceParameters, ...] = ()
    digest: PayloadDigest | None = None

    def header(self, source: GUID) -> ChunkHeader:
        """Return the header with chunk id, payload length and lifetime still zero.

        Raises:
            LocalMisuseError: the destination is zero, or a service is a reserved SID.
        """
        if self.destination.is_zero:
            raise LocalMisuseError("a chunk needs a destination GUID, not zero")
        if any(sid.is_zero or sid == SID_SEQUENCE for sid in self.services):
            raise LocalMisuseError("a reserved SID cannot be asked for as a service")
        sid, sequence = SID_ZERO, None
        if len(self.services) == 1:
            sid = self.services[0]
        elif self.services:
            sid, sequence = SID_SEQUENCE, ServiceSequence(self.services)
        return ChunkHeader(
            source=source,
            destination=self.destination,
            chunk_id=ChunkId(0),
            payload_bytes=0,
            sid=sid,
            destination_na=self.destination_na,
            delivery_mode=self.delivery_mode,
            payload_type=self.payload_type,
            sequence=sequence,
            lifetime_ms=0,
            wants_report=self.wants_report,
            wants_trace=self.wants_trace,
            digest=self.digest,
            parameters=self.parameters,
        )


class HeaderTemplate:
    """One encoded header, ready to be filled."""

    __slots__ = ("_encoded", "_lifetime_offset", "flow", "header_bytes", "options")

    def __init__(
        self, options: SendOptions, source: GUID, labels: FlowLabels | None = None
    ) -> None:
        self.options = options
        self._encoded = options.header(source).to_bytes()
        self.header_bytes = len(self._encoded)
        sid = self._encoded[SID_OFFSET : SID_OFFSET + GUID_BYTES]
        self.flow = labels.label(options.destination.value, sid) if labels is not None else 0
        """The label of its chunks towards the router."""
        offset = extension_value_offset(self._encoded, ExtensionType.LIFETIME)
        assert offset is not None, "header() always writes a lifetime"
        self._lifetime_offset = offset

    def fill(self, chunk_id: int, payload_bytes: int, lifetime_ms: int) -> bytes:
        """Return the encoded header of one chunk; a lifetime over 2**32-1 ms is cut to it."""
        header = bytearray(self._encoded)
        _ID_AND_LENGTH.pack_into(header, _ID_OFFSET, chunk_id, payload_bytes)
        _U32.pack_into(header, self._lifetime_offset, min(lifetime_ms, MAX_LIFETIME_MS))
        return bytes(header)
