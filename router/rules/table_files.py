"""The files that a version of the table is made of, how they grow, and how they are loaded.

Segments, the newest last, each less than an eighth of the one before: a small change writes little,
and a question searches few. The numbers of the rules that left since, until they are so many that
the segments are written without them. The compiled patterns. A file is written once; a version
names its files in the store. Source: docs/decisions/0012.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from packetcloud.router.errors import PatternError, SegmentError
from packetcloud.router.rules.answer import Scanner
from packetcloud.router.rules.crowding import crowded
from packetcloud.router.rules.patterns import compile_scanner, load_scanner
from packetcloud.router.rules.rule import InstalledRule, Pattern
from packetcloud.router.rules.segment import Segment, load_segment, open_segment
from packetcloud.router.rules.segment_writer import merge_segments, write_segment
from packetcloud.router.rules.store import Held, StoredFile
from packetcloud.router.rules.table import Table

FOLDER = "tables"
RATIO = 8
"""A segment is merged with the one before unless that has more than so many times its rules."""
MAX_WITHDRAWN_COUNT = 8192
"""More are taken out of the segments: each question looks a number up, and a set of so many is made
in a third of a millisecond."""
PAUSE_S = 0.0005
"""Between two steps of making a table ready. The loop gets the interpreter then; if nothing were
waited for, this thread would mostly have it again before the loop woke."""
_NAME = re.compile(r"[0-9]{12}\.(segment|withdrawn|scanner)(\.new)?")
_HEAD = struct.Struct("<8sI")
_MAGIC = {"withdrawn": b"PCGONE\x00\x01", "scanner": b"PCSCAN\x00\x01"}


class Kind(StrEnum):
    """What a file holds."""

    SEGMENT = "segment"
    WITHDRAWN = "withdrawn"
    SCANNER = "scanner"


class TableFiles:
    """Writes the files of the next version; the caller names them in the store, and removes others.

    Args:
        folder: that of the rules.
        secret: of the segments.
        next_name: returns a number that no file of the folder has.
    """

    def __init__(self, folder: Path, secret: bytes, next_name: Callable[[], int]) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._secret = secret
        self._next_name = next_name

    def write_rules(
        self, rules: Iterable[InstalledRule], pattern_id: Callable[[Pattern], int]
    ) -> StoredFile:
        """Write a segment of rules as they come."""
        path = self._new_path(Kind.SEGMENT)
        count = 0

        def counted() -> Iterable[InstalledRule]:
            nonlocal count
            for rule in rules:
                count += 1
                yield rule

        write_segment(path, counted(), pattern_id, self._secret)
        return StoredFile(Kind.SEGMENT, path.name, count)

    def without(self, new: StoredFile, numbers: Collection[int]) -> StoredFile:
        """Write a segment again without some of its rules."""
        (less,) = self._merged([new], {*numbers})
        return less

    def write_scanner(self, patterns: Sequence[Pattern | None]) -> list[StoredFile]:
        """Compile the patterns, each in its place; no file for none.

        Raises:
            PatternError: they cannot be compiled together.
        """
        if not any(patterns):
            return []
        path = self._new_path(Kind.SCANNER)
        _write_whole(path, Kind.SCANNER, compile_scanner(patterns).to_bytes())
        return [StoredFile(Kind.SCANNER, path.name, 0)]

    def grown(
        self, files: Sequence[StoredFile], new: StoredFile | None, gone: Iterable[int]
    ) -> list[StoredFile]:
        """Return the segments and withdrawn numbers after a change."""
        segments = [one for one in files if one.kind == Kind.SEGMENT]
        withdrawn = self._withdrawn(files) | {*gone}
        if new is not None:
            segments.append(new)
        if len(withdrawn) > MAX_WITHDRAWN_COUNT:
            segments, withdrawn = self._merged(segments, withdrawn), set()
        while len(segments) > 1 and segments[-2].rules <= RATIO * segments[-1].rules:
            # The numbers stay withdrawn: other segments may have them.
            segments[-2:] = self._merged(segments[-2:], withdrawn)
        if not segments:
            return []
        return segments + self._write_withdrawn(withdrawn)

    def crowded(
        self,
        files: Sequence[StoredFile],
        new: StoredFile,
        gone: Iterable[int],
        held: Callable[[Sequence[int]], Held] | None,
    ) -> dict[int, str]:
        """Return the numbers of the new rules whose key too many have then; see `crowding`."""
        withdrawn = {*gone}
        opened: list[Segment] = []
        try:
            for one in files:
                if one.kind == Kind.SEGMENT:
                    opened.append(open_segment(self._folder / one.name))
                elif one.kind == Kind.WITHDRAWN:
                    withdrawn |= load_withdrawn(self._folder / one.name)
            opened.append(open_segment(self._folder / new.name))
            return crowded(opened[-1], opened[:-1], withdrawn, held)
        finally:
            for segment in opened:
                segment.close()

    def _withdrawn(self, files: Sequence[StoredFile]) -> set[int]:
        numbers: set[int] = set()
        for one in files:
            if one.kind == Kind.WITHDRAWN:
                numbers |= load_withdrawn(self._folder / one.name)
        return numbers

    def _merged(self, files: Sequence[StoredFile], withdrawn: set[int]) -> list[StoredFile]:
        segments = [load_segment(self._folder / one.name) for one in files]
        try:
            path = self._new_path(Kind.SEGMENT)
            merge_segments(path, segments, withdrawn)
        finally:
            for segment in segments:
                segment.close()
        count = max(0, sum(one.rules for one in files) - len(withdrawn))
        return [StoredFile(Kind.SEGMENT, path.name, count)]

    def _write_withdrawn(self, withdrawn: set[int]) -> list[StoredFile]:
        if not withdrawn:
            return []
        path = self._new_path(Kind.WITHDRAWN)
        _write_whole(path, Kind.WITHDRAWN, array("I", sorted(withdrawn)).tobytes())
        return [StoredFile(Kind.WITHDRAWN, path.name, len(withdrawn))]

    def check(self, files: Sequence[StoredFile]) -> None:
        """Read all files as the data plane will.

        Raises:
            SegmentError, PatternError, OSError: one is missing, damaged, or of another version.
        """
        for segment in _load(self._folder, files, None).segments.values():
            segment.close()

    def remove_others(self, kept: Iterable[str]) -> None:
        """Remove the files that are not `kept`; what is no file of a table stays."""
        names = {*kept}
        for path in self._folder.iterdir():
            if path.name not in names and _NAME.fullmatch(path.name):
                path.unlink()

    def _new_path(self, kind: Kind) -> Path:
        return self._folder / f"{self._next_name():012d}.{kind}"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTable:
    """A table, the segments that it asks by name of their file, and its scanner with the name."""

    table: Table
    segments: dict[str, Segment]
    scanner: tuple[str, Scanner] | None

    def unused_by(self, other: LoadedTable) -> list[Segment]:
        """Return its segments that the other table does not ask."""
        return [one for name, one in self.segments.items() if name not in other.segments]


def load_table(
    folder: Path,
    version: int,
    files: Sequence[StoredFile],
    before: LoadedTable | None,
    now_s: float,
) -> LoadedTable:
    """Load a version; what an earlier one has of it is shared. For a thread beside the loop.

    Raises:
        SegmentError, PatternError, OSError: a file is missing, damaged, or of another version.
    """
    parts = _load(folder / FOLDER, files, before)
    scanner = parts.scanner[1] if parts.scanner is not None else None
    table = Table(version, [*parts.segments.values()], parts.withdrawn, scanner)
    for _ in table.prepare(now_s):
        time.sleep(PAUSE_S)
    return LoadedTable(table, parts.segments, parts.scanner)


@dataclass(slots=True)
class _Parts:
    segments: dict[str, Segment]
    withdrawn: frozenset[int] = frozenset()
    scanner: tuple[str, Scanner] | None = None


def _load(folder: Path, files: Sequence[StoredFile], before: LoadedTable | None) -> _Parts:
    parts = _Parts({})
    known = before.segments if before is not None else {}
    known_scanner = before.scanner if before is not None else None
    try:
        for one in files:
            path = folder / one.name
            if one.kind == Kind.SEGMENT:
                parts.segments[one.name] = known.get(one.name) or load_segment(path)
            elif one.kind == Kind.WITHDRAWN:
                parts.withdrawn = load_withdrawn(path)
            elif known_scanner is not None and known_scanner[0] == one.name:
                parts.scanner = known_scanner
            else:
                parts.scanner = one.name, load_scanner(_read_whole(path, Kind.SCANNER))
    except (SegmentError, PatternError, OSError):
        for name, segment in parts.segments.items():
            if name not in known:
                segment.close()
        raise
    return parts


def compound_numbers(folder: Path, files: Sequence[StoredFile], limit: int) -> list[int]:
    """Return the numbers of the rules that name values of several fields, ascending.

    Of some that have left, too. For the keeper: see `Segment.compound_numbers`.

    Args:
        folder: that of the rules.
        limit: so many at the most, the smallest.

    Raises:
        SegmentError, OSError: a file is damaged, or gone since another version came.
    """
    parts = [np.empty(0, np.uint32)]
    for one in files:
        if one.kind == Kind.SEGMENT:
            segment = open_segment(folder / FOLDER / one.name)
            try:
                parts.append(segment.compound_numbers())
            finally:
                segment.close()
    numbers: list[int] = np.unique(np.concatenate(parts))[:limit].tolist()
    return numbers


def load_withdrawn(path: Path) -> frozenset[int]:
    """Return the numbers in a file. Raises: SegmentError, OSError."""
    numbers = array("I")
    numbers.frombytes(_read_whole(path, Kind.WITHDRAWN))
    return frozenset(numbers)


def _write_whole(path: Path, kind: Kind, data: bytes) -> None:
    """Write a file that is whole and on the disk when this returns."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC[kind], zlib.crc32(data)))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_whole(path: Path, kind: Kind) -> bytes:
    data = path.read_bytes()
    if len(data) >= _HEAD.size:
        magic, crc = _HEAD.unpack_from(data)
        content = data[_HEAD.size :]
        if magic == _MAGIC[kind] and zlib.crc32(content) == crc:
            return content
    raise SegmentError(f"{path}: damaged, or of another version")
