"""Where things stand in one encoded header, so that a chunk of a known flow is not decoded again.

All chunks of a flow carry the same extensions in the same places; only some values differ (the
lifetime, the digest). A layout remembers the places and recognises the next header of its kind by
one masked comparison of whole numbers, about 0.2 microseconds whatever the extensions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from packetcloud.chunk.header import (
    FIXED_BYTES,
    PAYLOAD_BYTES_OFFSET,
    PAYLOAD_TYPE_OFFSET,
    ExtensionType,
)

_EXTENSION_HEAD_BYTES = 4
"""type, flags, length; see `chunk.header`."""
_HEADER_BYTES = slice(2, 4)
_PAYLOAD_BYTES = slice(PAYLOAD_BYTES_OFFSET, PAYLOAD_BYTES_OFFSET + 4)
_CUT_BY_UPDATE = (ExtensionType.PAYLOAD_DIGEST, ExtensionType.SOURCE_SIGNATURE)
"""What a new payload makes untrue."""


@dataclass(frozen=True, slots=True)
class HeaderLayout:
    """The places in a header of `header_bytes`; an offset of 0 means that the thing is absent."""

    header_bytes: int
    lifetime_offset: int
    cursor_offset: int
    wants_report: bool
    cuts: tuple[tuple[int, int], ...]
    """Start and end of the extensions that an update drops, the last one first."""
    mask: int
    expected: int

    @classmethod
    def of(cls, head: bytes | bytearray) -> Self:
        """Lay out the header at the start of `head`, which was decoded without error."""
        header_bytes = int.from_bytes(head[_HEADER_BYTES], "big")
        mask = bytearray(b"\xff" * (header_bytes - FIXED_BYTES))
        lifetime_offset = cursor_offset = 0
        wants_report = False
        cuts: list[tuple[int, int]] = []
        offset = FIXED_BYTES
        while offset < header_bytes:
            kind = head[offset]
            start = offset + _EXTENSION_HEAD_BYTES
            end = start + int.from_bytes(head[offset + 2 : start], "big")
            fixed_until = end
            if kind == ExtensionType.SERVICE_SEQUENCE:
                cursor_offset = start
            elif kind == ExtensionType.LIFETIME:
                lifetime_offset = fixed_until = start
            elif kind == ExtensionType.REPORT_REQUEST:
                wants_report = True
            elif kind == ExtensionType.PAYLOAD_DIGEST:
                fixed_until = start + 1  # the algorithm stays, the digest differs
            elif kind != ExtensionType.TRACE_REQUEST:
                fixed_until = start
            if kind in _CUT_BY_UPDATE:
                cuts.insert(0, (offset, end))
            mask[fixed_until - FIXED_BYTES : end - FIXED_BYTES] = bytes(end - fixed_until)
            offset = end
        mask_number = int.from_bytes(mask, "big")
        extensions = int.from_bytes(head[FIXED_BYTES:header_bytes], "big")
        return cls(
            header_bytes,
            lifetime_offset,
            cursor_offset,
            wants_report,
            tuple(cuts),
            mask_number,
            extensions & mask_number,
        )

    def matches(self, head: bytes) -> bool:
        """Tell whether `head`, with the same `header_bytes`, has the same extensions."""
        extensions = int.from_bytes(head[FIXED_BYTES : self.header_bytes], "big")
        return extensions & self.mask == self.expected

    def updated_header(
        self, header: bytes | bytearray, payload_bytes: int, payload_type: int | None = None
    ) -> bytearray:
        """Return `header` for another payload: its length and, unless None, its type; without
        digest and signature."""
        updated = bytearray(header)
        if len(updated) == self.header_bytes:  # else an earlier update has cut it already
            for start, end in self.cuts:
                del updated[start:end]
        updated[_HEADER_BYTES] = len(updated).to_bytes(2, "big")
        updated[_PAYLOAD_BYTES] = payload_bytes.to_bytes(4, "big")
        if payload_type is not None:
            updated[PAYLOAD_TYPE_OFFSET] = payload_type
        return updated
