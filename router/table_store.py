"""The cloudlet's table on disk: one file, put in place whole and synced, with a checksum.

The router serves by it without its controller, also after it was killed. A file that is damaged is
not believed in any part. Source: docs/decisions/0013.
"""

from __future__ import annotations

import hashlib

from pydantic import ValidationError

from packetcloud.router.cloudlet_schemas import StoredTable
from packetcloud.router.cloudlet_table import CloudletTable
from packetcloud.router.errors import TableFileError
from packetcloud.router.storage import Storage

TABLE_NAME = "table"
MAX_FILE_BYTES = 16 << 20
"""Ten times what the largest table takes."""


class TableStore:
    """The file. Every call may raise OSError."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(self, table: CloudletTable) -> None:
        """Return when the table survives a power cut; the one of before does until then."""
        content = StoredTable.of(table).model_dump_json().encode()
        checksum = hashlib.sha256(content).hexdigest().encode()
        self._storage.replace(TABLE_NAME, content + b"\n" + checksum + b"\n")

    def load(self) -> CloudletTable:
        """Return the table that was saved last; without a file, that of no controller.

        Raises:
            TableFileError: the file is torn, altered, or of another version of the program.
        """
        if TABLE_NAME not in self._storage.names():
            return CloudletTable()
        size = self._storage.size(TABLE_NAME)
        if size > MAX_FILE_BYTES:
            raise TableFileError(f"file {TABLE_NAME!r} is {size} bytes; is it a cloudlet's table?")
        content, _, checksum = self._storage.read(TABLE_NAME, 0, size).partition(b"\n")
        if checksum != hashlib.sha256(content).hexdigest().encode() + b"\n":
            raise TableFileError(f"file {TABLE_NAME!r} is torn or altered: its checksum is wrong")
        try:
            return StoredTable.model_validate_json(content).to_table()
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise TableFileError(f"file {TABLE_NAME!r}: {where}: {problem['msg']}") from None
