"""Contenders that are one iperf3 flow: straight, through the kernel's forwarding, or a relay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.bench.trial import Trial, make_trial
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers import iperf3
from packetcloud.testbed.peers.relays import Endpoints
from packetcloud.testbed.processes import Child, Children

StartRelay = Callable[[Children, Endpoints], Child]


@dataclass(frozen=True, slots=True)
class TcpFlow:
    """iperf3 from A to B; with `relay`, through a relay on the scene's centre."""

    name: str
    scene: Scene
    congestion_control: str = "cubic"
    relay: StartRelay | None = None

    def run(self, timing: Timing) -> Trial:
        scene = self.scene
        server_address = scene.address("b", "a" if scene.centre == "b" else scene.centre)
        server = server_address, scene.port()
        target = server
        with Children() as children:
            if self.relay is not None:
                target = scene.address(scene.centre, "a"), scene.port()
            flow = iperf3.Flow(scene.place("a"), scene.place("b"), *server, target)
            processes = [iperf3.start_server(children, flow)]
            if self.relay is not None:
                ends = Endpoints(scene.place(scene.centre), target, server)
                processes.append(self.relay(children, ends))
            client = iperf3.start_client(
                children, flow, self.congestion_control, timing.seconds, timing.warmup
            )
            with Meter([*processes, client]) as meter:
                window, report = iperf3.wait_window(client, timing.seconds, timing.warmup)
            end = report["end"]
            return make_trial(
                window,
                meter,
                retransmits=end["sum_sent"].get("retransmits"),
                congestion_control=end.get("sender_tcp_congestion"),
            )
