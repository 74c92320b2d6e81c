"""Chunks on disk: records in segment files that only grow, and a list of the removed.

A segment is `chunks-%016x`, of records as `chunk_record` has them. `removed` lists the ids of those
that are done with; a segment without a live record is deleted, and one in which little lives is
written anew elsewhere. An id is used once and stands for one chunk for ever.

What the calls promise about a power cut: after `sync`, every record put before is there, and after
`sync_removed` none that was removed before. In between a removal may be forgotten, so a chunk may
be found that had been handed on. Never is an altered one returned.
Source: docs/decisions/0010.
"""

from __future__ import annotations

import errno
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from packetcloud.chunk.header import MAX_HEADER_BYTES
from packetcloud.chunk.hop.api import Buffer
from packetcloud.router.chunk_record import (
    CHECKSUM_BYTES,
    HEAD_BYTES,
    MAGIC,
    NUMBERS_COUNT,
    REMOVAL,
    Found,
    Place,
    Record,
    checksum,
    encode_head,
    encode_removal,
    is_right,
    place_at,
)
from packetcloud.router.errors import DamagedRecordError
from packetcloud.router.storage import Storage

KEY_NAME = "key"
"""32 random bytes and their checksum."""
KEY_BYTES = 32
REMOVED_NAME = "removed"
RESERVE_NAME = "reserve"
_PREFIX = "chunks-"
_SEGMENT_NAME = re.compile(_PREFIX + "[0-9a-f]{16}")
SEGMENT_BYTES = 8 << 20
"""A segment is full from here on: eight full chunks, written anew in some 10 ms."""
DEAD_SEGMENTS_COUNT = 4
"""So much that is dead may lie around, and half as much as lives, before segments are cleared."""
CLEARED_SEGMENTS_COUNT = 2
"""So much is cleared at once: more than a group of puts writes, so that the files do not grow from
here; and not all there is, since answers wait for it."""
REMOVED_SLACK_BYTES = 1 << 20
"""The list of the removed is written anew when it is longer by this than what it must say."""


@dataclass(slots=True)
class _Segment:
    size: int = 0
    live_bytes: int = 0
    live: set[int] = field(default_factory=set)
    """Ids of the records that count here."""
    dead: set[int] = field(default_factory=set)
    """Ids of removed records whose bytes are still here."""
    is_stuck: bool = False
    """It has a record that cannot be read, and so not be moved."""

    @property
    def dead_bytes(self) -> int:
        return self.size - self.live_bytes


