"""The signed documents behind the rules, as they came: whoever asks can check them again."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

FOLDER = "documents"
_NAME = re.compile(r"[0-9a-f]{64}\.rules")


class Evidence:
    """A folder of documents, named by what was signed.

    Args:
        folder: that of the rules.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, digest: bytes) -> Path:
        return self._folder / f"{digest.hex()}.rules"

    def keep(self, document: Path, digest: bytes) -> None:
        """Keep a file of the same file system; it lasts when this returns."""
        path = self.path(digest)
        with document.open("rb") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(document)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def keep_only(self, digests: Collection[bytes]) -> None:
        """Remove all others: of changes that were undone, or whose rules are gone.

        What has another name than a document is not ours, and stays.
        """
        names = {self.path(digest).name for digest in digests}
        for path in self._folder.iterdir():
            if path.name not in names and _NAME.fullmatch(path.name):
                path.unlink()
