"""The files of an inspection: for each VI the newest captures, in bounded room.

`SERVICE-INSTANCE.pcapng` is being written; when it has half of what the VI may have, it becomes
`SERVICE-INSTANCE.old.pcapng`. Each is a whole capture. When all of them together have more than
the folder may, the oldest file goes. Blocks: on a worker thread, please.
Source: docs/how-to/inspect-and-punish.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.tap import Sight

SUFFIX = ".pcapng"
OLD_SUFFIX = ".old.pcapng"
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class InspectionFiles:
    """One folder.

    Args:
        max_bytes: of all files together.
        make_writer: returns what makes packets of looks, for one file.
    """

    def __init__(
        self, folder: Path, max_bytes: int, make_writer: Callable[[], CaptureWriter]
    ) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._make_writer = make_writer
        self._writers: dict[str, CaptureWriter] = {}
        """Of the files that are being written, by name of the VI."""
        self._sizes: dict[Path, int] | None = None
        """The one that was written to first at the beginning; None: not looked yet."""
        self._total_bytes = 0

    def write(self, name: str, keep_bytes: int, sights: Iterable[Sight]) -> None:
        """Append looks at the chunks of a VI.

        Raises:
            OSError: the disk is full or fails; this look and those behind it are lost.
        """
        sizes = self._known()
        path = self.folder / f"{name}{SUFFIX}"
        half_bytes = min(keep_bytes, self._max_bytes) // 2
        for sight in sights:
            writer = self._writers.get(name)
            data = writer.packets([(sight, 0)]) if writer is not None else b""
            if writer is None or sizes.get(path, 0) + len(data) > half_bytes:
                self._put_aside(name, path, sizes)
                writer = self._make_writer()
                data = writer.beginning() + writer.packets([(sight, 0)])
            self._make_room(len(data), sizes, path)
            self._writers.pop(name, None)  # what is torn is not gone on with
            _append(path, data)
            self._writers[name] = writer
            self._total_bytes += len(data)
            sizes[path] = sizes.pop(path, 0) + len(data)

    def _put_aside(self, name: str, path: Path, sizes: dict[Path, int]) -> None:
        """Have what was written until now take the place of what was put aside before it."""
        if path.exists():
            old = self.folder / f"{name}{OLD_SUFFIX}"
            path.replace(old)
            self._total_bytes -= sizes.pop(old, 0)
            sizes[old] = sizes.pop(path, 0)

    def _make_room(self, size: int, sizes: dict[Path, int], path: Path) -> None:
        for oldest in list(sizes):
            if self._total_bytes + size <= self._max_bytes:
                return
            if oldest != path:
                oldest.unlink(missing_ok=True)
                self._total_bytes -= sizes.pop(oldest)
                self._writers.pop(oldest.name.removesuffix(SUFFIX), None)

    def _known(self) -> dict[Path, int]:
        if self._sizes is None:
            self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            found = [(path, path.stat()) for path in self.folder.glob(f"*{SUFFIX}")]
            found.sort(key=lambda one: one[1].st_mtime_ns)
            self._sizes = {path: stat.st_size for path, stat in found}
            self._total_bytes = sum(self._sizes.values())
        return self._sizes


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _FILE_MODE)
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)
