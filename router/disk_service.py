"""The spool as a part of the daemon: the folder, the thread that writes, the wall clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Found
from packetcloud.router.config import RouterConfig
from packetcloud.router.disk_jobs import Job, Result
from packetcloud.router.disk_worker import DiskWorker
from packetcloud.router.errors import RouterConfigError
from packetcloud.router.spool import Spool
from packetcloud.router.storage import FolderStorage

_log = logging.getLogger("packetcloud.router")


def wall_ms() -> int:
    """Milliseconds since 1970: for deadlines on disk only; every timer is monotonic."""
    return time.time_ns() // 1_000_000


class DiskService:
    """The chunks of one router on disk; does nothing where the config has no `[spool]`.

    Args:
        done: called on the loop's thread with the answers to each group of jobs.
    """

    def __init__(
        self, reactor: Any, config: RouterConfig, done: Callable[[list[Result]], None]
    ) -> None:
        self._reactor = reactor
        self._folder = config.spool_folder
        self._reserve_bytes = config.file.spool.reserve_bytes if config.file.spool else 0
        self._done = done
        self._worker: DiskWorker | None = None
        self._storage: FolderStorage | None = None
        # Of one run after the other they grow, as a million chunks a millisecond are not reached;
        # should the clock have been set back, `open` goes on behind what is there.
        first_number = wall_ms() << 20
        self.spool = Spool(config.settings.spool, self._submit, first_number, wall_ms)

    def open(self) -> list[Found]:
        """Read what an earlier process left. Blocks: the router does not listen yet.

        Raises:
            RouterConfigError: the folder cannot be used.
        """
        if self._folder is None:
            return []
        try:
            self._storage = FolderStorage(self._folder)
            log = ChunkLog(self._storage, self._reserve_bytes)
            found = log.open()
            self.spool.start_at(log.next_number)
        except OSError as error:
            raise RouterConfigError(
                f"[spool] path = {str(self._folder)!r}: {error.strerror or error}; "
                "allowed: a folder that this user may write, with room for reserve_bytes"
            ) from None
        if found or log.damaged_count:
            text = "%d chunks of an earlier run taken over from %s; %d damaged"
            _log.info(text, len(found), self._folder, log.damaged_count)
        self._worker = DiskWorker(log, self._answer)
        self._worker.start()
        return found

    def close(self) -> None:
        """Do what was asked for until now, and give the folder back. Blocks until it is done."""
        if self._worker is not None:
            self._worker.stop()
        if self._storage is not None:
            self._storage.close()

    def _submit(self, job: Job) -> None:
        assert self._worker is not None, "opened before anything is written"
        self._worker.submit(job)

    def _answer(self, results: list[Result]) -> None:
        self._reactor.callFromThread(self._done, results)
