"""One load of a turn: its two processes, and what they say of it.

Chunks go from our sender to our receiver, hosts with keys of their own; TCP is iperf3's.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any, Protocol

from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.peers import iperf3
from packetcloud.testbed.processes import Child, Children, Event, python_command
from packetcloud.testbed.topology.build import Network
from packetcloud.testbed.topology.tables import LoadTable

START_LIMIT_S = 30.0
SLACK_S = 10.0
"""How long after its time a load may still count, on a path that is slow or broken."""
ARRIVAL_LIMIT_S = 60.0
"""How long chunks that were taken may take to arrive after the sender has ended: routers on the way
hold tens of megabytes."""
STALL_S = 5.0
"""None arrives for so long: the rest is not waited for."""
TICK_S = 0.25
_FIRST_TCP_PORT = 5201


@dataclass(frozen=True, slots=True)
class LoadTiming:
    """Seconds that count, and those before them that do not."""

    seconds: float
    warmup_s: float


@dataclass(slots=True)
class LoadResult:
    """What became of a load."""

    name: str
    table: LoadTable
    goodput_mbps: float | None = None
    """Payload that arrived; None: too little did."""
    arrived_chunks: int | None = None
    lost_chunks: int | None = None
    """Taken into custody and not arrived when the run ended."""
    refused: dict[str, int] = field(default_factory=dict)
    retransmitted: int | None = None
    """Segments sent again by the source."""
    delay_p50_ms: float | None = None
    """From the source's sending to the destination's receiving, at a set rate."""
    delay_p99_ms: float | None = None
    timeline: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the turn began, Mbit/s."""
    problem: str = ""


class RunningLoad(Protocol):
    """A load whose ends are ready."""

    def begin(self) -> None:
        """Send from now on; the loads of a turn do so together."""
        ...

    def is_over(self) -> bool:
        """Tell whether what counts has been counted."""
        ...

    def finish(self, began_s: float) -> LoadResult:
        """End it and return what it measured.

        Args:
            began_s: when the turn began, CLOCK_MONOTONIC.

        Raises:
            ChildError: an end failed.
        """
        ...

    def abandon(self) -> None:
        """End it at once; nobody wants to know."""
        ...


def start_load(
    network: Network, children: Children, name: str, table: LoadTable, timing: LoadTiming, at: int
) -> RunningLoad:
    """Make both ends of a load ready; none sends before `begin`.

    Args:
        at: its number in the file; ports and files follow from it.

    Raises:
        ChildError: an end did not start.
    """
    if table.kind == "tcp":
        return _TcpLoad(network, children, name, table, timing, _FIRST_TCP_PORT + at)
    return _ChunkLoad(network, children, name, table, timing)


