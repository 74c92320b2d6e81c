"""The progress bars of `packetcloud host`: files on their way out and in."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from packetcloud.chunk.names import GUID
from packetcloud.cli.output import Output

if TYPE_CHECKING:
    from packetcloud.host.file_receiver import ReceivedFile, ReceiveProgress
    from packetcloud.host.outgoing_file import SendProgress

_REDRAW_S = 0.1
"""A progress bar is moved ten times a second, however many chunks end in between."""


class _Bars(AbstractContextManager["_Bars"]):
    """Bars that are shown while inside."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        name = TextColumn("{task.description}", markup=False)
        self._progress = output.progress(
            name, BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn()
        )
        self._drawn_s = 0.0

    def stop(self) -> None:
        self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SendBar(_Bars):
    """The progress bar of one file on its way out."""

    def __init__(self, output: Output, title: str) -> None:
        super().__init__(output)
        self._task = self._progress.add_task(title, total=None)

    def moved(self, progress: SendProgress) -> None:
        now = time.monotonic()
        if now - self._drawn_s >= _REDRAW_S or progress.delivered_bytes == progress.size_bytes:
            self._drawn_s = now
            self._progress.update(
                self._task, completed=progress.delivered_bytes, total=progress.size_bytes
            )


class ReceiveBars(_Bars):
    """A progress bar for every file that is coming in."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._tasks: dict[tuple[GUID, str], Any] = {}

    def moved(self, progress: ReceiveProgress) -> None:
        now = time.monotonic()
        key = (progress.source, progress.name)
        task = self._tasks.get(key)
        if task is None:
            self._tasks[key] = task = self._progress.add_task(progress.name, total=None)
        elif now - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = now
        self._progress.update(task, completed=progress.have_bytes, total=progress.size_bytes)

    def done(self, file: ReceivedFile) -> None:
        for key, task in list(self._tasks.items()):
            if key[0] == file.source and self._progress.tasks:
                self._progress.remove_task(task)
                del self._tasks[key]
