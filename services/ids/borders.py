"""What is remembered of a flow's chunks, so that bytes are found that lie over their border.

Chunks that follow each other form a run, of which both ends are kept, at most `edge_bytes` each. A
chunk that joins runs is searched together with the ends that it meets. So whatever spans at most so
many bytes on each side of a border is found, in whatever order the chunks come.

Where a chunk lies is said by its number; of the data of a file transfer by the offset in the file,
of streams by the offset in each. A numbered chunk that meets no run is searched together with what
came last before it. Source: docs/reference/ids.md, "Borders"; docs/protocol/file-transfer.md,
"Messages"; docs/protocol/stream.md, "Frames".
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import WRAPPED_TYPES, ChunkHeader, PayloadType
from packetcloud.chunk.streams.wire import Data, Message, decode_message

DEFAULT_MAX_RUNS_COUNT = 1024
"""Of one flow and direction: as many streams, or gaps, are followed at once."""
RUN_BYTES = 512
"""What a run costs besides the bytes that are kept of it."""
MAX_KNOWN_COUNT = 1024
"""Places of one run of which it is known what lies there; 20 bytes each, of the highest ones."""
_FILE_DATA = struct.Struct(">4sB3x16sQ")
_FILE_MAGIC = b"PCF1"
_FILE_KIND_DATA = 2
_WHERE = struct.Struct(">QI")
_MARK_BYTES = _WHERE.size + 8
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk, or a part of one, lies in what its flow carries."""

    space: bytes
    """What the numbers count in; numbers of different spaces have nothing to do with each other."""
    start: int
    end: int
    content: memoryview
    is_numbered: bool = False
    """It is a whole chunk, and its number says where it lies."""


def places_of(header: ChunkHeader, payload: memoryview) -> list[Place]:
    """Return where a chunk lies, or each of its parts."""
    if header.payload_type in WRAPPED_TYPES:
        return []  # nothing is to be read in it, and sent again it is wrapped anew
    if header.payload_type == PayloadType.FILE and len(payload) > _FILE_DATA.size:
        magic, kind, transfer, offset = _FILE_DATA.unpack_from(payload)
        if magic == _FILE_MAGIC and kind == _FILE_KIND_DATA:
            end = offset + len(payload) - _FILE_DATA.size
            return [Place(b"f" + transfer, offset, end, payload[_FILE_DATA.size :])]
    if header.payload_type == PayloadType.STREAM:
        try:
            return list(_places_of_streams(decode_message(payload)))
        except ProtocolError:
            pass  # whatever else it is, it has a number
    number = header.chunk_id.value
    # A host numbers all that it sends to one destination together, whatever its type.
    return [Place(b"c", number, number + 1, payload, True)]


def _places_of_streams(message: Message) -> Iterator[Place]:
    session = b"s" + message.session.to_bytes(8, "big")
    for frame in message.frames:
        if isinstance(frame, Data):
            offset = frame.offset
            for piece in frame.pieces:
                space = session + frame.stream.to_bytes(4, "big")
                yield Place(space, offset, offset + len(piece), memoryview(piece))
                offset += len(piece)


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks without a gap; where it is short, `head` and `tail` are both all of it."""

    space: bytes
    start: int
    end: int
    size_bytes: int
    head: bytes
    tail: bytes
    known: bytes = b""
    """For each place in it: where that is (12 bytes), and a hash of what lies there (8 bytes)."""
    grown_at: float = 0.0

    @property
    def kept_bytes(self) -> int:
        return len(self.head) + len(self.tail) + len(self.known) + RUN_BYTES


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes around the border of chunks, and where the borders are in them."""

    content: bytes
    borders: tuple[int, ...]


