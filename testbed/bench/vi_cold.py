"""`bench vi`, cold start: from the wish for a VI to the first chunk that it has processed.

No VI runs, and a chunk waits at the router already. The clock stops when host B has it. With
standbys a container runs already that has no service yet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.cloudlet.client import CloudletClient
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.vi_place import Workplace, done, owner, spread
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import LIMIT_S, CloudletPlan, LxdCloudlet

SERVICE_NAME = "encrypt"
PAYLOAD = bytes(1024)
BEGUN, FIRST_CHUNK = "begun", "first_chunk"
"""Stages besides the controller's: it has the wish; host B has the chunk."""


def measure_cold_start(place: Workplace, standbys: int = 0) -> Document:
    """Launch and stop a VI again and again; return the times, and where they went.

    Raises:
        ChildError: a launch came to nothing, or its chunk did not come through.
    """
    # The chunk that waits must not be given up, and calls for no VI by itself.
    service = place.sealing_service(
        SERVICE_NAME, replicas_min=0, grace_s=LIMIT_S, standbys=standbys
    )
    with place.cloudlet(CloudletPlan([service])) as cloudlet:
        launches = place.plan.launches
        with _Hosts(cloudlet) as hosts:
            _launch(cloudlet, hosts)  # The first one warms caches up.
            stages = []
            for number in range(1, launches + 1):
                place.tell(f"launch {number} of {launches}")
                stages.append(_launch(cloudlet, hosts))
    times_s = [sum(one.values()) for one in stages]
    return {
        "launches": launches,
        "start": spread(times_s),
        "stages_p50_s": median_stages(stages),
    }


def stage_durations(
    asked_s: float, began_s: float, took_s: Mapping[str, float], arrived_s: float
) -> dict[str, float]:
    """Return what each stage of a launch took, in the order in which they ended.

    What the controller saw later than host B the chunk was no part of the way.

    Args:
        took_s: from `began_s` to each stage, as the controller says.
    """
    moments = [(began_s, BEGUN), *((began_s + one_s, name) for name, one_s in took_s.items())]
    durations: dict[str, float] = {}
    before_s = asked_s
    for moment_s, name in sorted(moments):
        if moment_s < arrived_s and name != FIRST_CHUNK:
            durations[name] = moment_s - before_s
            before_s = moment_s
    return durations | {FIRST_CHUNK: arrived_s - before_s}


def median_stages(launches: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each stage, in the order of the first launch."""
    names = dict.fromkeys(name for one in launches for name in one)
    return {name: median(one[name] for one in launches if name in one) for name in names}


def _launch(cloudlet: LxdCloudlet, hosts: _Hosts) -> dict[str, float]:
    with cloudlet.client() as client:
        cloudlet.until(lambda: _has_standbys(client), "standbys wait")
        hosts.send()
        asked_s = time.monotonic()
        begun = client.launch(SERVICE_NAME, None, None)
        arrived_s = hosts.wait_arrival()
        done(cloudlet, "launch", begun)
        vi = owner(cloudlet)
        assert vi.launch is not None, "this controller launched it"
        done(cloudlet, "stop", client.stop(vi.number, drain=False))
    cloudlet.until(lambda: not _at_work(cloudlet), "the VI is gone")
    return stage_durations(asked_s, vi.launch.began_at, vi.launch.took_s, arrived_s)


def _has_standbys(client: CloudletClient) -> bool:
    (service,) = client.services()
    return service.standbys == service.standbys_wanted


def _at_work(cloudlet: LxdCloudlet) -> list[int]:
    return [one.number for one in cloudlet.list_vis() if one.role != "standby"]


class _Hosts:
    """A host that sends through the service, and one that takes."""

    def __init__(self, cloudlet: LxdCloudlet) -> None:
        self._sid = SID.from_hex(cloudlet.sids[SERVICE_NAME])
        self._cloudlet = cloudlet
        address = cloudlet.router_address
        self._source = BlockingEndpoint.open(address, Identity.generate())
        self._sink = BlockingEndpoint.open(address, Identity.generate())

    def __enter__(self) -> _Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._sink.close()

    def send(self) -> None:
        """Hand a chunk to the router, which has custody of it when this returns."""
        result = self._source.send(
            self._sink.guid, PAYLOAD, sid=self._sid, report=False, lifetime_s=LIMIT_S
        )
        if not result.ok:
            raise ChildError(f"the router did not take a chunk: {result.explain()}")

    def wait_arrival(self) -> float:
        """Wait for the chunk; return when it came, of CLOCK_MONOTONIC."""
        chunk = self._sink.receive(LIMIT_S)
        arrived_s = time.monotonic()
        if chunk is None:
            raise ChildError(f"no chunk within {LIMIT_S:g} s\n{self._cloudlet.logs()}")
        if len(chunk.payload) <= len(PAYLOAD):
            raise ChildError("a chunk came through that the service has not encrypted")
        return arrived_s
