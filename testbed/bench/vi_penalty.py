"""`bench vi`, delay penalty: the same service in a container and as a child process, by turns.

One router has both. The child process is reached over loopback, the container over its bridge. A
third one finds out how much the process back-end carries, so that the figures of the two that are
compared are of the steady rate alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import median

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
from packetcloud.testbed.visits import DELAY_PENALTY, DELIVERY, PROCESSING, Counted, look_at

LXD, PROCESS = "lxd", "process"
BACK_ENDS = (LXD, PROCESS)
VI_TYPE = "medium"
"""As much of a core as the service can use: what is compared is isolation, not a limit."""
_FULL = "full-rate"
_DURATIONS = (DELAY_PENALTY, PROCESSING, DELIVERY)

Visits = Mapping[str, Counted]
"""Of one run, by part."""


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
        full_rate, _ = self._run(_FULL, 0.0)
        rate = STEADY_SHARE * full_rate
        visits: dict[str, list[Visits]] = {name: [] for name in BACK_ENDS}
        repeats = self.place.timing.repeats
        for number in range(1, repeats + 1):
            for name in BACK_ENDS:
                self.place.tell(f"{size}: {name}, {number} of {repeats}")
                try:
                    _, found = self._run(_name(name, self.payload_bytes), rate)
                except ChildError as error:
                    self.place.failures.append(f"{size}, {name}, run {number}: {error}")
                    continue
                visits[name].append(found)
        return {
            "full_rate_chunks_per_s": full_rate,
            "steady_rate_chunks_per_s": rate,
            **penalty_figures(visits),
        }

    def _run(self, name: str, rate: float) -> tuple[float, Visits]:
        """Send chunks through one service for a while; return how many arrived each second, and
        what the router counted of them."""
        timing: Timing = self.place.timing
        outstanding = max(4, min(MOST_OUTSTANDING, OUTSTANDING_BYTES // self.payload_bytes))
        sid = self.sids[name]
        load = Load(
            self.payload_bytes,
            outstanding,
            rate,
            (sid,),
            key_file=self.place.key_file(),
        )
        router = self.cloudlet.router
        host, port = self.cloudlet.router_address
        with Children() as children:
            ends = Ends(children, load, timing)
            ends.start_receiver(None, "--connect", f"{host}:{port}", "--expect", router.guid)
            ends.start_sender(None, (host, port), router.guid)
            with ends.abandoned_on_error():
                ends.wait_opened()
                before = look_at(router, sid)
                window, chunks = ends.wait_window()
                after = look_at(router, sid)
                sent, received = ends.finish()
            check_conservation(sent, received, router)
        visits = {part: Counted.between(before, after, part) for part in _DURATIONS}
        return chunks / window.seconds, visits


def penalty_figures(visits: Mapping[str, Sequence[Visits]]) -> Document:
    """Make the figures of one size from the visits of each run, by back-end."""
    figures: Document = {}
    for name in BACK_ENDS:
        runs = visits[name]
        for which in _DURATIONS:
            both = reduce(Counted.with_those_of, (run[which] for run in runs), Counted())
            figures[f"{name}_{which}_p50_ms"] = both.quantile_ms(0.5) if runs else None
            figures[f"{name}_{which}_p99_ms"] = both.quantile_ms(0.99) if runs else None
        figures[f"{name}_mean_ms"] = [run[DELAY_PENALTY].mean_ms for run in runs]
    figures["ratio"] = ratio(
        figures[f"{LXD}_delay_penalty_p50_ms"], figures[f"{PROCESS}_delay_penalty_p50_ms"]
    )
    means = {name: figures[f"{name}_mean_ms"] for name in BACK_ENDS}
    if means[LXD] and means[PROCESS]:
        figures["ratio_of_means"] = ratio(median(means[LXD]), median(means[PROCESS]))
    else:
        figures["ratio_of_means"] = None
    return figures