class ChunkLog:
    """The records of one folder.

    Args:
        reserve_bytes: a file of this size is there to be given up on a full disk, so that removals
            can still be noted.
        new_key: makes the key of a new folder.
    """

    def __init__(
        self,
        storage: Storage,
        reserve_bytes: int,
        new_key: Callable[[], bytes] = secrets.token_bytes,
    ) -> None:
        self._storage = storage
        self._reserve_bytes = reserve_bytes
        self._new_key = new_key
        self._key = b""
        self._places: dict[int, Place] = {}
        self._segments: dict[str, _Segment] = {}
        self._active: str | None = None
        self._unsynced: dict[str, None] = {}
        self._next_segment = 0
        self._highest_number = 0
        self._removed_bytes = 0
        self._is_torn = False
        self._has_unsynced_removals = False
        self.damaged_count = 0
        """Records, or stretches without any, that did not match their checksums."""
        self.has_reserve = False

    # --- opening --------------------------------------------------------------------------------

    def open(self) -> list[Found]:
        """Read everything; return the live records by id. O(bytes on disk).

        Raises:
            OSError: the folder cannot be read or written, or has lost its key.
        """
        names = self._storage.names()
        self._key = self._kept_key(names)
        removed = self._read_removed() if REMOVED_NAME in names else set()
        self._highest_number = max(removed, default=0)
        heads: dict[int, bytes] = {}
        for name in filter(_is_segment, sorted(names)):
            self._next_segment = max(self._next_segment, int(name[len(_PREFIX) :], 16) + 1)
            data = self._storage.read(name, 0, self._storage.size(name))
            self._segments[name] = _Segment(len(data))
            self._unsynced[name] = None  # a killed process may have written and not synced
            for place, content in self._scan(name, data):
                number = place.record.number
                self._highest_number = max(self._highest_number, number)
                if number in removed or number in self._places:
                    self._segments[name].dead.add(number)
                    continue
                self._note(place)
                heads[number] = content[:MAX_HEADER_BYTES]
        self._clear_empty()
        self.sync()
        try:
            self._rewrite_removed()
            self._keep_reserve()
        except OSError:
            # A full disk keeps nobody from handing on what is on it: `tidy` tries again, and says.
            self._is_torn = True
        return [
            Found(place.record, heads[number], place.content_bytes)
            for number, place in sorted(self._places.items())
        ]

    def _kept_key(self, names: Sequence[str]) -> bytes:
        if KEY_NAME in names:
            data = self._storage.read(KEY_NAME, 0, KEY_BYTES + CHECKSUM_BYTES)
            if (
                len(data) == KEY_BYTES + CHECKSUM_BYTES
                and checksum(data[:KEY_BYTES]) == data[KEY_BYTES:]
            ):
                return data[:KEY_BYTES]
        elif not any(map(_is_segment, names)):
            key = self._new_key()
            self._storage.replace(KEY_NAME, key + checksum(key))
            return key
        text = "its file 'key' is damaged or gone, and the chunks beside it cannot be read without"
        raise OSError(errno.EBADMSG, text)

    def _scan(self, name: str, data: bytes) -> Iterator[tuple[Place, bytes]]:
        at = 0
        while 0 <= at < len(data):
            place = place_at(self._key, name, data, at)
            if place is None:
                # Torn or damaged: on to whatever looks like the next head.
                self.damaged_count += 1
                at = data.find(MAGIC, at + 1)
                continue
            if is_right(data, at, place):
                yield place, data[at + HEAD_BYTES + place.names_bytes : at + place.size]
            else:
                self.damaged_count += 1
            at += place.size

    def _read_removed(self) -> set[int]:
        data = self._storage.read(REMOVED_NAME, 0, self._storage.size(REMOVED_NAME))
        removed = set()
        for at in range(0, len(data) - REMOVAL.size + 1, REMOVAL.size):
            number, crc = REMOVAL.unpack_from(data, at)
            if crc == zlib.crc32(data[at : at + 8]):
                removed.add(number)
            else:
                self.damaged_count += 1
        return removed

    # --- changing -------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        """An id above that of every record, live or removed, that was ever seen here.

        Who used one again that is removed, and still on disk, would lose that chunk at a restart.
        """
        return self._highest_number + 1

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files."""
        reserve = self._reserve_bytes if self.has_reserve else 0
        return sum(one.size for one in self._segments.values()) + self._removed_bytes + reserve

    @property
    def live_bytes(self) -> int:
        return sum(one.live_bytes for one in self._segments.values())

    def put(self, record: Record, pieces: Sequence[Buffer]) -> None:
        """Write a record. It counts from now on, and survives a power cut after `sync`.

        Raises:
            OSError: it could not be written; nothing was changed.
        """
        if record.number >= NUMBERS_COUNT:
            raise OSError(errno.EOVERFLOW, "no record numbers are left; is the clock right?")
        names = record.ingress + b"".join(record.executed)
        crc = zlib.crc32(names)
        size = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            size += len(piece)
        head = encode_head(self._key, record, size, len(names), crc)
        segment = self._segment_for(HEAD_BYTES + len(names) + size)
        offset = self._segments[segment].size
        try:
            self._storage.append(segment, [head, names, *pieces])
        except OSError:
            # Whatever of it was written is no record: nothing more goes behind it.
            self._active = None
            self._segments[segment].size = self._size_of(segment, offset)
            raise
        place = Place(segment, offset, record, len(names), size)
        self._segments[segment].size += place.size
        self._note(place)
        self._unsynced[segment] = None

    def sync(self) -> None:
        """Return when all records survive a power cut.

        Raises:
            OSError: none that was put since the last sync may be relied on.
        """
        for name in list(self._unsynced):
            try:
                self._storage.sync(name)
            except OSError:
                # The kernel may have dropped the pages: this file is not written to any more.
                self._active = None
                raise
            del self._unsynced[name]

    def read(self, number: int) -> bytes:
        """Return the chunk's bytes.

        Raises:
            DamagedRecordError: they are not what was written.
            OSError: they cannot be read.
        """
        place = self._places[number]
        data = self._storage.read(place.segment, place.offset, place.size)
        found = place_at(self._key, place.segment, data, 0)
        if found is None or found.record != place.record or not is_right(data, 0, place):
            self.damaged_count += 1
            raise DamagedRecordError(f"record {number} in {place.segment} is damaged")
        return data[HEAD_BYTES + place.names_bytes :]

    def remove(self, numbers: Iterable[int]) -> None:
        """Note that records are done with; unknown ones are ignored.

        Raises:
            OSError: it could not be noted: they are gone from here, but may be found after a
                restart.
        """
        noted = []
        for number in numbers:
            place = self._places.pop(number, None)
            if place is None:
                continue
            self._drop(place)
            noted.append(number)
        if not noted:
            return
        data = b"".join(map(encode_removal, noted))
        try:
            if self._is_torn:
                self._rewrite_removed()
            else:
                self._storage.append(REMOVED_NAME, [data])
                self._removed_bytes += len(data)
                self._has_unsynced_removals = True
        except OSError:
            self._is_torn = True  # a part of it may stand there, and what follows would not count
            if not self.has_reserve:
                raise
            self._give_up_reserve()
            self._rewrite_removed()

    def sync_removed(self) -> None:
        """Return when no record that was removed will be found again.

        Raises:
            OSError: one may be, after a power cut.
        """
        if self._is_torn:
            self._rewrite_removed()
        elif self._has_unsynced_removals:
            try:
                self._storage.sync(REMOVED_NAME)
            except OSError:
                self._is_torn = True  # the kernel may have dropped the pages
                raise
            self._has_unsynced_removals = False

    def tidy(self) -> None:
        """Delete what holds nothing, write anew where little lives, keep the reserve.

        Raises:
            OSError: what could not be done is tried again the next time.
        """
        self._clear_empty()
        self._clear_sparse()
        if (
            self._is_torn
            or self._removed_bytes > REMOVED_SLACK_BYTES + 2 * self._needed_removals_bytes
        ):
            self._rewrite_removed()
        self._keep_reserve()

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _needed_removals_bytes(self) -> int:
        return REMOVAL.size * sum(len(one.dead) for one in self._segments.values())

    def _note(self, place: Place) -> None:
        self._places[place.record.number] = place
        self._highest_number = max(self._highest_number, place.record.number)
        segment = self._segments[place.segment]
        segment.live.add(place.record.number)
        segment.live_bytes += place.size

    def _segment_for(self, size: int) -> str:
        active = self._active
        if active is not None and self._segments[active].size + size <= SEGMENT_BYTES:
            return active
        name = f"{_PREFIX}{self._next_segment:016x}"
        self._next_segment += 1
        self._segments[name] = _Segment()
        self._active = name
        return name

    def _size_of(self, name: str, known: int) -> int:
        try:
            return self._storage.size(name)
        except OSError:
            return known

    def _clear_empty(self) -> None:
        for name, segment in list(self._segments.items()):
            if not segment.live and (name != self._active or segment.size >= SEGMENT_BYTES):
                self._storage.delete(name)
                # Only when it is gone for good may its removals be forgotten.
                del self._segments[name]
                self._unsynced.pop(name, None)
                if name == self._active:
                    self._active = None

    def _clear_sparse(self) -> None:
        """Evacuate the segments with the most dead bytes while too many are dead."""
        freed_bytes = 0
        while freed_bytes < CLEARED_SEGMENTS_COUNT * SEGMENT_BYTES:
            dead_bytes = sum(one.dead_bytes for one in self._segments.values())
            if dead_bytes <= DEAD_SEGMENTS_COUNT * SEGMENT_BYTES + self.live_bytes // 2:
                return
            others = [
                name
                for name, one in self._segments.items()
                if name != self._active and not one.is_stuck and one.dead_bytes
            ]
            if not others:
                return
            freed_bytes += self._evacuate(
                max(others, key=lambda one: self._segments[one].dead_bytes)
            )

    def _evacuate(self, name: str) -> int:
        """Copy what lives in a segment, sync it, delete the old one; return the bytes set free.

        Raises:
            OSError: nothing has moved.
        """
        segment = self._segments[name]
        moved: list[Place] = []
        try:
            for number in sorted(segment.live):
                place = self._places[number]
                try:
                    content = self.read(number)
                except (OSError, DamagedRecordError):
                    segment.is_stuck = True  # whoever asks for it is told
                    continue
                self.put(place.record, [content])
                moved.append(place)
            self.sync()
        except OSError:
            # What had been synced still lies where it lay, and counts there.
            for place in moved:
                self._drop(self._places[place.record.number])
                self._places[place.record.number] = place
            raise
        for place in moved:
            self._drop(place)
        if segment.live:
            return 0
        freed_bytes = segment.size - sum(place.size for place in moved)
        self._clear_empty()
        return freed_bytes

    def _drop(self, place: Place) -> None:
        """Count a record as dead where it lies."""
        segment = self._segments[place.segment]
        segment.live.discard(place.record.number)
        segment.live_bytes -= place.size
        segment.dead.add(place.record.number)

    def _rewrite_removed(self) -> None:
        numbers = set[int]().union(*(one.dead for one in self._segments.values()))
        data = b"".join(map(encode_removal, sorted(numbers - self._places.keys())))
        self._storage.replace(REMOVED_NAME, data)
        self._removed_bytes = len(data)
        self._is_torn = self._has_unsynced_removals = False

    def _keep_reserve(self) -> None:
        if not self.has_reserve and self._reserve_bytes:
            self._storage.replace(RESERVE_NAME, b"\xff" * self._reserve_bytes)
            self.has_reserve = True

    def _give_up_reserve(self) -> None:
        self._storage.delete(RESERVE_NAME)
        self.has_reserve = False


def _is_segment(name: str) -> bool:
    """Tell our files from those that somebody put beside them, such as a copy `chunks-….bak`."""
    return _SEGMENT_NAME.fullmatch(name) is not None
