"""The thread that writes chunks to disk, many of them with one `fsync`.

Jobs in, results out. Whatever came while the last `fsync` ran is one group. So a chunk waits for
the group before its own at the most, and nothing waits for company.
Source: docs/decisions/0010.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.disk_jobs import Job, Put, Read, Result, abandon, failed, run_group

GROUP_COUNT = 1024
GROUP_BYTES = 8 << 20
"""One group at the most: 8 MiB take a disk of 200 MB/s 40 ms."""
_log = logging.getLogger("packetcloud.router")


class DiskWorker:
    """Runs groups in a thread.

    Args:
        answer: called in that thread with the results of each group; it hands them to the loop.
    """

    def __init__(self, log: ChunkLog, answer: Callable[[list[Result]], None]) -> None:
        self._log = log
        self._answer = answer
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. What may be queued is the caller's to bound: `spool.MAX_QUEUED_BYTES`."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Do what is queued and end the thread."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            group: list[Job] = []
            size = 0
            job = self._jobs.get()
            while True:
                if job is None:
                    is_stopping = True
                    break
                group.append(job)
                size += job.size_bytes if isinstance(job, Put | Read) else 0
                if len(group) >= GROUP_COUNT or size >= GROUP_BYTES:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if group:
                try:
                    results = run_group(self._log, group, time.perf_counter)
                except Exception:  # a fault of ours fails this group, not those after it
                    _log.exception("fault of the disk worker")
                    results = failed(group)
                    try:
                        abandon(self._log, group)
                    except Exception:  # the disk that failed the group may fail this too
                        _log.exception("fault of the disk worker; records may be found again")
                self._answer(results)
