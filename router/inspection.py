"""The sample of chunks to and from VIs that their ISP wants to look at, on its way to files.

A service that no sample is declared for has no tap: its chunks pass one question. The others share
one ring of bounded bytes; what finds no room there is counted, and no chunk waits.
Source: MobiArch'13 paper, section 3.5; docs/how-to/inspect-and-punish.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import InspectionPlan
from packetcloud.router.tap import Capture, Point, Sight, Tap, Wanted

MAX_INSPECTION_BYTES = 16 << 20
"""Of all services, while the disk is busy."""


class Inspected(NamedTuple):
    """A look at a chunk of a VI."""

    service: str
    instance: int
    keep_bytes: int
    sight: Sight


class Inspection:
    """What is to be written down.

    Args:
        wall_ns: returns nanoseconds since 1970.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self.wake: Callable[[], None] = _nobody_listens
        """Called when there is something to take."""
        self.taken_count = 0
        self.lost_count = 0
        """Looks that found no room."""
        self.ring_bytes = 0
        self._ring: deque[Inspected] = deque()
        self._wall_ns = wall_ns

    def watch(self, service: CloudletService) -> None:
        """Look at the chunks of a service from now on as its entry says."""
        plan = service.entry.inspection
        if plan is None:
            service.tap = None
        elif service.tap is None or _plan_of(service.tap) != plan:
            tap = Tap(self._wall_ns)
            tap.join(_Sample(self, service.name, plan))
            service.tap = tap

    def put(self, look: Inspected) -> bool:
        """Keep a look until it is taken; tell whether there was room."""
        size = look.sight.ring_bytes
        if self.ring_bytes + size > MAX_INSPECTION_BYTES:
            self.lost_count += 1
            return False
        if not self._ring:
            self.wake()
        self._ring.append(look)
        self.ring_bytes += size
        self.taken_count += 1
        return True

    def take(self) -> list[Inspected]:
        """Return and forget all, the oldest first."""
        taken = list(self._ring)
        self._ring.clear()
        self.ring_bytes = 0
        return taken


class _Sample(Capture):
    """The looks at the VIs of one service, into the ring of all."""

    def __init__(self, inspection: Inspection, service: str, plan: InspectionPlan) -> None:
        points = frozenset({Point.TASK, Point.VERDICT})
        super().__init__(
            Wanted(points, sample=plan.one_in, snap_bytes=plan.snap_bytes), _nobody_listens
        )
        self.plan = plan
        self._inspection = inspection
        self._service = service

    def offer(self, sight: Sight) -> bool:
        assert sight.neighbour is not None, "tasks and verdicts have a VI"
        instance = sight.neighbour.neighbour.instance
        look = Inspected(self._service, instance, self.plan.keep_bytes, sight)
        return self._inspection.put(look)


def _plan_of(tap: Tap) -> InspectionPlan | None:
    (sample,) = tap.captures
    return sample.plan if isinstance(sample, _Sample) else None


def _nobody_listens() -> None:
    pass
