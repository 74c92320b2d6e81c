"""`bench vi`, delay penalty: the same service in a container and as a child process, by turns.

One router has both. The child process is reached over loopback, the container over its bridge. A
third one finds out how much the process back-end carries, so that the figures of the two that are
compared are of the steady rate alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.path import check_conservation
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing, ratio
from packetcloud.testbed.bench.service import STEADY_SHARE
from packetcloud.testbed.bench.service_ours import MOST_OUTSTANDING, OUTSTANDING_BYTES
from packetcloud.testbed.bench.vi_place import SERVICE, SUITE, Workplace
from packetcloud.testbed.daemons import ServiceEntry, start_service, wait_attached
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, LxdCloudlet
from packetcloud.testbed.processes import Children

LXD, PROCESS = "lxd", "process"
BACK_ENDS = (LXD, PROCESS)
VI_TYPE = "medium"
"""As much of a core as the service can use: what is compared is isolation, not a limit."""
_FULL = "full-rate"
_DURATIONS = ("delay_penalty", "processing", "delivery")


def measure_penalty(place: Workplace) -> Document:
    """Measure every size on both back-ends, interleaved; runs that fail are the place's to tell.

    Raises:
        ChildError: a process could not be started, or the run at full rate failed.
    """
    sizes = place.plan.sizes
    services = [
        place.sealing_service(_name(LXD, size), vi_type=VI_TYPE, replicas_max=1) for size in sizes
    ]
    sids = {
        name: create_identity_file(place.folder / f"{name}.key").guid.hex
        for name in (_FULL, *(_name(PROCESS, size) for size in sizes))
    }
    entries = [ServiceEntry(sid, name) for name, sid in sids.items()]
    plan = CloudletPlan(services, router_services=entries)
    figures: Document = {"steady_share": STEADY_SHARE, "service": {SERVICE: SUITE}, "sizes": {}}
    with place.cloudlet(plan) as cloudlet:
        for name, sid in sids.items():
            key_file = place.folder / f"{name}.key"
            settings = {**SUITE, "key_file": place.key_file()}
            address = cloudlet.router_address
            child = start_service(cloudlet.children, name, SERVICE, address, key_file, settings)
            wait_attached(cloudlet.router, child, sid)
        cloudlet.until_running(len(services))
        for size in sizes:
            bench = _Size(place, cloudlet, size, {**sids, **cloudlet.sids})
            figures["sizes"][str(size)] = bench.measure()
    figures["ratio"] = figures["sizes"][str(sizes[-1])]["ratio"]
    return figures


def _name(back_end: str, size: int) -> str:
    return f"{back_end}-{size >> 10}"


@dataclass(frozen=True, slots=True)
class _Size:
    """The runs with chunks of one size."""

    place: Workplace
    cloudlet: LxdCloudlet
    payload_bytes: int
    sids: Mapping[str, str]

    def measure(self) -> Document:
        size = f"{self.payload_bytes >> 10} KiB"
        self.place.tell(f"{size}: full rate")
        full_rate = self._run(_FULL, 0.0)
        rate = STEADY_SHARE * full_rate
        means: dict[str, list[float]] = {name: [] for name in BACK_ENDS}
        repeats = self.place.timing.repeats
        for number in range(1, repeats + 1):
            for name in BACK_ENDS:
                self.place.tell(f"{size}: {name}, {number} of {repeats}")
                before = self._durations(name)["delay_penalty"]
                try:
                    self._run(_name(name, self.payload_bytes), rate)
                except ChildError as error:
                    self.place.failures.append(f"{size}, {name}, run {number}: {error}")
                    continue
                means[name].append(mean_between(before, self._durations(name)["delay_penalty"]))
        return {
            "full_rate_chunks_per_s": full_rate,
            "steady_rate_chunks_per_s": rate,
            **penalty_figures({name: self._durations(name) for name in BACK_ENDS}, means),
        }

    def _run(self, name: str, rate: float) -> float:
        """Send chunks through one service for a while; return how many arrived each second."""
        timing: Timing = self.place.timing
        outstanding = max(4, min(MOST_OUTSTANDING, OUTSTANDING_BYTES // self.payload_bytes))
        load = Load(
            self.payload_bytes,
            outstanding,
            rate,
            (self.sids[name],),
            key_file=self.place.key_file(),
        )
        router = self.cloudlet.router
        host, port = self.cloudlet.router_address
        with Children() as children:
            ends = Ends(children, load, timing)
            ends.start_receiver(None, "--connect", f"{host}:{port}", "--expect", router.guid)
            ends.start_sender(None, (host, port), router.guid)
            with ends.abandoned_on_error():
                window, chunks = ends.wait_window()
                sent, received = ends.finish()
            check_conservation(sent, received, router)
        return chunks / window.seconds

    def _durations(self, back_end: str) -> dict[str, Any]:
        sid = self.sids[_name(back_end, self.payload_bytes)]
        found: list[dict[str, Any]] = self.cloudlet.router.get_json("/services")
        (service,) = (one for one in found if one["sid"] == sid)
        return service


def mean_between(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the mean of the durations that were counted between two looks, in ms.

    Raises:
        ChildError: there are none.
    """
    count = after["count"] - before["count"]
    if count <= 0:
        raise ChildError("no chunk passed the service in a whole run")
    return (after["sum_s"] - before["sum_s"]) * 1e3 / count


def penalty_figures(
    durations: Mapping[str, Mapping[str, Any]], means: Mapping[str, list[float]]
) -> Document:
    """Make the figures of one size from what the router says of both back-ends."""
    figures: Document = {}
    for name in BACK_ENDS:
        for which in _DURATIONS:
            figures[f"{name}_{which}_p50_ms"] = durations[name][which]["p50_s"] * 1e3
            figures[f"{name}_{which}_p99_ms"] = durations[name][which]["p99_s"] * 1e3
        figures[f"{name}_mean_ms"] = means[name]
    figures["ratio"] = ratio(
        figures[f"{LXD}_delay_penalty_p50_ms"], figures[f"{PROCESS}_delay_penalty_p50_ms"]
    )
    if means[LXD] and means[PROCESS]:
        figures["ratio_of_means"] = ratio(median(means[LXD]), median(means[PROCESS]))
    else:
        figures["ratio_of_means"] = None
    return figures
