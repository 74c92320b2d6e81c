"""One turn of a topology: its loads together, its faults at their times, and what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.meter import WHOLE_MACHINE, Meter
from packetcloud.testbed.processes import Children
from packetcloud.testbed.topology.build import Network
from packetcloud.testbed.topology.faults import FaultEvent, lasting, schedule
from packetcloud.testbed.topology.tables import LoadTable
from packetcloud.testbed.topology.traffic import (
    SLACK_S,
    LoadResult,
    LoadTiming,
    RunningLoad,
    start_load,
)
from packetcloud.testbed.visits import ALL_SERVICES, PARTS, Look, delays_between

BUSY_SHARE = 0.97
"""Of all processors: beyond it emulated links and loads wait for the machine."""
_LOOK_S = 0.05

Tell = Callable[[str], None]
Looks = dict[str, Look]
"""What a router had counted, by service."""


@dataclass(slots=True)
class TurnResult:
    """What a turn measured."""

    turn: int
    loads: list[LoadResult] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=list)
    """One row for each service that saw chunks."""
    links: list[dict[str, Any]] = field(default_factory=list)
    """One row for each direction of an emulated link."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    """When each happened, and was to."""
    busy_cores: float = 0.0
    objections: list[str] = field(default_factory=list)
    """Why these figures say nothing: a late emulator, a machine without a processor to spare."""


def loads_by_turn(loads: Sequence[LoadTable]) -> dict[int, list[tuple[int, str, LoadTable]]]:
    """Return number, name and table of each load, by turn and in order."""
    found: dict[int, list[tuple[int, str, LoadTable]]] = {}
    for number, table in enumerate(loads):
        name = table.name or f"load-{number + 1}"
        found.setdefault(table.turn, []).append((number, name, table))
    return dict(sorted(found.items()))


def run_turn(
    network: Network,
    turn: int,
    loads: Sequence[tuple[int, str, LoadTable]],
    timing: LoadTiming,
    seed: int,
    tell: Tell,
) -> TurnResult:
    """Run loads together while faults happen.

    A load that fails is a result with a `problem`; the others count.
    """
    result = TurnResult(turn)
    for plan in network.graph.topology.links:
        if plan.name in network.links:
            network.links[plan.name].restart(plan.to_right, plan.to_left, seed + turn)
    before = _looks(network)
    folder = network.folder / f"turn-{turn}"
    folder.mkdir()
    watched = [router.child for router in network.routers.values()]
    with Children(folder) as children, Meter([*watched, *network.services.values()]) as meter:
        running: list[RunningLoad] = []
        for number, name, table in loads:
            tell(f"turn {turn}: {name} gets ready")
            try:
                running.append(start_load(network, children, name, table, timing, number))
            except ChildError as error:
                result.loads.append(LoadResult(name, table, problem=str(error)))
        began_s = time.monotonic()
        try:
            for one in running:
                one.begin()
            happened, window = _let_happen(network, running, timing, began_s, tell)
        except BaseException:  # Ctrl-C above all: what is on its way is not waited for
            for one in running:
                one.abandon()
            raise
        ended_s = time.monotonic()
        for one, (_, name, table) in zip(running, _started(loads, result), strict=True):
            try:
                result.loads.append(one.finish(began_s))
            except ChildError as error:
                result.loads.append(LoadResult(name, table, problem=str(error)))
        _mend(network, happened)
    seconds = ended_s - began_s
    busy_s = meter.cpu_seconds(began_s, ended_s)[WHOLE_MACHINE]
    result.busy_cores = busy_s / seconds if seconds > 0 else 0.0
    result.faults = [
        {"turn": turn, "what": str(event), "due_s": event.at_s, "at_s": at_s}
        for event, at_s in happened
    ]
    result.services = service_rows(turn, (before, _looks(network)), window)
    _look_at_links(network, result)
    _look_at_machine(network, result)
    return result


def _started(
    loads: Sequence[tuple[int, str, LoadTable]], result: TurnResult
) -> list[tuple[int, str, LoadTable]]:
    failed = {one.name for one in result.loads}
    return [one for one in loads if one[1] not in failed]


def _let_happen(
    network: Network,
    running: Sequence[RunningLoad],
    timing: LoadTiming,
    began_s: float,
    tell: Tell,
) -> tuple[list[tuple[FaultEvent, float]], tuple[Looks, Looks]]:
    """Wait until all loads are over, or their time is; return which faults happened when, and what
    routers had counted when the time that counts began and when it ended."""
    waiting = schedule(network.file.fault)
    happened: list[tuple[FaultEvent, float]] = []
    opened: Looks | None = None
    closed: Looks | None = None
    least_s = began_s + timing.warmup_s + timing.seconds
    while True:
        now_s = time.monotonic()
        while waiting and waiting[0].at_s <= now_s - began_s:
            event = waiting.pop(0)
            tell(str(event))
            happened.append((event, time.monotonic() - began_s))
            _apply(network, event, [one for one, _ in happened])
        if opened is None and now_s >= began_s + timing.warmup_s:
            opened = _looks(network)
        if closed is None and now_s >= least_s:
            closed = _looks(network)
        if now_s > least_s + SLACK_S or (now_s >= least_s and all(_over(running))):
            assert opened is not None and closed is not None, "both moments have passed"
            return happened, (opened, closed)
        next_s = waiting[0].at_s + began_s if waiting else now_s + _LOOK_S
        time.sleep(max(0.0, min(next_s - now_s, _LOOK_S)))


def _over(running: Sequence[RunningLoad]) -> list[bool]:
    found = []
    for one in running:
        try:
            found.append(one.is_over())
        except ChildError:
            found.append(True)  # `finish` says what is wrong
    return found


def _apply(network: Network, event: FaultEvent, happened: Sequence[FaultEvent]) -> None:
    fault = event.fault
    if fault.kill is not None:
        (network.kill if event.begins else network.revive)(fault.kill)
        return
    assert fault.link is not None
    link = frozenset(fault.link)
    plan = next(one for one in network.graph.topology.links if {one.left, one.right} == link)
    to_right, to_left = plan.harmed_by(lasting(happened, link))
    network.links[plan.name].change(to_right, to_left)


def _mend(network: Network, happened: Sequence[tuple[FaultEvent, float]]) -> None:
    """Start again what was killed and not revived, for the next turn."""
    dead: set[str] = set()
    for event, _ in happened:
        if event.fault.kill is not None:
            (dead.add if event.begins else dead.discard)(event.fault.kill)
    for name in sorted(dead):
        network.revive(name)
    network.settle()


def _looks(network: Network) -> Looks:
    """Return what routers have counted of each service, by its name, and which process it was."""
    names = {network.guids[one.name]: one.name for one in network.file.service}
    found: Looks = {}
    for router in network.routers.values():
        try:
            listed = router.get_json(ALL_SERVICES)
        except ChildError:
            continue  # killed by a fault
        own = {"pid": router.child.pid}
        found.update({names[one["sid"]]: one | own for one in listed if one["sid"] in names})
    return found


def service_rows(
    turn: int, whole: tuple[Looks, Looks], window: tuple[Looks, Looks]
) -> list[dict[str, Any]]:
    """Return a row for each service that had tasks in this turn.

    Args:
        whole: before the turn and after it: what is counted.
        window: when the time that counts began and when it ended: durations.
    """
    rows = []
    for name, after in whole[1].items():
        before = _same_router(whole[0].get(name), after)
        row: dict[str, Any] = {"turn": turn, "service": name}
        row |= {key: after[key] - (before[key] if before else 0) for key in _COUNTS}
        if row["tasks"] <= 0:
            continue
        row |= _durations(window[0].get(name), window[1].get(name))
        rows.append(row)
    return rows


_COUNTS = ("tasks", "missed_deadlines", "retried", "skipped", "dropped")


def _same_router(before: Look | None, after: Look) -> Look | None:
    """Return the earlier look; None if the router was started again since and counts from zero."""
    return before if before is not None and before["pid"] == after["pid"] else None


def _durations(opened: Look | None, closed: Look | None) -> dict[str, float | None]:
    """Return the durations of a window; none where no chunk came back in it, or a fault had the
    router at one of its ends."""
    try:
        if opened is None or closed is None or _same_router(opened, closed) is None:
            raise ChildError("the router was away")
        found: dict[str, float | None] = {**delays_between(opened, closed)}
    except ChildError:
        found = {f"{part}_{what}_ms": None for part in PARTS for what in ("p50", "p99", "mean")}
    return found


def _look_at_links(network: Network, result: TurnResult) -> None:
    for name, link in network.links.items():
        report = link.report()
        result.objections += [f"link {name}: {text}" for text in report["objections"]]
        lateness = report["lateness"] or {}
        for way in ("to_right", "to_left"):
            sums = report[way]
            result.links.append(
                {
                    "turn": result.turn,
                    "link": name,
                    "way": way,
                    "emulator": report["emulator"],
                    "in_packets": sums["in_packets"],
                    "out_packets": sums["out_packets"],
                    "out_bytes": sums["out_bytes"],
                    "dropped": ", ".join(f"{why} {n}" for why, n in sums["dropped"].items() if n),
                    "mean_wait_ms": sums.get("mean_wait_s", 0.0) * 1e3,
                    "emulator_late_p99_ms": lateness.get("p99_s", 0.0) * 1e3,
                    "is_valid": report["is_valid"],
                }
            )


def _look_at_machine(network: Network, result: TurnResult) -> None:
    cores = len(os.sched_getaffinity(0))
    if network.links and result.busy_cores >= BUSY_SHARE * cores:
        result.objections.append(
            f"the machine was overloaded: {result.busy_cores:.2f} of {cores} processors were busy "
            "all the time, so the figures may be the machine's and not the network's"
        )
