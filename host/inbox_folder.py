"""The folder that files are received into: one receiver at a time, its unfinished and done files.

`.packetcloud-received` is the lock and the list of what was completed, so that a sender whose last
answer was lost is told "complete" instead of sending the file again. Used in worker threads.
Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packetcloud.host.errors import HostError
from packetcloud.host.file_names import other_names
from packetcloud.host.part_file import (
    PartFile,
    PartLabel,
    end_torn_line,
    journal_line,
    parse_lines,
    read_journal,
)

RECEIVED_NAME = ".packetcloud-received"
MAX_REMEMBERED_COUNT = 4096
"""Completed files remembered, about 1 MiB on disk; the list is rewritten at twice that."""
PART_KEEP_S = 7 * 86_400.0
"""An unfinished file that nobody touched for a week is removed when a receiver starts."""
MAX_PARTS_COUNT = 256
"""Unfinished files kept in the folder; above, new ones are refused until some are finished."""
FREE_MARGIN_BYTES = 16 << 20
"""Disk space that a new file must leave free: journals and logs need some."""


@dataclass(frozen=True, slots=True)
class CompletedFile:
    """A file that is in its place."""

    source: bytes
    transfer_id: bytes
    file_key: bytes
    name: str
    size_bytes: int
    digest: bytes


class FolderError(HostError):
    """The folder cannot take this file; the text begins with a word for the sender."""


class InboxFolder:
    """An opened folder. Its methods do disk I/O; call them from worker threads, one at a time."""

    def __init__(
        self,
        path: Path,
        *,
        sync_disk: bool = True,
        free_bytes: Callable[[Path], int] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.sync_disk = sync_disk
        self._free_bytes = free_bytes or _free_bytes
        self._wall_clock = wall_clock
        self._parts: dict[tuple[bytes, bytes], list[Path]] = {}
        self._completed: OrderedDict[tuple[bytes, bytes], CompletedFile] = OrderedDict()
        self.forgotten_count = 0
        """Names of completed files, two for each, that are no longer remembered."""
        self._lines_count = 0
        self._descriptor = -1

    def open(self) -> None:
        """Lock the folder and find out what an earlier receiver left.

        Raises:
            HostError: not a folder, not writable, or another receiver uses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path / RECEIVED_NAME, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load_completed()
            self._find_parts()
        except BlockingIOError:
            self.close()
            raise HostError(
                f"another receiver uses {self.path}; give each its own folder"
            ) from None
        except OSError as error:
            self.close()
            raise HostError(f"cannot receive into {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def completed(self, source: bytes, name: bytes) -> CompletedFile | None:
        """Return the completed file with this transfer id or file key, if it is still there."""
        found = self._completed.get((source, name))
        if found is None:
            return None
        try:
            size = (self.path / found.name).stat().st_size
        except OSError:
            return None
        return found if size == found.size_bytes else None

    def begin(self, label: PartLabel, resume: bool) -> PartFile:
        """Open the part for an offered file: what an earlier run left, if that is wanted, or anew.

        Raises:
            FolderError: no room on the disk, or too many unfinished files.
        """
        key = (label.source, label.file_key)
        left = self._parts.pop(key, [])
        try:
            if resume:
                part = self._adopt(left, label)
                if part is not None:
                    return part
            for path in left:
                _remove_part(path)
            if sum(map(len, self._parts.values())) >= MAX_PARTS_COUNT:
                raise FolderError(f"busy: {MAX_PARTS_COUNT} files are unfinished here already")
            self.check_room(label.size_bytes)
            return PartFile.create(self.path, label, secrets.token_hex(6), self.sync_disk)
        except OSError as error:
            kept = [path for path in left if path.exists()]
            if kept:
                self._parts[key] = kept  # to be gone on with at the next offer
            raise FolderError(words_for(error)) from error

    def leave(self, part: PartFile) -> None:
        """Close `part` unfinished, to be resumed."""
        part.close()
        key = (part.label.source, part.label.file_key)
        self._parts.setdefault(key, []).append(part.journal_path)

    def check_room(self, needed_bytes: int) -> None:
        """Raises: FolderError, unless `needed_bytes` and some more are free."""
        free = self._free_bytes(self.path)
        if needed_bytes + FREE_MARGIN_BYTES > free:
            raise FolderError(
                f"disk_full: {needed_bytes} bytes, and {FREE_MARGIN_BYTES} that stay free, "
                f"are more than the {free} that are free"
            )

    def complete(self, part: PartFile, done: CompletedFile) -> None:
        """Remember `done`, then remove what is left of its part. Raises: OSError."""
        self._remember(done)
        part.discard()

    def _adopt(self, left: list[Path], label: PartLabel) -> PartFile | None:
        for path in left:
            try:
                part = PartFile.adopt(path, self.sync_disk)
            except (FileNotFoundError, HostError):
                # Nothing to go on with. Any other error may pass, and the part must outlast it.
                _remove_part(path)
                continue
            if part.label.size_bytes != label.size_bytes:
                part.close()
                continue
            for other in left:
                if other != path:
                    _remove_part(other)
            try:
                self.check_room(label.size_bytes - part.restored.total_bytes)
            except FolderError:
                self.leave(part)
                raise
            return part
        return None

    def _find_parts(self) -> None:
        oldest_s = self._wall_clock() - PART_KEEP_S
        for path in self.path.glob(".*.journal"):
            try:
                label, _, digest = read_journal(path)
                age_is_fine = path.stat().st_mtime >= oldest_s
            except HostError:
                continue  # not ours
            if digest is not None and self._was_finished(path, label, digest):
                continue
            if not age_is_fine or not path.with_suffix(".part").exists():
                _remove_part(path)
                continue
            self._parts.setdefault((label.source, label.file_key), []).append(path)

    def _was_finished(self, path: Path, label: PartLabel, digest: bytes) -> bool:
        """A crash came between moving the file and noting it: note it now."""
        part = path.with_suffix(".part")
        for name in other_names(label.name):
            final = self.path / name
            if not final.is_file():
                return False
            same = final.samefile(part) if part.exists() else False
            moved = not part.exists() and final.stat().st_size == label.size_bytes
            if same or moved:
                key = label.file_key
                self._remember(
                    CompletedFile(label.source, key, key, name, label.size_bytes, digest)
                )
                _remove_part(path)
                return True
        return False

    def _load_completed(self) -> None:
        records = parse_lines((self.path / RECEIVED_NAME).read_bytes())
        self._lines_count = len(records)
        for record in records:
            try:
                done = CompletedFile(
                    bytes.fromhex(record["source"]),
                    bytes.fromhex(record["transfer_id"]),
                    bytes.fromhex(record["file_key"]),
                    str(record["name"]),
                    int(record["size"]),
                    bytes.fromhex(record["sha256"]),
                )
            except (KeyError, TypeError, ValueError):
                continue
            self._index(done)
        end_torn_line(self._descriptor)

    def _remember(self, done: CompletedFile) -> None:
        self._index(done)
        if self._lines_count >= 2 * MAX_REMEMBERED_COUNT:
            unique = list({id(entry): entry for entry in self._completed.values()}.values())
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, b"".join(map(_completed_line, unique)))
            self._lines_count = len(unique)
        else:
            os.write(self._descriptor, _completed_line(done))
            self._lines_count += 1
        if self.sync_disk:
            os.fdatasync(self._descriptor)

    def _index(self, done: CompletedFile) -> None:
        self._completed[done.source, done.transfer_id] = done
        self._completed[done.source, done.file_key] = done
        while len(self._completed) > 2 * MAX_REMEMBERED_COUNT:
            self._completed.popitem(last=False)
            self.forgotten_count += 1


def words_for(error: OSError) -> str:
    """Return a disk error as the words that the sender is told."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full: the receiver's disk is full"
    if error.errno == errno.EFBIG:
        return "too_large: the receiver's file system takes no file of that size"
    return f"cannot_store: {error.strerror or error}"


def _completed_line(done: CompletedFile) -> bytes:
    return journal_line(
        {
            "source": done.source.hex(),
            "transfer_id": done.transfer_id.hex(),
            "file_key": done.file_key.hex(),
            "name": done.name,
            "size": done.size_bytes,
            "sha256": done.digest.hex(),
        }
    )


def _remove_part(journal_path: Path) -> None:
    journal_path.with_suffix(".part").unlink(missing_ok=True)
    journal_path.unlink(missing_ok=True)


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
