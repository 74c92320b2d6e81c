"""Writes the sample of chunks to and from VIs to files, as a part of the daemon.

Source: docs/how-to/inspect-and-punish.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from packetcloud.chunk.open_frames import Place
from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.cloudlet_metrics import TableFigures
from packetcloud.router.inspection import Inspected, Inspection
from packetcloud.router.inspection_files import InspectionFiles
from packetcloud.router.tap import Sight

FOLDER_NAME = "inspection"
SESSION_BITS = 64
_log = logging.getLogger("packetcloud.router")


class InspectionService:
    """The files of one router.

    Args:
        inspection: what there is to write; None: this router takes no table.
        folder: where the table is.
        place: returns where the router listens; None: it does not.
    """

    def __init__(
        self,
        inspection: Inspection | None,
        folder: Path | None,
        max_bytes: int,
        router_name: str,
        place: Callable[[], Place | None],
        figures: TableFigures,
    ) -> None:
        self._figures = figures
        self._inspection = inspection
        self._event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False
        self._writing = asyncio.Lock()
        self._files = InspectionFiles(
            (folder or Path()) / FOLDER_NAME,
            max_bytes,
            lambda: CaptureWriter(router_name, place(), secrets.randbits(SESSION_BITS)),
        )

    def start(self) -> None:
        """Begin to write what comes."""
        if self._inspection is not None:
            self._inspection.wake = self._event.set
            self._task = asyncio.get_event_loop().create_task(self._write_all())

    async def stop(self) -> None:
        """Write what is there, and end."""
        if self._task is None or self._inspection is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._write(self._inspection.take())

    async def _write_all(self) -> None:
        assert self._inspection is not None, "it is not started without"
        while True:
            await self._event.wait()
            self._event.clear()
            # Shielded: what is taken is written, also when this task is ended meanwhile.
            await asyncio.shield(self._write(self._inspection.take()))

    async def _write(self, looks: list[Inspected]) -> None:
        async with self._writing:
            await self._write_alone(looks)

    async def _write_alone(self, looks: list[Inspected]) -> None:
        by_vi: dict[tuple[str, int], list[Sight]] = {}
        for look in looks:
            name = f"{look.service}-{look.instance}"
            by_vi.setdefault((name, look.keep_bytes), []).append(look.sight)
        for (name, keep_bytes), sights in by_vi.items():
            try:
                await asyncio.to_thread(self._files.write, name, keep_bytes, sights)
                self._has_failed = False
            except OSError as error:
                self._figures.looks_not_written += len(sights)
                if not self._has_failed:
                    text = "captures of VIs in %s: %s; chunks go on, looks at them are lost"
                    _log.error(text, self._files.folder, error.strerror or error)
                self._has_failed = True
