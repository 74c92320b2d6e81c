"""A file on its way in: `.NAME.TAG.part` and, beside it, the journal of what is safely there.

The journal is lines of a CRC and JSON. A range stands in it only after its data was fsynced, so
after a crash or power cut what it says is true, and the rest is asked for again. A torn line is
skipped. Used in worker threads; one call at a time per file, but `sync` may run beside `write`.
Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packetcloud.host.errors import HostError
from packetcloud.host.file_names import other_names, stored_name
from packetcloud.host.ranges import RangeSet

JOURNAL_FORMAT = "packetcloud-part-1"
HASH_AHEAD_BYTES = 16 << 20
"""Read back and hashed per write job at most, so that the network is not kept waiting."""
_READ_BYTES = 1 << 20
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class DigestMismatchError(HostError):
    """The received bytes are not the sender's; the part was removed."""


@dataclass(frozen=True, slots=True)
class PartLabel:
    """What the journal's first line says of a file."""

    source: bytes
    file_key: bytes
    name: str
    size_bytes: int


class PartFile:
    """The unfinished file, open. `sync_disk` False trusts the page cache (no fsync at all)."""

    def __init__(self, folder: Path, label: PartLabel, tag: str, sync_disk: bool) -> None:
        self.label = label
        self.part_path = folder / f".{label.name}.{tag}.part"
        self.journal_path = folder / f".{label.name}.{tag}.journal"
        self.restored = RangeSet()
        self._folder = folder
        self._sync_disk = sync_disk
        self._sha256 = hashlib.sha256()
        self._hashed_bytes = 0
        self._data = self._journal = -1

    @classmethod
    def create(cls, folder: Path, label: PartLabel, tag: str, sync_disk: bool = True) -> PartFile:
        """Begin a new one. Raises: OSError."""
        part = cls(folder, label, tag, sync_disk)
        try:
            part._open(os.O_CREAT | os.O_EXCL)
            os.ftruncate(part._data, label.size_bytes)
            part._note(
                format=JOURNAL_FORMAT,
                source=label.source.hex(),
                file_key=label.file_key.hex(),
                name=label.name,
                size=label.size_bytes,
            )
        except OSError:
            part.discard()
            raise
        return part

    @classmethod
    def adopt(cls, journal_path: Path, sync_disk: bool = True) -> PartFile:
        """Open one that an earlier process left. Raises: OSError, HostError (not usable)."""
        label, restored, _ = read_journal(journal_path)
        tag = journal_path.name.rsplit(".", 2)[1]
        part = cls(journal_path.parent, label, tag, sync_disk)
        part.restored = restored
        try:
            part._open(0)
            size = os.fstat(part._data).st_size
        except OSError:
            part.close()
            raise
        if size != label.size_bytes:
            part.close()
            raise HostError(f"{part.part_path} has not the size that its journal says")
        return part

    def write(self, pieces: Sequence[tuple[int, memoryview]], have_end: int) -> None:
        """Write (offset, bytes) pieces; `have_end`: how far the file has no gap after them.

        What arrives in order is hashed on the way, the rest is read back when its gap is closed.

        Raises:
            OSError: the disk is full, or worse; any part of the pieces may have been written.
        """
        for offset, data in pieces:
            done = 0
            while done < len(data):
                done += os.pwrite(self._data, data[done:], offset + done)
            if offset == self._hashed_bytes:
                self._sha256.update(data)
                self._hashed_bytes += len(data)
        self._hash_towards(min(have_end, self._hashed_bytes + HASH_AHEAD_BYTES))

    def sync(self, written: RangeSet) -> None:
        """Make `written`, all of it written before, safe, then note it. Raises: OSError."""
        if self._sync_disk:
            os.fdatasync(self._data)
        self._note(have=list(written))

    def finish(self, digest: bytes, overwrite: bool) -> str:
        """Check the whole file and put it in its place; return the name it got.

        Raises:
            DigestMismatchError: it is not what the sender has; nothing of it is left.
            OSError: the disk failed; the part is kept.
        """
        self._hash_towards(self.label.size_bytes)
        if self._sha256.digest() != digest:
            self.discard()
            raise DigestMismatchError("the bytes that arrived are not the bytes that were sent")
        if self._sync_disk:
            os.fsync(self._data)
        size = self.label.size_bytes
        self._note(have=[(0, size)] if size else [], finishing=digest.hex())
        if overwrite:
            self.part_path.replace(self._folder / self.label.name)
            name = self.label.name
        else:
            name = self._take_free_name()
        self.sync_folder()
        return name

    def sync_folder(self) -> None:
        """Make renames and removals in the folder safe."""
        if self._sync_disk:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """Close and remove the part and its journal, as far as they exist."""
        self.close()
        self.part_path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        for descriptor in (self._data, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._journal = -1

    def _open(self, flags: int) -> None:
        self._data = os.open(
            self.part_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666
        )
        append = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._journal = os.open(self.journal_path, append | flags, 0o666)
        end_torn_line(self._journal)

    def _note(self, **record: object) -> None:
        os.write(self._journal, journal_line(record))
        if self._sync_disk:
            os.fdatasync(self._journal)

    def _hash_towards(self, limit: int) -> None:
        while self._hashed_bytes < limit:
            length = min(_READ_BYTES, limit - self._hashed_bytes)
            data = os.pread(self._data, length, self._hashed_bytes)
            if not data:
                raise OSError(errno.EIO, "the unfinished file became shorter")
            self._sha256.update(data)
            self._hashed_bytes += len(data)

    def _take_free_name(self) -> str:
        """Give the file the first free name in one step that cannot overwrite anything."""
        for name in other_names(self.label.name):
            final = self._folder / name
            try:
                os.link(self.part_path, final)
            except FileExistsError:
                if final.is_file() and final.samefile(self.part_path):
                    return name  # an earlier try got this far
                continue
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                try:
                    os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
                except FileExistsError:
                    continue
                self.part_path.replace(final)
            return name
        raise OSError(errno.EEXIST, f"no free name like {self.label.name}")


def read_journal(path: Path) -> tuple[PartLabel, RangeSet, bytes | None]:
    """Return label, safe ranges, and the digest if the file was being finished.

    Raises:
        HostError: the first line is not a journal's.
        OSError: the file cannot be read.
    """
    records = parse_lines(path.read_bytes())
    try:
        first = records[0]
        label = PartLabel(
            bytes.fromhex(first["source"]),
            bytes.fromhex(first["file_key"]),
            str(first["name"]),
            int(first["size"]),
        )
        if first["format"] != JOURNAL_FORMAT:
            raise HostError(f"{path} has format {first['format']!r}, not {JOURNAL_FORMAT}")
        if label.size_bytes < 0 or stored_name(label.name) != label.name:
            raise HostError(f"{path} names no file that could be stored here")
        ranges, digest = RangeSet(), None
        for record in records[1:]:
            for start, end in record.get("have", []):
                if 0 <= start < end <= label.size_bytes:
                    ranges.add(start, end)
            if "finishing" in record:
                digest = bytes.fromhex(record["finishing"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise HostError(f"{path} is not a journal of an unfinished file") from error
    return label, ranges, digest


def journal_line(record: dict[str, object]) -> bytes:
    """Encode one line: 8 hexadecimal digits of CRC-32, a blank, JSON."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """Decode the lines of `data` whose CRC is right; each stands for itself, damaged ones go."""
    records = []
    for line in data.split(b"\n"):
        head, _, text = line.partition(b" ")
        try:
            record = json.loads(text) if int(head, 16) == zlib.crc32(text) else None
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def end_torn_line(descriptor: int) -> None:
    """Begin a new line when the last one was cut off by a crash. Raises: OSError."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
