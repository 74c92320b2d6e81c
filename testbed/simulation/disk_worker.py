"""The router's disk worker on virtual time: groups of jobs, done by the real `run_group`.

A group takes as long as a sync does, and whatever comes meanwhile is the next one. Killed before it
is done, the process has written nothing of it; killed after, it may have told nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.disk_jobs import Job, Result, run_group
from packetcloud.testbed.simulation.machine import Process

SYNCS_S = (0.0002, 0.02)
"""A sync takes between so long and so long."""


class SimulatedDiskWorker:
    """What `router.disk_worker.DiskWorker` is with a thread."""

    def __init__(
        self, process: Process, log: ChunkLog, answer: Callable[[list[Result]], None]
    ) -> None:
        self._process = process
        self._log = log
        self._answer = answer
        self._jobs: list[Job] = []
        self._is_busy = False

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)
        self._begin()

    def _begin(self) -> None:
        if self._is_busy or not self._jobs:
            return
        self._is_busy = True
        group, self._jobs = self._jobs, []
        delay_s = self._process.machine.rng.uniform(*SYNCS_S)
        self._process.later(delay_s, lambda: self._do(group))

    def _do(self, group: list[Job]) -> None:
        results = run_group(self._log, group, self._process.machine.monotonic_s)
        self._process.later(0.0001, lambda: self._answer(results))
        self._is_busy = False
        self._begin()
