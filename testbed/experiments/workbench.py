"""A router with services, one caller, and a sink for each size of chunk, all on loopback.

What the router says of a service before and after a chunk is how long that one chunk took.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.testbed.bench.ours import ARRIVAL_TIMEOUT_S, START_TIMEOUT_S, Ends, Load
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.daemons import Router
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments.experiment import ExperimentPlan
from packetcloud.testbed.processes import Child, Children, python_command, wait_until
from packetcloud.testbed.traffic.priority import NICENESS, Priority

PLACES = (
    "Caller and sinks stand for other machines: they let router and VIs go before them "
    f"(SCHED_IDLE; niceness {NICENESS} where others use the machine). The router is bound to the "
    "first processor where there are more, and VIs that share memory with it leave it alone there."
)
"""What runs where; for reports."""
SERVED_LIMIT_S = 20.0
"""How long verdicts on chunks that were sent may take to be back."""
PARTS = ("delay_penalty", "processing", "delivery")

Departures = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Visits:
    """What the router counted of some visits to one service: means, in ms."""

    count: int
    penalty_ms: float
    processing_ms: float
    delivery_ms: float


@dataclass(slots=True)
class Workbench:
    """Make it with `open_workbench`."""

    children: Children
    router: Router
    caller: Child
    sinks: Mapping[int, Ends]
    """By size of payload."""
    _before: dict[str, dict[str, Any]] = field(default_factory=dict)
    _accepted: dict[int, int] = field(default_factory=dict)

    def send(
        self, sids: Sequence[str], payload_bytes: int, count: int = 1, interval_s: float = 0.0
    ) -> Departures:
        """Send chunks through services; return ids and departures once all have left the caller.

        Raises:
            ChildError: it refused some, or did not take them in time.
        """
        self.caller.tell(
            destination=self.sinks[payload_bytes].guid,
            sids=list(sids),
            payload_bytes=payload_bytes,
            count=count,
            interval_s=interval_s,
        )
        event = self.caller.wait_event("sent", count * interval_s + SERVED_LIMIT_S)
        if event["settled"] != {"accepted": count}:
            raise ChildError(f"of {count} chunks the router settled {event['settled']}")
        self._accepted[payload_bytes] = self._accepted.get(payload_bytes, 0) + count
        return [(number, moment_s) for number, moment_s in event["departures"]]

    def visits(self, sids: Sequence[str], count: int) -> list[Visits]:
        """Return what each service took since it was last asked about: `count` chunks each.

        Raises:
            ChildError: verdicts are missing after a while, or there are more than that.
        """
        found: list[Visits] = []

        def are_back() -> bool:
            listed = {one["sid"]: one for one in self.router.get_json("/services")}
            now = [listed[sid] for sid in sids]
            before = [self._before.get(sid) for sid in sids]
            if any(
                one["delay_penalty"]["count"] - _count(was) < count
                for one, was in zip(now, before, strict=True)
            ):
                return False
            found[:] = [between(was, one) for one, was in zip(now, before, strict=True)]
            self._before.update(zip(sids, now, strict=True))
            return True

        wait_until(are_back, SERVED_LIMIT_S, f"verdicts on {count} chunks")
        if any(one.count != count for one in found):
            raise ChildError(f"{count} chunks were sent, visits counted: {found}")
        return found

    def finish(self) -> dict[int, dict[int, float]]:
        """End caller and sinks; return arrivals by size, then by id, where the sinks keep them.

        Raises:
            ChildError: a chunk that was taken did not arrive, or arrived altered.
        """
        arrivals: dict[int, dict[int, float]] = {}
        for size, ends in self.sinks.items():
            sink = ends.receiver
            assert sink is not None
            wanted = self._accepted.get(size, 0)
            _wait_arrived(sink, wanted)
            sink.signal(signal.SIGTERM)
            done = sink.wait_event("done", START_TIMEOUT_S)
            if done["bodies"] != wanted or done["altered"] or done["wrong_length"]:
                raise ChildError(
                    f"chunks of {size} bytes: {wanted} taken, {done['bodies']} arrived, "
                    f"{done['altered']} altered, {done['wrong_length']} of a wrong length"
                )
            if ends.load.keeps_times:
                pairs = json.loads((ends.children.directory / "arrivals.json").read_text())
                arrivals[size] = dict(map(tuple, pairs))
        self.caller.stop()
        return arrivals


def priority_of_hosts(plan: ExperimentPlan) -> Priority:
    """Return how far hosts give way: elsewhere they are other machines.

    A quick run may be beside others, where the lowest priority would leave them nothing.
    """
    return Priority.LOW if plan.is_quick else Priority.IDLE


@contextlib.contextmanager
def open_workbench(
    children: Children,
    router: Router,
    address: tuple[str, int],
    sizes: Sequence[int],
    priority: Priority,
    key_file: Path | None = None,
    keeps_times: bool = False,
) -> Iterator[Workbench]:
    """A workbench at a router that runs.

    Args:
        address: where hosts of this machine attach to it.
        priority: of caller and sinks.
        key_file: payloads arrive encrypted with this service key.
        keeps_times: sinks keep when each chunk came.
    """
    with contextlib.ExitStack() as stack:
        sinks = {}
        for size in sizes:
            # A folder for each, as each writes a file of the same name.
            scratch = stack.enter_context(Children())
            load = Load(size, key_file=key_file, keeps_times=keeps_times, priority=priority)
            sinks[size] = ends = Ends(scratch, load, Timing())
            where = f"{address[0]}:{address[1]}"
            ends.start_receiver(None, "--connect", where, "--expect", router.guid)
        options: list[object] = ["--connect", f"{address[0]}:{address[1]}"]
        options += ["--expect", router.guid, "--largest-bytes", max(sizes)]
        options += ["--priority", priority.value]
        command = python_command("packetcloud.testbed.traffic.caller", *options)
        caller = children.start("caller", command, takes_orders=True)
        caller.wait_event("ready", START_TIMEOUT_S)
        yield Workbench(children, router, caller, sinks)


def between(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Visits:
    """Return the visits that a router counted between two looks at a service.

    Raises:
        ChildError: there are none.
    """
    count = after["delay_penalty"]["count"] - _count(before)
    if count <= 0:
        raise ChildError("no chunk has visited the service")
    means = []
    for part in PARTS:
        sum_s = after[part]["sum_s"] - (before[part]["sum_s"] if before is not None else 0.0)
        means.append(sum_s * 1e3 / count)
    return Visits(count, *means)


def _count(service: Mapping[str, Any] | None) -> int:
    return int(service["delay_penalty"]["count"]) if service is not None else 0


def _wait_arrived(sink: Child, wanted: int) -> None:
    def are_there() -> bool:
        sink.signal(signal.SIGUSR1)
        return bool(sink.wait_event("progress", START_TIMEOUT_S)["bodies"] >= wanted)

    wait_until(are_there, ARRIVAL_TIMEOUT_S, f"{wanted} chunks arrive")
