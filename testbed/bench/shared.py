"""Several flows over one bottleneck at once, ours and TCP, and what each got second by second."""

from __future__ import annotations

import signal
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from packetcloud.testbed.bench.emulated import EmulatedScene
from packetcloud.testbed.bench.lossy import check_custody
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.meter import WHOLE_MACHINE, Meter
from packetcloud.testbed.peers import iperf3
from packetcloud.testbed.processes import Child, Children, Event, python_command

OURS = "ours"
BACKGROUND = "background"
"""Ours, in the class that yields to others."""
TCP = ("cubic", "bbr")
CHUNK_BYTES = 16 << 10
"""So small that one of 16 flows on 24 Mbit/s gets a dozen each second: per-second figures say
something about the flow, not about where a chunk ends."""
OUTSTANDING = 16
TICK_S = 0.25
READY_TIMEOUT_S = 60.0
"""For 32 processes on two cores."""
DONE_TIMEOUT_S = 30.0

Points = Sequence[tuple[float, float]]
"""Moments, and how many bytes had arrived by then."""


def bytes_at(points: Points, moment_s: float) -> float:
    """Return how many bytes had arrived at a moment, between two points by a straight line."""
    place = bisect_right(points, moment_s, key=lambda point: point[0])
    if place == 0:
        return points[0][1] if points else 0.0
    before_s, before = points[place - 1]
    if place == len(points):
        return before
    after_s, after = points[place]
    return before + (after - before) * (moment_s - before_s) / (after_s - before_s)


def per_second_bps(points: Points, begin_s: float, seconds: int) -> list[float]:
    """Return bits per second in each of so many seconds."""
    marks = [bytes_at(points, begin_s + number) for number in range(seconds + 1)]
    return [(later - earlier) * 8 for earlier, later in pairwise(marks)]


def jain(values: Sequence[float]) -> float:
    """Return Jain's index: 1 when all got the same, 1/n when one got everything.

    Source: Jain, Chiu, Hawe, DEC-TR-301 (1984). Nothing for anybody counts as 1/n.
    """
    squares = sum(value * value for value in values)
    if not squares:
        return 1 / len(values)
    return sum(values) ** 2 / (len(values) * squares)


@dataclass(frozen=True, slots=True)
class FlowMix:
    """So many flows of each kind from A to B, begun at the same moment. A contender."""

    name: str
    scene: EmulatedScene
    flows: Mapping[str, int]
    """`ours`, `background`, `cubic`, `bbr`: how many."""

    def run(self, timing: Timing) -> Trial:
        with Children() as children:
            ours = [
                _OurFlow(children, self.scene, kind)
                for kind in (OURS, BACKGROUND)
                for _ in range(self.flows.get(kind, 0))
            ]
            _start_all(ours)
            tcp = [
                _TcpFlow(children, self.scene, kind)
                for kind in TCP
                for _ in range(self.flows.get(kind, 0))
            ]
            begin_s = time.monotonic() + timing.warmup
            for flow in ours:
                flow.begin()
            for peer in tcp:
                peer.begin()
            with Meter([]) as meter:
                _sleep_until(begin_s + timing.seconds + 2 * TICK_S, [*ours, *tcp])
            for flow in ours:
                flow.sender.signal(signal.SIGTERM)
            got: dict[str, list[list[float]]] = {
                kind: [] for kind, count in self.flows.items() if count
            }
            for peer in tcp:
                got[peer.kind].append(peer.per_second_bps(timing))
            for peer in tcp:
                peer.end()  # beside it what yields would drain for as long as it may
            for flow in ours:
                got[flow.kind].append(flow.per_second_bps(begin_s, timing.seconds))
            for flow in ours:
                flow.finish()
        used_s = meter.cpu_seconds(begin_s, begin_s + timing.seconds)[WHOLE_MACHINE]
        return mix_trial(got, timing, used_s / timing.seconds)


def mix_trial(
    got: Mapping[str, list[list[float]]], timing: Timing, busy_cores: float = 0.0
) -> Trial:
    """Put together what each flow got in each second.

    Args:
        got: `got[kind][flow][second]`, bits per second.
        busy_cores: of the whole machine. When it has no more, it shares out itself, not the link.
    """
    everybody = [flow for flows in got.values() for flow in flows]
    seconds = list(zip(*everybody, strict=True))
    total_bps = sum(map(sum, everybody)) / timing.seconds
    means = {kind: [sum(flow) / timing.seconds for flow in flows] for kind, flows in got.items()}
    return Trial(
        total_bps / 1e9,
        timing.seconds,
        {},
        {
            "jain": sum(map(jain, seconds)) / len(seconds),
            "jain_of_means": jain([mean for flows in means.values() for mean in flows]),
            "mean_mbps": {kind: [mean / 1e6 for mean in flows] for kind, flows in means.items()},
            "per_second_mbps": {
                kind: [[round(bps / 1e6, 3) for bps in flow] for flow in flows]
                for kind, flows in got.items()
            },
            "fair_shares": fair_shares(means),
            "busy_cores": busy_cores,
        },
    )