class Borders:
    """The runs of one direction of a flow."""

    __slots__ = ("_runs", "_starts", "kept_bytes", "last")

    def __init__(self, runs: Iterable[Run] = (), last: bytes = b"") -> None:
        self._runs: dict[tuple[bytes, int], Run] = {}
        """By space and start; the one that grew last at the end."""
        self._starts: dict[bytes, tuple[int, ...]] = {}
        """Of the runs of each space, ascending."""
        self.last = last
        """The end of what came, in the order in which it came."""
        self.kept_bytes = len(last)
        for run in runs:
            where = Place(run.space, run.start, run.end, memoryview(b""))
            if run.start < run.end and not self._over(where):
                self._put(run)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def runs(self) -> list[Run]:
        """All runs, the one that grew last at the end."""
        return list(self._runs.values())

    def copy(self) -> Borders:
        """Return one that can grow without this one; runs themselves never change."""
        other = Borders()
        other._runs, other._starts = self._runs.copy(), self._starts.copy()
        other.last, other.kept_bytes = self.last, self.kept_bytes
        return other

    def uncovered(self, place: Place) -> list[Place]:
        """Return the parts of a place where nothing lies yet; a whole chunk stays in one piece."""
        if place.is_numbered:
            return [place]
        parts, at = [], place.start
        for start, end in [
            *((run.start, run.end) for run in self._over(place)),
            (place.end, place.end),
        ]:
            if at < start:
                content = place.content[at - place.start : start - place.start]
                parts.append(Place(place.space, at, start, content))
            at = max(at, end)
        return parts

    def contradicts(self, place: Place, edge_bytes: int) -> bool:
        """Tell whether something else is known to lie where this place does, or a part of it."""
        content = place.content
        if not edge_bytes or not content:
            return False
        mark = b""
        for run in self._over(place):
            if run.start <= place.start and place.end <= run.end:
                mark = mark or _mark(
                    place, bytes(content[:edge_bytes]), bytes(content[-edge_bytes:])
                )
                if _knows_other(run.known, mark):
                    return True
            if not place.is_numbered and (
                _differ(place, run.start, run.head)
                or _differ(place, run.end - len(run.tail), run.tail)
            ):
                return True
        return False

    def stretches(self, place: Place, edge_bytes: int) -> list[Stretch]:
        """Return what is to be searched besides the payload itself."""
        content = place.content
        if not edge_bytes or not (content or place.is_numbered):
            return []
        before, after = self._beside(place)
        is_after_last = place.is_numbered and not self._over(place)
        left = before.tail if before is not None else self.last if is_after_last else b""
        right = after.head if after is not None else b""
        if len(content) <= 2 * edge_bytes:
            pieces = [piece for piece in (left, bytes(content), right) if piece]
            return [_stretch(pieces)] if len(pieces) > 1 else []
        found = []
        if left:
            found.append(_stretch([left, bytes(content[:edge_bytes])]))
        if right:
            found.append(_stretch([bytes(content[-edge_bytes:]), right]))
        return found

    def add(self, place: Place, edge_bytes: int, now: float = 0.0) -> None:
        """Remember a chunk that goes on; an empty one joins those beside it."""
        content = place.content
        if not edge_bytes or not (content or place.is_numbered):
            return
        head, tail = bytes(content[:edge_bytes]), bytes(content[-edge_bytes:])
        if place.is_numbered:
            last = (self.last + tail)[-edge_bytes:]
            self.kept_bytes += len(last) - len(self.last)
            self.last = last
        if self._over(place):
            return
        before, after = self._beside(place)
        mark = _mark(place, head, tail)
        run = Run(place.space, place.start, place.end, len(content), head, tail, mark, now)
        if before is not None:
            self._remove(before)
            run = _join(before, run, edge_bytes)
        if after is not None:
            self._remove(after)
            run = _join(run, after, edge_bytes)
        self._put(run)

    def forget(self, max_runs: int, max_bytes: int) -> list[Run]:
        """Let go of the runs that did not grow for longest, until so much is left; return them."""
        gone = []
        while self._runs and (len(self._runs) > max_runs or self.kept_bytes > max_bytes):
            gone.append(next(iter(self._runs.values())))
            self._remove(gone[-1])
        return gone

    def _over(self, place: Place) -> list[Run]:
        """Return the runs that lie where this place does, ascending. Cost: O(log runs)."""
        starts = self._starts.get(place.space, ())
        first = bisect.bisect_right(starts, place.start)
        if first and self._runs[place.space, starts[first - 1]].end > place.start:
            first -= 1
        after = bisect.bisect_left(starts, place.end, first)
        return [self._runs[place.space, start] for start in starts[first:after]]

    def _beside(self, place: Place) -> tuple[Run | None, Run | None]:
        starts = self._starts.get(place.space, ())
        number = bisect.bisect_left(starts, place.start)
        before = self._runs[place.space, starts[number - 1]] if number else None
        if before is not None and before.end != place.start:
            before = None
        return before, self._runs.get((place.space, place.end))

    def _put(self, run: Run) -> None:
        """Lay down a run where nothing lies."""
        starts = self._starts.get(run.space, ())
        number = bisect.bisect_left(starts, run.start)
        self._starts[run.space] = (*starts[:number], run.start, *starts[number:])
        self._runs[run.space, run.start] = run
        self.kept_bytes += run.kept_bytes

    def _remove(self, run: Run) -> None:
        starts = self._starts[run.space]
        number = bisect.bisect_left(starts, run.start)
        if len(starts) == 1:
            del self._starts[run.space]
        else:
            self._starts[run.space] = starts[:number] + starts[number + 1 :]
        del self._runs[run.space, run.start]
        self.kept_bytes -= run.kept_bytes


def _differ(place: Place, start: int, kept: bytes) -> bool:
    """Tell whether a place has other bytes than `kept` where both lie."""
    first, end = max(start, place.start), min(start + len(kept), place.end)
    if first >= end:
        return False
    found = place.content[first - place.start : end - place.start]
    return found != kept[first - start : end - start]


def _mark(place: Place, head: bytes, tail: bytes) -> bytes:
    """Return where a place is, and a hash of its ends: all of it that others are searched with.

    The hash is the interpreter's, keyed anew for each process: nobody finds two that are equal.
    """
    where = _WHERE.pack(place.start & _U64, place.end - place.start & _U32)
    return where + (hash(head + tail) & _U64).to_bytes(8, "big")


def _knows_other(known: bytes, mark: bytes) -> bool:
    where = mark[: _WHERE.size]
    at = known.find(where)
    while at >= 0 and at % _MARK_BYTES:
        at = known.find(where, at + 1)
    return at >= 0 and known[at : at + _MARK_BYTES] != mark


def _join(first: Run, second: Run, edge_bytes: int) -> Run:
    head = (first.head + second.head)[:edge_bytes] if first.size_bytes < edge_bytes else first.head
    tail = (
        (first.tail + second.tail)[-edge_bytes:] if second.size_bytes < edge_bytes else second.tail
    )
    size_bytes = first.size_bytes + second.size_bytes
    known = (first.known + second.known)[-MAX_KNOWN_COUNT * _MARK_BYTES :]
    grown_at = max(first.grown_at, second.grown_at)
    return Run(first.space, first.start, second.end, size_bytes, head, tail, known, grown_at)


def _stretch(pieces: list[bytes]) -> Stretch:
    borders, end = [], 0
    for piece in pieces[:-1]:
        end += len(piece)
        borders.append(end)
    return Stretch(b"".join(pieces), tuple(borders))
