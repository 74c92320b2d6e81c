"""Contenders on bad links: our chunks, and TCP that need not survive."""

from __future__ import annotations

from dataclasses import dataclass, field

from packetcloud.testbed.bench.emulated import EmulatedScene
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.path import attach_ends, router_on_centre
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Trial, Window, make_trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers import iperf3
from packetcloud.testbed.processes import Children, Event

START_LIMIT_S = 40.0
"""A TCP flow that has not begun by then counts as goodput 0: its SYN and the test's own words were
lost over and over."""


@dataclass(frozen=True, slots=True)
class OurTransfer:
    """Chunks from A to B, back to back: over one hop, or through a router on the centre, also the
    other way or between other leaves."""

    scene: EmulatedScene
    load: Load = field(default_factory=Load)
    name: str = "ours"
    source: str = "a"
    sink: str = "b"

    def run(self, timing: Timing) -> Trial:
        scene = self.scene
        with Children() as children:
            if scene.centre == "b":
                ends = Ends(children, self.load, timing)
                listen = scene.address("b", "a"), scene.port()
                ends.start_receiver(scene.place("b"), "--listen", f"{listen[0]}:{listen[1]}")
                ends.start_sender(scene.place("a"), listen, ends.guid)
                others = []
            else:
                router = router_on_centre(children, scene)
                ends = attach_ends(
                    children, scene, router, self.load, timing, self.source, self.sink
                )
                others = [router.child]
            assert ends.sender is not None and ends.receiver is not None
            with Meter([ends.sender, *others, ends.receiver]) as meter:
                window, chunks = ends.wait_window()
            sent, received = ends.finish()
            check_custody(sent, received)
            return make_trial(window, meter, chunks=chunks, sender=sent, receiver=received)


def check_custody(sent: Event, received: Event) -> None:
    """What was taken has arrived, and nothing arrived that was not sent.

    What the end of the run cut off may have arrived all the same: the sender never heard of it.

    Raises:
        ChildError: the counts do not allow that.
    """
    taken = sent["settled"].get("accepted", 0)
    if not taken <= received["bodies"] <= sent["sent"] or sent["refusals"]:
        raise ChildError(
            f"{sent['sent']} chunks sent, {sent['settled']} at the sender, refused "
            f"{sent['refusals']}, {received['bodies']} arrived"
        )


@dataclass(frozen=True, slots=True)
class TcpTransfer:
    """iperf3 from one leaf to another, counted where it arrives."""

    name: str
    scene: EmulatedScene
    source: str = "a"
    sink: str = "b"
    congestion_control: str | None = None
    """None: the name says it."""

    def run(self, timing: Timing) -> Trial:
        scene = self.scene
        towards = self.source if scene.centre == self.sink else scene.centre
        server = scene.address(self.sink, towards), scene.port()
        flow = iperf3.Flow(scene.place(self.source), scene.place(self.sink), *server, server)
        with Children() as children:
            receiver = iperf3.start_interval_server(children, flow)
            client = iperf3.start_endless_client(
                children, flow, self.congestion_control or self.name
            )
            with Meter([receiver, client]) as meter:
                count = timing.warmup + timing.seconds
                found = iperf3.wait_intervals(receiver, client, count, START_LIMIT_S)
        return tcp_trial(found, timing, meter)


def tcp_trial(found: list[iperf3.Interval], timing: Timing, meter: Meter) -> Trial:
    """Count the seconds after the warm-up; those that a broken flow did not have count as 0."""
    counted = found[timing.warmup :]
    bits = sum(one.bits_per_s * (one.end_s - one.begin_s) for one in counted)
    end_s = meter.end_s
    window = Window(end_s - timing.seconds, end_s, round(bits / 8))
    return make_trial(
        window,
        meter,
        has_begun=bool(found),
        is_whole=len(counted) == timing.seconds,
        per_second_mbps=[one.bits_per_s / 1e6 for one in found],
    )
