"""Documents of rules on their way in: from the network to a file, unread, a bounded number of them.

The loop only passes pieces on; a thread makes the file and writes them.
Source: docs/reference/router.md, "Rules".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from packetcloud.router.errors import RuleUploadError

MAX_UPLOADS_COUNT = 4
"""From the first byte to the answer; each may lie on disk with `max_document_bytes`."""
PIECE_LIMIT_S = 30.0
"""A client that sends nothing for so long is left, so that it keeps no place."""
WRITE_BYTES = 1 << 20
"""Written at a time."""
FOLDER = "uploads"


class Uploads:
    """Receives documents into a folder.

    Args:
        folder: that of the rules.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.open_count = 0
        self.refused_count = 0
        self._folder = folder / FOLDER
        self._next = 0

    def clear(self) -> None:
        """Remove what an earlier process left. Blocks."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.isdecimal():
                path.unlink()

    @asynccontextmanager
    async def receive(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """Write the pieces to a file and lend it; it is removed afterwards if it is still there.

        Raises:
            RuleUploadError: there are too many at a time, it is too long, or it does not go on.
        """
        if self.open_count >= MAX_UPLOADS_COUNT:
            self.refused_count += 1
            raise RuleUploadError(
                429, f"{MAX_UPLOADS_COUNT} documents are being installed already; try again"
            )
        self.open_count += 1
        self._next += 1
        path = self._folder / f"{self._next}"
        try:
            try:
                await self._write(path, pieces)
            except OSError as error:
                text = f"the folder of the rules: {error.strerror or error}; see to its disk"
                raise RuleUploadError(503, text) from None
            yield path
        finally:
            self.open_count -= 1
            # In a thread: to give back the blocks of a large file takes a disk a while.
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _write(self, path: Path, pieces: AsyncIterator[bytes]) -> None:
        size = 0
        held = bytearray()
        # In a thread, as a disk that is busy with the last change lets nobody make a file.
        with await asyncio.to_thread(_new_file, path) as file:
            while (piece := await _next_piece(pieces)) is not None:
                size += len(piece)
                if size > self.max_bytes:
                    self.refused_count += 1
                    raise too_long(self.max_bytes)
                held += piece
                if len(held) >= WRITE_BYTES:
                    await asyncio.to_thread(_write_all, file, bytes(held))
                    held.clear()
            await asyncio.to_thread(_write_all, file, bytes(held))


def too_long(max_bytes: int) -> RuleUploadError:
    """Return the error for a document of more bytes than the router takes."""
    return RuleUploadError(
        413,
        f"over {max_bytes} bytes, [rules] max_document_bytes of this router; cut the set in "
        "several",
    )


async def _next_piece(pieces: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await asyncio.wait_for(anext(pieces), PIECE_LIMIT_S)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise RuleUploadError(408, f"nothing came for {PIECE_LIMIT_S:g} s") from None


def _new_file(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # Never one that is there: it may be kept as evidence under another name.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
