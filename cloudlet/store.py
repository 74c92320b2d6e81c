"""What the controller keeps, in SQLite: written before anything that follows from it is done.

One row for each thing (kind, key, JSON); a save is one transaction of the rows that changed, with
the disk's word for it (`synchronous=FULL`: `NORMAL` lost acknowledged rows in a power cut).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from packetcloud.cloudlet.errors import CloudletConfigError, StoreError

FORMAT = 1
FILE_NAME = "cloudlet.sqlite3"
Row = dict[str, Any]
Rows = dict[str, dict[str, Row]]
"""Kind -> key -> values, as JSON has them."""


class Store:
    """The database of one controller; nobody else may have it open.

    Raises:
        CloudletConfigError: another controller has it, it is damaged or of another version, or the
            folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._saved: dict[tuple[str, str], Row] = {}
        self._lock = _lock(folder)
        try:
            # Tokens of VIs are in it; what SQLite puts beside it gets the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(self.path, isolation_level=None)
            self._open()
            self._loaded = self._read()
        except BaseException as error:  # also Ctrl-C: nobody else gives the lock back
            os.close(self._lock)
            match error:
                case CloudletConfigError():
                    raise
                case sqlite3.DatabaseError() | ValueError():
                    raise CloudletConfigError(
                        f"{self.path} is damaged: {_line(error)}; put a copy of it back, or move "
                        "it away and begin anew: `packetcloud cloudlet run --take-over`"
                    ) from None
                case OSError():
                    raise CloudletConfigError(f"{self.path}: {error.strerror}") from None
            raise

    def load(self) -> Rows:
        """Return every row as it was when the database was opened."""
        return self._loaded

    def check_cloudlet(self, cloudlet: str) -> None:
        """See that it is the database of this cloudlet, after whose name its containers are called.

        Raises:
            CloudletConfigError: it has VIs of another.
        """
        name = self._loaded.get("cloudlet", {}).get("", {}).get("name", cloudlet)
        if name != cloudlet and self._loaded.get("vi"):
            raise CloudletConfigError(
                f"[cloudlet] name = {cloudlet!r}: {self.path} has VIs of {name!r}, whose "
                "containers are called so; put it back, or first, with that name: "
                "packetcloud cloudlet down"
            )

    def save(self, rows: Rows) -> None:
        """Make the kinds in `rows` be these; other kinds stay. Touches no disk without a change.

        Raises:
            StoreError: the disk does not take it; nothing of it is written.
        """
        wanted = {
            (kind, key): row for kind, of_kind in rows.items() for key, row in of_kind.items()
        }
        changed = {name: row for name, row in wanted.items() if self._saved.get(name) != row}
        gone = [name for name in self._saved if name[0] in rows and name not in wanted]
        if not changed and not gone:
            return
        texts = [(*name, json.dumps(row, separators=(",", ":"))) for name, row in changed.items()]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", texts)
            self._database.executemany("DELETE FROM kept WHERE kind = ? AND key = ?", gone)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite itself rolled back on a full disk
                self._database.execute("ROLLBACK")
            raise StoreError(f"{self.path}: {error}") from None
        self._saved.update(changed)
        for name in gone:
            del self._saved[name]

    def close(self) -> None:
        """Let go of it."""
        self._database.close()
        os.close(self._lock)

    def _open(self) -> None:
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS kept "
                "(kind TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key))"
            )
            self._database.execute(f"PRAGMA user_version={FORMAT}")
        elif version != FORMAT:
            raise CloudletConfigError(
                f"{self.path} has format {version}, this version reads {FORMAT}; run the version "
                "that wrote it"
            )

    def _read(self) -> Rows:
        verdict = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise ValueError(verdict)
        rows: Rows = {}
        for kind, key, text in self._database.execute("SELECT kind, key, value FROM kept"):
            row = json.loads(text)
            self._saved[kind, key] = row
            rows.setdefault(kind, {})[key] = dict(row)
        return rows


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CloudletConfigError(
            f"[cloudlet] state = {str(folder)!r}: {error.strerror}; allowed: a folder that can be "
            "written"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise CloudletConfigError(
            f"[cloudlet] state = {str(folder)!r}: another controller uses it; end that one, or "
            "choose another folder"
        ) from None
    return lock


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
