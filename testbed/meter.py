"""CPU and memory of an experiment's processes over time, sampled on a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from packetcloud.testbed.processes import TICK_S, Child

SAMPLE_INTERVAL_S = 0.2
NICENESS = 10


@dataclass(frozen=True, slots=True)
class _Sample:
    time_s: float
    cpu_s: dict[str, float]
    rss_bytes: dict[str, int]


WHOLE_MACHINE = "whole_machine"
"""All CPU time that the machine was not idle: also what the kernel does for nobody in particular,
such as receiving frames on behalf of a NIC."""


class Meter:
    """Samples CPU and memory of children while an experiment runs, on a thread of its own."""

    def __init__(
        self,
        children: Iterable[Child],
        interval_s: float = SAMPLE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = tuple(children)
        self._clock = clock
        self._interval_s = interval_s
        self._samples: list[_Sample] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def end_s(self) -> float:
        """When the last sample was taken."""
        return self._samples[-1].time_s

    def cpu_seconds(self, begin_s: float, end_s: float) -> dict[str, float]:
        """CPU seconds by process name between two moments (CLOCK_MONOTONIC)."""
        return {
            name: self._cpu_at(name, end_s) - self._cpu_at(name, begin_s)
            for name in self._samples[0].cpu_s
        }

    def rss_series(self, name: str) -> list[tuple[float, int]]:
        """Resident bytes of one process over time."""
        return [(sample.time_s, sample.rss_bytes[name]) for sample in self._samples]

    def _cpu_at(self, name: str, moment_s: float) -> float:
        samples = list(self._samples)
        before = samples[0]
        for sample in samples:
            if sample.time_s >= moment_s:
                span_s = sample.time_s - before.time_s
                share = (moment_s - before.time_s) / span_s if span_s > 0 else 1.0
                gained_s = sample.cpu_s[name] - before.cpu_s[name]
                return before.cpu_s[name] + gained_s * max(0.0, share)
            before = sample
        return before.cpu_s[name]

    def _run(self) -> None:
        # Of this thread alone. Who measures waits for who is measured.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stopping.wait(self._interval_s):
            self._take()
        self._take()

    def _take(self) -> None:
        cpu_s = {child.name: child.cpu_seconds() for child in self._children}
        cpu_s[WHOLE_MACHINE] = _machine_busy_s()
        rss_bytes = {child.name: child.rss_bytes() for child in self._children}
        self._samples.append(_Sample(self._clock(), cpu_s, rss_bytes))


def _machine_busy_s() -> float:
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) * TICK_S
