"""Stands between a hop node and the layer above, changes nothing, and writes who has what.

What it writes is what was said between the two: "I take this body" is custody, "the neighbour has
it" is custody passed on. It knows nothing of what router or host keep inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import MAX_HEADER_BYTES, PayloadType, decode_header
from packetcloud.chunk.hop.api import Body, Deferral, Neighbour, Refusal, Settlement
from packetcloud.chunk.messages import BodyKind, Outcome, decode_reports
from packetcloud.chunk.names import GUID
from packetcloud.testbed.simulation.journal import Entry
from packetcloud.testbed.simulation.payload import OP_BYTES, op_of

Note = Callable[[Entry, "Chunk", str], None]


class Chunk(NamedTuple):
    """What names a chunk in the journals."""

    op: int
    source: str
    chunk_id: int
    wants_report: bool


class Witness:
    """The `HopReceiver` that a hop node calls in the place of `upper`.

    Args:
        own: the GUID of the node.
        note: writes a line of the custodian's journal.
    """

    def __init__(self, own: GUID, note: Note) -> None:
        self.upper: Any = None
        self._own = own
        self._note = note
        self._seen: dict[Neighbour, _SeenNeighbour] = {}
        self.held: dict[Chunk, int] = {}
        """Copies of chunks that this node took and has neither passed on nor given up, as far as
        was said. Only of chunks whose source wants to be told: else giving up is silent."""

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.upper.neighbour_up(self._of(neighbour))

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.upper.neighbour_down(self._of(neighbour), reason)
        self._seen.pop(neighbour, None)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Any:
        chunk = chunk_in(body.head(MAX_HEADER_BYTES + OP_BYTES)) if kind is BodyKind.CHUNK else None
        answer = self.upper.body_received(self._of(neighbour), kind, body)
        if chunk is not None and answer is None:
            self.took(chunk, neighbour)
        elif chunk is not None and isinstance(answer, Deferral):
            self._of(neighbour).pending[id(body)] = chunk
        return answer

    def took(self, chunk: Chunk, neighbour: Neighbour) -> None:
        """This node answers for a chunk that came from `neighbour`."""
        self._note(Entry.TOOK, chunk, neighbour.guid.short)
        if chunk.wants_report:
            self.held[chunk] = self.held.get(chunk, 0) + 1

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        seen = self._of(neighbour)
        chunk = seen.sent.pop(id(token), None)
        if chunk is not None and settlement is Settlement.ACCEPTED:
            self._note(Entry.PASSED, chunk, neighbour.guid.short)
            self._drop(chunk)
        self.upper.body_settled(seen, token, settlement, reason)

    def reported(self, payload: bytes, source: GUID) -> None:
        """This node tells `source` how chunks ended."""
        for report in decode_reports(payload):
            key = source.short, report.chunk_id.value
            chunk = next((held for held in self.held if held[1:3] == key), None)
            if chunk is not None:
                self._note(Entry.GAVE_UP, chunk, Outcome(report.outcome).name.lower())
                self._drop(chunk)

    def could_not_tell(self, payload: bytes, source: GUID) -> None:
        """A report to `source` ended where it was written: these chunks are given up untold."""
        for report in decode_reports(payload):
            key = source.short, report.chunk_id.value
            chunk = next((held for held in self.held if held[1:3] == key), None)
            if chunk is not None:
                self._drop(chunk)

    def _drop(self, chunk: Chunk) -> None:
        copies = self.held.pop(chunk, 0)
        if copies > 1:
            self.held[chunk] = copies - 1

    def _of(self, neighbour: Neighbour) -> _SeenNeighbour:
        seen = self._seen.get(neighbour)
        if seen is None:
            seen = self._seen[neighbour] = _SeenNeighbour(neighbour, self, self._own)
        return seen


class _SeenNeighbour:
    """A neighbour as the layer above sees it; what it is given is written down."""

    def __init__(self, neighbour: Neighbour, witness: Witness, own: GUID) -> None:
        self._neighbour = neighbour
        self._witness = witness
        self._own = own
        self.sent: dict[int, Chunk] = {}
        """By the identity of the token, which is in use for one body at a time."""
        self.pending: dict[int, Chunk] = {}
        """By the identity of the body: what came from here and is not decided yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._neighbour, name)

    def send(self, kind: BodyKind, prefix: bytes, payload: Any, token: object, **more: Any) -> None:
        self._note(kind, lambda: prefix + bytes(payload[:OP_BYTES]), payload, token)
        self._neighbour.send(kind, prefix, payload, token, **more)

    def send_body(
        self, kind: BodyKind, body: Body, token: object, prefix: bytes = b"", **more: Any
    ) -> None:
        self._note(kind, lambda: prefix + body.head(MAX_HEADER_BYTES + OP_BYTES), b"", token)
        self._neighbour.send_body(kind, body, token, prefix, **more)

    def decide(self, body: Body, refusal: Refusal | None = None) -> None:
        chunk = self.pending.pop(id(body), None)
        if chunk is not None and refusal is None:
            self._witness.took(chunk, self._neighbour)
        self._neighbour.decide(body, refusal)

    def _note(self, kind: BodyKind, head: Callable[[], bytes], payload: Any, token: object) -> None:
        if kind is not BodyKind.CHUNK:
            return
        data = head()
        chunk = chunk_in(data)
        if chunk is not None:
            self.sent[id(token)] = chunk
            return
        header = decode_header(data)
        if header.payload_type == PayloadType.REPORT and header.source == self._own:
            self._witness.reported(bytes(payload), header.destination)


def chunk_in(head: bytes) -> Chunk | None:
    """Return the chunk whose header and first payload bytes these are; None if not a sender's."""
    try:
        header = decode_header(head)
    except ProtocolError:
        return None
    if header.payload_type == PayloadType.REPORT:
        return None
    op = op_of(head[int.from_bytes(head[2:4], "big") :])
    if op is None:
        return None
    return Chunk(op, header.source.short, header.chunk_id.value, header.wants_report)
