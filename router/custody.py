"""One chunk that this router answers for: its bytes, wherever they lie, and where it stands.

Source: design, section 6, "Custody".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from packetcloud.chunk.header import HOP_LIMIT_OFFSET, PAYLOAD_BYTES_OFFSET
from packetcloud.chunk.hop.api import Body, Buffer, FoundT, Neighbour
from packetcloud.chunk.names import ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.router.spool import Lying

if TYPE_CHECKING:
    from packetcloud.router.flow import Flow
    from packetcloud.router.routes import NextHop
    from packetcloud.router.service_pool import Visit

_PAYLOAD_BYTES = slice(PAYLOAD_BYTES_OFFSET, PAYLOAD_BYTES_OFFSET + 4)


class Phase(Enum):
    """Where a chunk in custody stands."""

    STORING = "storing"
    """Being written to disk before custody is taken."""
    FOUND = "found"
    """Left by an earlier process; waits on disk until its way is open."""
    LEAVING = "leaving"
    """Given to the hop towards a host or router, not settled yet."""
    HELD = "held"
    """Waits for a host or router that is away."""
    TASKED = "tasked"
    """With a VI, or on its way there."""
    QUEUED = "queued"
    """Waits for a VI with room."""
    EMITTING = "emitting"
    """A service made others of it, which are being written to disk."""
    ENDING = "ending"
    """Given up, but the hop still reads its bytes: waits for the settlement."""
    GONE = "gone"
    """Out of custody; nothing happens to it any more."""


class Leaving(Enum):
    """The ways out of custody, as metric labels."""

    SENT_ON = "sent_on"
    DELIVERED = "delivered"
    REPLACED = "replaced"
    REFUSED = "refused"
    EXPIRED = "expired"
    DROPPED = "dropped"


class Custody:
    """One chunk in custody. The hop's token for it is this object.

    The chunk's bytes are in one of two shapes. `header is None`: all in `body`, as received, and
    patched in place; else `header` and `payload`, the latter perhaps inside `body` (a verdict).
    """

    __slots__ = (
        "arrival",
        "body",
        "bucket",
        "due_at",
        "ending",
        "expires_at",
        "flow",
        "has_left_a_copy",
        "head",
        "header",
        "is_loading",
        "is_originated",
        "is_spilled",
        "is_unsettled",
        "is_updated",
        "left_to",
        "lying",
        "next_hop",
        "original",
        "payload",
        "phase",
        "record_bytes",
        "record_number",
        "retries",
        "retry_at",
        "serial",
        "size_bytes",
        "taken_at",
        "visit",
        "wake_at",
    )

    def __init__(
        self,
        body: Body | None,
        head: bytes,
        flow: Flow,
        size_bytes: int,
        taken_at: float,
        expires_at: float,
    ) -> None:
        self.body = body
        self.head = head
        """The header's bytes as they were received."""
        self.flow = flow
        self.size_bytes = size_bytes
        """What the chunk counts for in the store, from taking it to its end."""
        self.taken_at = taken_at
        self.expires_at = expires_at
        self.due_at = math.inf
        """The deadline of the present phase: a task's verdict, or the end of a wait."""
        self.wake_at = math.inf
        """When the wheel looks at the chunk; never later than the two deadlines."""
        self.bucket: dict[Custody, None] | None = None
        self.phase = Phase.LEAVING
        self.header: bytearray | None = None
        self.payload: Buffer = b""
        self.original: Body | None = None
        """The body as received, after an update. It stays unreleased until the chunk is gone, so
        that the neighbour it came from sees how much of its credit is still in use here."""
        self.next_hop: NextHop | None = None
        self.visit: Visit | None = None
        self.arrival: tuple[Neighbour, Body] | None = None
        """Who waits to hear that it was taken, while it is STORING."""
        self.left_to: NextHop | None = None
        """Whose session has it, while it is leaving."""
        self.record_number = 0
        """Of its record on disk; 0: it has none."""
        self.record_bytes = 0
        self.lying = Lying.NOWHERE
        self.is_updated = False
        """A service changed its payload, and its record, if it has one, does not say so."""
        self.is_spilled = False
        """Its payload is on disk only."""
        self.is_loading = False
        self.retries = 0
        """How often its next custodian had no room for it."""
        self.retry_at = 0.0
        self.serial = 0
        """Its place among all chunks of this router, as they were taken."""
        self.is_unsettled = False
        self.has_left_a_copy = False
        """The next custodian may have taken it without our hearing of that."""
        self.is_originated = False
        self.ending: tuple[Leaving, Reason, str] | None = None

    @property
    def chunk_id(self) -> ChunkId:
        return ChunkId.from_bytes(self.head[8:16])

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite bytes of the chunk's header; nothing may be reading them now."""
        if self.header is not None:
            self.header[offset : offset + len(data)] = data
        elif self.body is not None:
            self.body.patch(offset, data)

    def header_bytes_now(self) -> bytes:
        """Return the header with every patch so far."""
        if self.header is not None:
            return bytes(self.header)
        if self.body is None:
            return self.head  # on disk, since before it was taken over
        return self.body.head(self.flow.layout.header_bytes)

    def first_bytes(self, payload_bytes: int) -> tuple[bytes, int]:
        """Return the header as it is now with up to `payload_bytes`, and the size of the chunk."""
        if self.header is not None:
            shown = bytes(self.header) + bytes(self.payload[:payload_bytes])
            header_bytes = len(self.header)
        else:
            header_bytes = self.flow.layout.header_bytes
            if self.body is None:
                shown = self.head[:header_bytes]
            else:
                shown = self.body.head(header_bytes + payload_bytes)
        return shown, header_bytes + int.from_bytes(shown[_PAYLOAD_BYTES], "big")

    def look_at_payload(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        """Return what `at` finds in the payload as it is now, in memory."""
        if self.header is not None:
            return at(memoryview(self.payload))
        assert self.body is not None, "a chunk without header of its own lies in a body"
        start = self.flow.layout.header_bytes
        return self.body.look(lambda whole: at(whole[start:]))

    @property
    def payload_bytes(self) -> int:
        if self.header is not None:
            return len(self.payload)
        assert self.body is not None, "a chunk without header of its own lies in a body"
        return len(self.body) - self.flow.layout.header_bytes

    def update_payload(self, header: bytearray, payload: Buffer, verdict_body: Body | None) -> None:
        """Take the payload inside `verdict_body` (None: copied), and keep the original for its
        credit."""
        self.is_updated = True
        if self.original is None:
            self.original = self.body
        elif self.body is not None:
            self.body.release()
        self.header, self.payload, self.body = header, payload, verdict_body

    def move_out_of_the_hop(self) -> None:
        """Copy the bytes and release every body: who sent them gets its credit back."""
        if self.body is not None:
            if self.header is None:
                whole = bytes(self.body.contiguous())
                header_bytes = self.flow.layout.header_bytes
                self.header = bytearray(whole[:header_bytes])
                self.payload = memoryview(whole)[header_bytes:]
            else:
                self.payload = bytes(self.payload)
        self._release()

    def move_verdict_out_of_the_hop(self) -> None:
        """Copy an updated payload and release the verdict that carried it.

        Chunks of two flows that cross two services in opposite order could otherwise fill the
        credit of both VIs while each waits for room at the other, for ever.
        """
        if self.original is not None and self.body is not None:
            self.payload = bytes(self.payload)
            self.body.release()
            self.body = None

    def drop_payload(self) -> None:
        """Let go of the payload, which is on disk; the header stays, it may have changed."""
        self.is_spilled = True
        self.payload = b""

    def take_back(self, data: bytes) -> None:
        """Take the payload out of the record, and the header unless there is one.

        The record may be of the chunk as it arrived: what services and this router wrote into the
        header since then stands in memory only.
        """
        self.is_spilled = self.is_loading = False
        header_bytes = int.from_bytes(data[2:4], "big")
        if self.header is None:
            self.header = bytearray(data[:header_bytes])
        self.payload = memoryview(data)[header_bytes:]

    def record_header(self) -> bytes:
        """Return the header for the record: what is stamped on leaving, it says as on arrival."""
        assert self.header is not None, "what is written has been moved out of the hop"
        header = bytearray(self.header)
        header[HOP_LIMIT_OFFSET] = self.head[HOP_LIMIT_OFFSET]
        offset = self.flow.layout.lifetime_offset
        if offset and offset + 4 <= len(header):
            header[offset : offset + 4] = self.head[offset : offset + 4]
        return bytes(header)

    def release(self) -> None:
        """Give all memory back; the chunk's bytes are gone after this."""
        self.payload = b""
        self._release()

    def _release(self) -> None:
        if self.body is not None:
            self.body.release()
            self.body = None
        if self.original is not None:
            self.original.release()
            self.original = None
