"""Captures: copies of chunks as they pass, for whoever asks; nothing waits for them.

Whoever handles chunks asks `tap.is_on` and nothing else while nobody captures. A capture keeps
what it wants in a ring of bounded bytes until its reader takes it; what does not fit is counted.
Source: docs/reference/router.md, "Captures".
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import FIXED_BYTES, MAX_HEADER_BYTES, decode_header
from packetcloud.chunk.hop.api import Body, Refusal, Role
from packetcloud.chunk.messages import BodyKind, VerdictHeader
from packetcloud.chunk.names import SID_SEQUENCE
from packetcloud.chunk.reasons import reason_word
from packetcloud.router.attachment import Attachment
from packetcloud.router.errors import TooManyCapturesError

if TYPE_CHECKING:
    from packetcloud.router.custody import Custody
    from packetcloud.router.rule_counts import Tally

MAX_CAPTURES_COUNT = 4
"""At a time: each looks at every chunk."""
MAX_RING_BYTES = 16 << 20
"""Of one capture: a quarter of a second of 500 Mbit/s, if its reader stands still."""
MAX_SNAP_BYTES = 4 << 20
DEFAULT_SNAP_BYTES = 64
"""Enough to see what kind of payload it is; contents are private."""
_SIGHT_BYTES = 512
"""What a sight takes in memory beside its content."""
_SOURCE = slice(20, 40)
_DESTINATION = slice(44, 64)
_SID = slice(68, 88)


class Point(StrEnum):
    """Where a chunk is looked at."""

    TAKEN = "taken"
    """This router answers for it from now on; no service has seen it."""
    TASK = "task"
    """It is given to a VI."""
    VERDICT = "verdict"
    """A VI has answered."""
    LEFT = "left"
    """It is given to the hop towards a host or router."""
    ENDED = "ended"
    """Not delivered: refused at the door or later, expired, dropped by a service, or replaced."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one capture is to hold. Names are the beginnings of GUIDs and SIDs in hex digits."""

    points: frozenset[Point] = frozenset(Point)
    guid: str = ""
    """Of source or destination, as the chunk came."""
    source: str = ""
    destination: str = ""
    sid: str = ""
    """A service that it asks for, alone or in a sequence, as it came."""
    rule: int | None = None
    """Number of a rule that decided for it, or would have if it were not in shadow mode."""
    sample: int = 1
    """One of so many chunks, chosen by source and chunk id: the same ones at every router."""
    snap_bytes: int = DEFAULT_SNAP_BYTES
    """Of the payload; the header is always there."""
    count: int | None = None
    """Ends after so many sights."""

    def takes(self, head: bytes) -> bool:
        """Tell whether it wants the chunk that came with the header `head`."""
        if self.sample > 1 and zlib.crc32(head[8:16] + head[_SOURCE]) % self.sample:
            return False
        source, destination = head[_SOURCE].hex(), head[_DESTINATION].hex()
        return (
            source.startswith(self.source)
            and destination.startswith(self.destination)
            and (source.startswith(self.guid) or destination.startswith(self.guid))
            and (not self.sid or any(sid.startswith(self.sid) for sid in _sids(head)))
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a chunk."""

    time_ns: int
    point: Point
    kind: BodyKind
    content: bytes
    """Of the body: all headers and the first bytes of the payload."""
    body_bytes: int
    flow: int
    neighbour: Attachment | None
    """Who it came from or goes to; None: it ended here."""
    text: str
    rules: tuple[int, ...] = ()
    """Numbers of the rules that decided for it."""
    shadow_rules: tuple[int, ...] = ()
    """Those of the rules in shadow mode that would have."""

    @property
    def is_outbound(self) -> bool:
        return self.point in (Point.TASK, Point.LEFT)

    @property
    def ring_bytes(self) -> int:
        return _SIGHT_BYTES + len(self.content)


class Capture:
    """What one reader is to get.

    Args:
        wake: called when there is something to take, or the end has come.
    """

    def __init__(self, wanted: Wanted, wake: Callable[[], None]) -> None:
        self.wanted = wanted
        self.ring_bytes = 0
        self.lost_count = 0
        """Sights that found no room since one did."""
        self.is_over = False
        """Nothing more comes in."""
        self._sights: deque[tuple[Sight, int]] = deque()
        """Each with the number of sights that were lost before it."""
        self._left_count = wanted.count
        self._wake = wake

    def offer(self, sight: Sight) -> bool:
        """Keep `sight` if there is room for it; tell whether there was."""
        if self.ring_bytes + sight.ring_bytes > MAX_RING_BYTES:
            self.lost_count += 1
            return False
        if not self._sights:
            self._wake()
        self._sights.append((sight, self.lost_count))
        self.lost_count = 0
        self.ring_bytes += sight.ring_bytes
        if self._left_count is not None:
            self._left_count -= 1
            self.is_over = not self._left_count
        return True

    def take(self, limit_bytes: int) -> list[tuple[Sight, int]]:
        """Return and forget about `limit_bytes` of sights, the oldest first; at least one."""
        taken: list[tuple[Sight, int]] = []
        size = 0
        while self._sights and size < limit_bytes:
            taken.append(self._sights.popleft())
            size += taken[-1][0].ring_bytes
        self.ring_bytes -= size
        return taken

    def end(self) -> None:
        self.is_over = True
        self._wake()


class Tap:
    """All captures that run.

    Args:
        wall_ns: returns nanoseconds since 1970, for the times in the capture.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self.is_on = False
        """Somebody captures."""
        self.wall_ns = wall_ns
        self.lost_count = 0
        """Sights that a capture had no room for."""
        self.captures: list[Capture] = []

    def begin(self, wanted: Wanted, wake: Callable[[], None]) -> Capture:
        """Begin a capture.

        Raises:
            TooManyCapturesError: as many as there may be run already.
        """
        if len(self.captures) >= MAX_CAPTURES_COUNT:
            raise TooManyCapturesError(
                f"{MAX_CAPTURES_COUNT} captures run at this router, which is the most; "
                "end one of them"
            )
        capture = Capture(wanted, wake)
        self.join(capture)
        return capture

    def join(self, capture: Capture) -> None:
        """Have a capture that was made elsewhere look on."""
        self.captures.append(capture)
        self.is_on = True

    def end(self, capture: Capture) -> None:
        """Forget a capture; again changes nothing."""
        if capture in self.captures:
            self.captures.remove(capture)
            self.is_on = bool(self.captures)
            capture.end()

    def end_all(self) -> None:
        """The router stops: every reader gets what is there, and the end."""
        for capture in list(self.captures):
            self.end(capture)

    def saw(
        self,
        point: Point,
        head: bytes,
        content: Callable[[int], tuple[bytes, int]],
        *,
        kind: BodyKind = BodyKind.CHUNK,
        flow: int = 0,
        neighbour: Attachment | None = None,
        text: str = "",
        tally: Tally | None = None,
    ) -> None:
        """Give a look at a chunk to whoever wants it.

        Args:
            head: its header as it came.
            content: returns the headers and so many bytes of payload, and the size of all.
            tally: what rules decided for it; None: nothing.
        """
        time_ns = self.wall_ns()
        rules = tally.numbers if tally is not None else ()
        shadow_rules = tally.shadow_numbers if tally is not None else ()
        for capture in self.captures:
            wanted = capture.wanted
            if (
                capture.is_over
                or point not in wanted.points
                or (wanted.rule is not None and wanted.rule not in rules + shadow_rules)
                or not wanted.takes(head)
            ):
                continue
            shown, size = content(wanted.snap_bytes)
            sight = Sight(
                time_ns, point, kind, shown, size, flow, neighbour, text, rules, shadow_rules
            )
            self.lost_count += not capture.offer(sight)

    def saw_chunk(
        self, point: Point, entry: Custody, neighbour: Attachment | None, text: str = ""
    ) -> None:
        """Look at a chunk in custody."""
        self.saw(
            point,
            entry.head,
            entry.first_bytes,
            flow=entry.flow.label,
            neighbour=neighbour,
            text=text,
            tally=entry.flow.tally,
        )

    def saw_task(self, entry: Custody, vi: Attachment, prefix: bytes) -> None:
        """Look at a chunk that is given to a VI; `prefix`: what stands before it."""

        def content(snap_bytes: int) -> tuple[bytes, int]:
            shown, size = entry.first_bytes(snap_bytes)
            return prefix + shown, len(prefix) + size

        self.saw(
            Point.TASK,
            entry.head,
            content,
            kind=BodyKind.TASK,
            flow=entry.flow.label,
            neighbour=vi,
            tally=entry.flow.tally,
        )

    def saw_verdict(
        self, entry: Custody, vi: Attachment, body: Body, verdict: VerdictHeader
    ) -> None:
        """Look at an answer of a VI."""
        self.saw(
            Point.VERDICT,
            entry.head,
            lambda snap_bytes: (body.head(verdict.encoded_bytes + snap_bytes), len(body)),
            kind=BodyKind.VERDICT,
            flow=entry.flow.label,
            neighbour=vi,
            text=f"{verdict.code.name.lower()}; chunk={entry.chunk_id}; "
            f"source={entry.head[_SOURCE].hex()}",
            tally=entry.flow.tally,
        )

    def refused_at_door(self, attachment: Attachment, body: Body, refusal: Refusal) -> None:
        """A chunk was not taken; its body is still the hop's."""
        head = body.head(MAX_HEADER_BYTES)

        def content(snap_bytes: int) -> tuple[bytes, int]:
            header_bytes = min(max(int.from_bytes(head[2:4], "big"), FIXED_BYTES), MAX_HEADER_BYTES)
            return body.head(header_bytes + snap_bytes), len(body)

        self.saw(
            Point.ENDED,
            head,
            content,
            neighbour=attachment,
            text=f"refused at the door: {reason_word(refusal.reason)}",
        )


def described(attachment: Attachment) -> str:
    """Return role and name of a neighbour."""
    if attachment.role is Role.SERVICE and attachment.vi is not None:
        return f"VI {attachment.vi.number} of service {attachment.vi.service.name}"
    return f"{attachment.role.name.lower()} {attachment.guid.hex}"


def _sids(head: bytes) -> list[str]:
    """Return the SIDs that a header asks for."""
    if head[_SID] != SID_SEQUENCE.value:
        return [head[_SID].hex()]
    try:
        sequence = decode_header(head).sequence
    except ProtocolError:
        return []
    return [sid.hex for sid in sequence.sids] if sequence is not None else []
