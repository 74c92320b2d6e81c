"""Shell: where lines of alerts go: a file that is turned over, the log, a queue for a collector.

No line ever holds up or fails a chunk: what finds no room is counted. The file has the size that is
asked for at most, and one older one beside it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Hashable
from pathlib import Path

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.ids.shares import AlertShares

MAX_QUEUED_BYTES = 1 << 20
"""Lines that wait for a chunk with which they can go to the collector."""
MOST_SUPPRESSED_COUNT = 8
"""Signatures and sources that a line of counters names."""


class LineFile:
    """A file to which lines are added; at `max_bytes` it becomes FILE.1 and a new one is begun.

    Raises:
        ServiceConfigError: it cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int, log: logging.Logger) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._log = log
        self._size_bytes = 0
        self.lost_count = 0
        self.turned_count = 0
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise ServiceConfigError(f"alert_file {path}: {error.strerror}") from error

    def write(self, line: bytes) -> None:
        """Add a line, or count that it was lost."""
        data = line + b"\n"
        try:
            if self._size_bytes and self._size_bytes + len(data) > self._max_bytes:
                self._turn()
            self._size_bytes += os.write(self._descriptor, data)
        except OSError as error:
            if not self.lost_count:
                self._log.error("alert_file %s: %s; lines are lost", self._path, error.strerror)
            self.lost_count += 1

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        self._size_bytes = os.fstat(descriptor).st_size
        return descriptor

    def _turn(self) -> None:
        """Begin a new file, unless another VI that writes here has done so."""
        status = os.fstat(self._descriptor)
        try:
            is_ours = os.path.samestat(status, self._path.stat())
        except FileNotFoundError:
            is_ours = False
        if is_ours:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self.turned_count += 1
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor


class Outlet:
    """Takes lines, within a rate, and gives them to whoever is to have them.

    Args:
        file: None: there is none.
        logs: write them to the service's log.
        collects: keep them for a collector, until `take` asks for them.
        lines_per_s: of alerts; as many may come at once.
    """

    def __init__(
        self,
        file: LineFile | None,
        log: logging.Logger,
        *,
        logs: bool,
        collects: bool,
        lines_per_s: int,
    ) -> None:
        self._file = file
        self._log = log
        self._logs = logs
        self._collects = collects
        self.shares = AlertShares(lines_per_s)
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self.counts: Counter[str] = Counter()
        """`alerts`, `alerts_suppressed` by the shares, `lines_not_collected` for want of room."""

    @property
    def has_queued(self) -> bool:
        return bool(self._queue)

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    def alert(self, signature: Hashable, source: bytes, now: float) -> int | None:
        """Tell whether one more alert is within its share, and count it either way.

        Returns: how many of the same were suppressed since the last one; None: so is this one.
        """
        untold_count = self.shares.take(signature, source, now)
        self.counts["alerts_suppressed" if untold_count is None else "alerts"] += 1
        return untold_count

    def most_suppressed(self) -> list[dict[str, object]]:
        """Return what was suppressed most since one of the same was told, as JSON values."""
        return [
            {"signature": _word(signature), "src_guid": source.hex(), "count": count}
            for signature, source, count in self.shares.untold(MOST_SUPPRESSED_COUNT)
        ]

    def write(self, line: bytes) -> None:
        """Give a line to whoever is to have it."""
        if self._file is not None:
            self._file.write(line)
        if self._logs:
            self._log.info("%s", line.decode("ascii"))
        if self._collects:
            if self._queued_bytes + len(line) + 1 > MAX_QUEUED_BYTES:
                self.counts["lines_not_collected"] += 1
                return
            self._queue.append(line)
            self._queued_bytes += len(line) + 1

    def take(self, room_bytes: int) -> bytes:
        """Return lines for the collector that have room in one payload, each with its end."""
        lines: list[bytes] = []
        while self._queue and len(self._queue[0]) + 1 <= room_bytes:
            line = self._queue.popleft()
            room_bytes -= len(line) + 1
            self._queued_bytes -= len(line) + 1
            lines.append(line + b"\n")
        if not lines:
            self._queue.rotate(-1)  # a long line must not keep the others back
        return b"".join(lines)

    def figures(self) -> dict[str, int]:
        """Return the counters."""
        found = {name: self.counts[name] for name in _COUNTED}
        if self._file is not None:
            found |= {"lines_lost": self._file.lost_count, "files_turned": self._file.turned_count}
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _word(signature: Hashable) -> str:
    """Return `gid:sid` of a rule, or the name of an event."""
    return ":".join(map(str, signature)) if isinstance(signature, tuple) else str(signature)


_COUNTED = ("alerts", "alerts_suppressed", "lines_not_collected")
