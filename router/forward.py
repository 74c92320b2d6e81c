"""The way out: to the attached host, to the next router, or into the wait for one that is away.

Source: design, section 6, step 6.
"""

from __future__ import annotations

import math

from packetcloud.chunk.header import HOP_LIMIT_OFFSET
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason, reason_word
from packetcloud.router.attachment import Attachment
from packetcloud.router.custody import Custody, Leaving, Phase
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow, Patch
from packetcloud.router.routes import NextHop, Routes
from packetcloud.router.settings import RouterSettings
from packetcloud.router.tap import Point
from packetcloud.router.waiting import RETRYABLE_REASONS, WaitingRoom

_DESTINATION = slice(44, 64)
_DESTINATION_NA = slice(64, 68)
_BYTE = [bytes([value]) for value in range(256)]


class Forwarder:
    """Sends chunks on, and holds those whose next hop is away."""

    def __init__(self, settings: RouterSettings, book: CustodyBook, routes: Routes) -> None:
        self._book = book
        self._routes = routes
        self.waiting = WaitingRoom(settings, book, self._send_from_line, _attachment_of)

    def configure(self, settings: RouterSettings) -> None:
        self.waiting.configure(settings)

    def find(self, header: bytes, beyond: bytes | None, now: float) -> tuple[NextHop, Patch | None]:
        """Return where a chunk with this header goes, and the destination NA to stamp, if any.

        Raises:
            ChunkRefusedError: nobody here knows the way.
        """
        if beyond is not None:
            hop = self._routes.resolve_service(beyond)
            if hop is None:
                raise ChunkRefusedError(Reason.UNKNOWN_SID, f"no way to service {beyond.hex()}")
            return hop, None
        destination, stated_na = header[_DESTINATION], header[_DESTINATION_NA]
        found = self._routes.resolve(destination, int.from_bytes(stated_na, "big"), now)
        if found is None:
            detail = f"no way to {destination.hex()}"
            raise ChunkRefusedError(Reason.UNRESOLVABLE_GUID, detail)
        hop, na = found
        encoded_na = na.to_bytes(4, "big")
        is_late_bound = hop.is_router and encoded_na != stated_na
        return hop, (_DESTINATION_NA.start, encoded_na) if is_late_bound else None

    def leave(self, entry: Custody, now: float) -> None:
        """Send on a chunk whose services are done; nothing reads its bytes now."""
        flow = entry.flow
        hop, patch = flow.next_hop, flow.destination_na
        is_redirected = entry.visit is not None and entry.visit.is_redirected
        if hop is None or is_redirected or _attachment_of(hop, now) is None:
            try:
                hop, patch = self.find(entry.header_bytes_now(), flow.beyond, now)
            except ChunkRefusedError as error:
                self._book.give_up(entry, Leaving.REFUSED, error.reason, error.detail)
                return
        if patch is not None:
            entry.patch(*patch)
        attachment = _attachment_of(hop, now)
        if attachment is None or self.waiting.must_wait(hop, attachment, flow.label):
            self.waiting.hold(entry, hop, now)
        else:
            self.send(entry, flow, hop, attachment, now)

    def _send_from_line(
        self, entry: Custody, hop: NextHop, attachment: Attachment, now: float
    ) -> None:
        self.send(entry, entry.flow, hop, attachment, now)

    def send(
        self, entry: Custody, flow: Flow, hop: NextHop, attachment: Attachment, now: float
    ) -> None:
        """Stamp what every custodian must, and give the chunk to the hop."""
        if hop.is_router:
            hop_limit = entry.head[HOP_LIMIT_OFFSET]
            if not hop_limit:
                self._book.give_up(entry, Leaving.REFUSED, Reason.HOP_LIMIT, "at this router")
                return
            entry.patch(HOP_LIMIT_OFFSET, _BYTE[hop_limit - 1])
        offset = flow.layout.lifetime_offset
        if offset and now > entry.taken_at:
            stated_ms = int.from_bytes(entry.head[offset : offset + 4], "big")
            left_ms = stated_ms - int((now - entry.taken_at) * 1000)
            if left_ms <= 0:
                self.expire(entry)
                return
            entry.patch(offset, left_ms.to_bytes(4, "big"))
        if self._book.tap.is_on:
            self._book.tap.saw_chunk(Point.LEFT, entry, attachment)
        entry.next_hop = entry.left_to = hop
        hop.began(entry)
        entry.phase = Phase.LEAVING
        entry.is_unsettled = True
        entry.due_at = math.inf
        header = entry.header
        if header is None:
            body = entry.body
            assert body is not None, "a chunk without header of its own lies in a body"
            attachment.neighbour.send_body(BodyKind.CHUNK, body, entry, flow=flow.label)
        else:
            attachment.neighbour.send(
                BodyKind.CHUNK, bytes(header), entry.payload, entry, flow=flow.label
            )

    def settled(
        self,
        entry: Custody,
        attachment: Attachment | None,
        settlement: Settlement,
        reason: int,
        now: float,
    ) -> None:
        """The hop is done with a chunk that was leaving."""
        hop = entry.next_hop
        assert hop is not None, "a chunk that leaves has a next hop"
        if settlement is Settlement.ACCEPTED:
            self._book.passed_on(entry, hop.is_router)
        elif settlement is Settlement.REFUSED and reason in RETRYABLE_REASONS:
            self.waiting.try_again_later(entry, hop, now)
        elif settlement is Settlement.REFUSED:
            why, detail = _refusal_of(hop, reason)
            self._book.give_up(entry, Leaving.REFUSED, why, detail)
        else:
            # Lost: the session ended. Whether it has the chunk is not known: the chunk goes again,
            # and the destination drops what it has already.
            if hop.attachment is attachment:
                hop.attachment = None
                hop.away_since = now
            self.leave(entry, now)

    def attached(self, hop: NextHop, now: float) -> None:
        """Send what waited for `hop`, each flow in the order in which it came."""
        for entry in hop.waiting:
            entry.due_at = math.inf
            entry.retry_at = 0.0
        self.waiting.pump(hop, now)

    def wait_over(self, entry: Custody, now: float) -> None:
        """A chunk in line has waited as long as it should before somebody looks."""
        hop = entry.next_hop
        if hop is None:
            self.lose(entry)
        elif _attachment_of(hop, now) is not None:
            entry.due_at = math.inf
            self.waiting.pump(hop, now)
        elif now < (held_until := self.waiting.held_until(hop)):
            # It was to be offered again, and its next hop went away just then.
            entry.due_at = held_until
            self._book.wheel.wake_by(entry, held_until)
        else:
            self.lose(entry)

    def give_up_waiting(self, hop: NextHop) -> None:
        """End the wait of every chunk for a next hop that is no longer known."""
        while hop.waiting:
            self.lose(next(iter(hop.waiting)))

    def lose(self, entry: Custody) -> None:
        """The wait for a next hop is over without it."""
        hop = self._stop_waiting(entry)
        what = "router" if hop is not None and hop.is_router else "host"
        name = hop.name if hop is not None else "?"
        detail = f"{what} {name} was away for too long"
        self._book.give_up(entry, Leaving.EXPIRED, Reason.NEIGHBOUR_LOST, detail)

    def expire(self, entry: Custody) -> None:
        """The chunk's lifetime, or the longest time that this router holds one, is over."""
        self._stop_waiting(entry)
        self._book.give_up(entry, Leaving.EXPIRED, Reason.DEADLINE_PASSED, "held too long")

    def _stop_waiting(self, entry: Custody) -> NextHop | None:
        self.waiting.stop_waiting(entry)
        return entry.next_hop


def _attachment_of(hop: NextHop, now: float) -> Attachment | None:
    """Return the session to use; one that is closing, and will be down soon, is none."""
    attachment = hop.attachment
    if attachment is not None and not attachment.neighbour.is_up:
        hop.attachment = attachment = None
        hop.away_since = now
    return attachment


def _refusal_of(hop: NextHop, code: int) -> tuple[Reason, str]:
    what = "router" if hop.is_router else "host"
    try:
        return Reason(code), f"by {what} {hop.name}"
    except ValueError:
        return Reason.RECEIVER_REFUSED, f"{reason_word(code)} by {what} {hop.name}"