def fair_shares(means: Mapping[str, list[float]]) -> Document:
    """Return what a flow of each kind got on average, over what everybody got on average."""
    everybody = [mean for flows in means.values() for mean in flows]
    fair = sum(everybody) / len(everybody)
    return {kind: sum(flows) / len(flows) / fair if fair else None for kind, flows in means.items()}


@dataclass(slots=True)
class _OurFlow:
    """A receiver and a sender of ours."""

    children: Children
    scene: EmulatedScene
    kind: str
    receiver: Child = field(init=False)
    sender: Child = field(init=False)
    _listen: str = field(init=False)
    _ticks: list[Event] = field(init=False, default_factory=list)

    def start_receiver(self) -> None:
        self._listen = f"{self.scene.address('b', 'a')}:{self.scene.port()}"
        options = ["--listen", self._listen, "--payload-bytes", CHUNK_BYTES, "--check"]
        command = python_command("packetcloud.testbed.traffic.receiver", *options, "--tick", TICK_S)
        self.receiver = self.children.start("receiver", command, self.scene.place("b"))

    def start_sender(self) -> None:
        guid = self.receiver.wait_event("ready", READY_TIMEOUT_S)["guid"]
        options = ["--connect", self._listen, "--expect", guid, "--destination", guid]
        options += ["--payload-bytes", CHUNK_BYTES, "--outstanding", OUTSTANDING, "--hold"]
        options += ["--background"] if self.kind == BACKGROUND else []
        command = python_command("packetcloud.testbed.traffic.sender", *options)
        self.sender = self.children.start("sender", command, self.scene.place("a"))

    def begin(self) -> None:
        self.sender.signal(signal.SIGUSR1)

    def is_running(self) -> bool:
        return self.sender.is_running and self.receiver.is_running

    def last_words(self) -> str:
        return f"{self.sender.last_words()}; {self.receiver.last_words()}"

    def per_second_bps(self, begin_s: float, seconds: int) -> list[float]:
        # The last tick is the first one after the end.
        while not self._ticks or self._ticks[-1]["at_s"] < begin_s + seconds:
            self._ticks.append(self.receiver.wait_event("tick", READY_TIMEOUT_S))
        points = [(tick["at_s"], float(tick["payload_bytes"])) for tick in self._ticks]
        return per_second_bps(points, begin_s, seconds)

    def finish(self) -> None:
        """End both sides.

        Raises:
            ChildError: chunks were altered, or more or fewer arrived than can be.
        """
        sent = self.sender.wait_event("done", DONE_TIMEOUT_S)
        self.receiver.signal(signal.SIGTERM)
        received = self.receiver.wait_event("done", DONE_TIMEOUT_S)
        if received["altered"] or received["wrong_length"]:
            raise ChildError(f"{received['altered']} chunks arrived altered")
        check_custody(sent, received)


@dataclass(slots=True)
class _TcpFlow:
    """An iperf3 flow."""

    children: Children
    scene: EmulatedScene
    kind: str
    server: Child = field(init=False)
    client: Child = field(init=False)
    _flow: iperf3.Flow = field(init=False)

    def __post_init__(self) -> None:
        address = self.scene.address("b", "a"), self.scene.port()
        place_a, place_b = self.scene.place("a"), self.scene.place("b")
        self._flow = iperf3.Flow(place_a, place_b, *address, address)
        self.server = iperf3.start_interval_server(self.children, self._flow)

    def begin(self) -> None:
        self.client = iperf3.start_endless_client(self.children, self._flow, self.kind)

    def is_running(self) -> bool:
        return self.client.is_running

    def last_words(self) -> str:
        return self.client.last_words()

    def per_second_bps(self, timing: Timing) -> list[float]:
        count = timing.warmup + timing.seconds
        found = iperf3.wait_intervals(self.server, self.client, count, READY_TIMEOUT_S)
        if len(found) < count:
            raise ChildError(f"{self.kind}: {len(found)} of {count} seconds")
        return [one.bits_per_s for one in found[timing.warmup :]]

    def end(self) -> None:
        self.client.stop(grace_s=0.0)


def _start_all(flows: Sequence[_OurFlow]) -> None:
    """Start all at once, then wait for all: one after the other would take 20 s for 16 flows."""
    for flow in flows:
        flow.start_receiver()
    for flow in flows:
        flow.start_sender()
    for flow in flows:
        flow.sender.wait_event("ready", READY_TIMEOUT_S)


def _sleep_until(moment_s: float, flows: Sequence[_OurFlow | _TcpFlow]) -> None:
    """Sleep while all flows live.

    Raises:
        ChildError: one has ended.
    """
    while time.monotonic() < moment_s:
        for flow in flows:
            if not flow.is_running():
                raise ChildError(f"a flow ended early: {flow.last_words()}")
        time.sleep(0.2)