class _ChunkLoad:
    def __init__(
        self,
        network: Network,
        children: Children,
        name: str,
        table: LoadTable,
        timing: LoadTiming,
    ) -> None:
        self._result = LoadResult(name, table)
        self._timing = timing
        self._events: list[Event] = []
        self._folder = children.directory
        receiver = self._options(network, table.destination)
        is_altered = bool(table.via or network.file.rule)
        # Services may alter payloads: then there is nothing to compare with.
        receiver += [] if is_altered else ["--check"]
        receiver += ["--warmup", timing.warmup_s, "--seconds", timing.seconds]
        receiver += ["--payload-bytes", table.chunk, "--arrivals", self._times("arrivals")]
        place = network.places[table.destination]
        self._receiver = self._start(children, f"{name}-receiver", place, "receiver", receiver)
        self._receiver.wait_event("ready", START_LIMIT_S)
        sender = self._options(network, table.source)
        sender += ["--destination", network.guids[table.destination]]
        sender += ["--payload-bytes", table.chunk, "--outstanding", table.outstanding]
        sender += ["--rate", table.rate, "--departures", self._times("departures")]
        sender += ["--hold"]
        for service in table.via:
            sender += ["--sid", network.guids[service]]
        place = network.places[table.source]
        self._sender = self._start(children, f"{name}-sender", place, "sender", sender)
        self._sender.wait_event("ready", START_LIMIT_S)

    def begin(self) -> None:
        self._sender.signal(signal.SIGUSR1)

    def is_over(self) -> bool:
        self._look()
        return any(event["event"] == "window" for event in self._events)

    def finish(self, began_s: float) -> LoadResult:
        result = self._result
        self._look()
        self._sender.signal(signal.SIGTERM)
        sent = self._sender.wait_event("done", START_LIMIT_S)
        taken = sent["settled"].get("accepted", 0)
        self._await_arrivals(taken)
        self._receiver.signal(signal.SIGTERM)
        received = self._await_done()
        result.refused = dict(sent["refusals"])
        result.lost_chunks = max(0, taken - received["bodies"])
        self._count(began_s)
        if self._result.table.rate > 0:
            self._delays()
        if received["altered"] or received["wrong_length"]:
            result.problem = (
                f"{received['altered']} of {received['compared']} compared chunks arrived altered, "
                f"{received['wrong_length']} with a wrong length"
            )
        return result

    def abandon(self) -> None:
        for child in (self._sender, self._receiver):
            child.stop(grace_s=0.0)

    def _count(self, began_s: float) -> None:
        """Take goodput from the window, or from what arrived in time where it never closed."""
        result, ticks = self._result, [e for e in self._events if e["event"] == "tick"]
        result.timeline = [
            (
                later["at_s"] - began_s,
                (later["payload_bytes"] - earlier["payload_bytes"])
                * 8e-6
                / (later["at_s"] - earlier["at_s"]),
            )
            for earlier, later in pairwise(ticks)
            if later["at_s"] >= began_s
        ]
        window = next((e for e in self._events if e["event"] == "window"), None)
        if window is not None:
            seconds = window["end_s"] - window["begin_s"]
            result.goodput_mbps = window["payload_bytes"] * 8e-6 / seconds
            result.arrived_chunks = window["bodies"]
            return
        begin_s = began_s + self._timing.warmup_s
        counted = [e for e in ticks if begin_s <= e["at_s"] <= begin_s + self._timing.seconds]
        if len(counted) >= 2:
            first, last = counted[0], counted[-1]
            gained = last["payload_bytes"] - first["payload_bytes"]
            result.goodput_mbps = gained * 8e-6 / (last["at_s"] - first["at_s"])

    def _delays(self) -> None:
        arrivals = dict(json.loads(self._times("arrivals").read_text()))
        departures = json.loads(self._times("departures").read_text())
        delays = [arrivals[one] - left_s for one, left_s in departures if one in arrivals]
        if len(delays) >= 2:
            cuts = quantiles(delays, n=100, method="inclusive")
            self._result.delay_p50_ms, self._result.delay_p99_ms = cuts[49] * 1e3, cuts[98] * 1e3

    def _await_arrivals(self, wanted: int) -> None:
        """Wait until the receiver has `wanted` chunks, or gets no further."""
        began_s = moved_s = time.monotonic()
        had = -1
        while (now_s := time.monotonic()) < min(began_s + ARRIVAL_LIMIT_S, moved_s + STALL_S):
            self._receiver.signal(signal.SIGUSR1)
            time.sleep(0.1)
            self._look()
            said = [event["bodies"] for event in self._events if event["event"] == "progress"]
            if said and said[-1] >= wanted:
                return
            if said and said[-1] > had:
                had, moved_s = said[-1], now_s

    def _await_done(self) -> Event:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            self._look()
            for event in self._events:
                if event["event"] == "done":
                    return event
            if not self._receiver.is_running:
                # What it said last may still be on its way to us.
                deadline = min(deadline, time.monotonic() + 1.0)
            time.sleep(0.02)
        raise ChildError(f"{self._receiver.name} says nothing: {self._receiver.last_words()}")

    def _look(self) -> None:
        """Take what the receiver said.

        Raises:
            ChildError: it said that something is wrong.
        """
        for event in self._receiver.taken_events():
            if event["event"] == "error":
                raise ChildError(f"{self._receiver.name}: {event['text']}")
            self._events.append(event)

    def _times(self, what: str) -> Path:
        return self._folder / f"{self._result.name}-{what}.json"

    @staticmethod
    def _options(network: Network, host: str) -> list[object]:
        router = network.graph.router_of(host)
        return [
            *("--connect", network.router_address(host)),
            *("--expect", network.guids[router]),
            *("--identity", network.keys / f"{host}.key"),
            *("--tick", TICK_S),
        ]

    @staticmethod
    def _start(
        children: Children, name: str, place: Any, module: str, options: Sequence[object]
    ) -> Child:
        command = python_command(f"packetcloud.testbed.traffic.{module}", *options)
        return children.start(name, command, place)


class _TcpLoad:
    def __init__(
        self,
        network: Network,
        children: Children,
        name: str,
        table: LoadTable,
        timing: LoadTiming,
        port: int,
    ) -> None:
        self._result = LoadResult(name, table)
        self._timing = timing
        address = network.graph.address_of(table.destination, table.source)
        places = network.places[table.source], network.places[table.destination]
        flow = iperf3.Flow(*places, address, port, (address, port))
        self._server = iperf3.start_server(children, flow)
        # Whole seconds are all that iperf3 knows.
        self._seconds = max(1, round(timing.seconds))
        self._warmup_s = max(0, round(timing.warmup_s))
        self._children, self._flow = children, flow
        self._client: Child | None = None

    def begin(self) -> None:
        # iperf3 cannot be held: it begins when its process has started, some 0.1 s later.
        self._client = iperf3.start_client(
            self._children, self._flow, self._result.table.congestion, self._seconds, self._warmup_s
        )

    def is_over(self) -> bool:
        return self._client is not None and not self._client.is_running

    def finish(self, began_s: float) -> LoadResult:
        result, client = self._result, self._client
        if client is None or client.is_running:
            result.problem = "TCP did not end in time"
            return result
        window, report = iperf3.wait_window(client, self._seconds, self._warmup_s)
        result.goodput_mbps = window.goodput_gbps * 1e3
        result.retransmitted = report["end"]["sum_sent"].get("retransmits")
        result.timeline = [
            (one["sum"]["end"], one["sum"]["bits_per_second"] * 1e-6)
            for one in report.get("intervals", ())
        ]
        return result

    def abandon(self) -> None:
        for child in (self._client, self._server):
            if child is not None:
                child.stop(grace_s=0.0)
