"""`packetcloud bench hop`: one hop against one TCP flow on the same veth pair.

Source: docs/reference/bench.md, "hop".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from packetcloud.testbed.bench.flows import TcpFlow
from packetcloud.testbed.bench.modes import Plan, Records, measure_modes
from packetcloud.testbed.bench.ours import SEALED, Ends, Load
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Contender, Progress, Timing, best, ratio
from packetcloud.testbed.bench.scene import Scene, hop_scene
from packetcloud.testbed.bench.trial import Trial, make_trial
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.processes import Children


@dataclass(frozen=True, slots=True)
class OurHop:
    """Two processes with a hop node each: chunks of 1 MiB from A to B, back to back.

    In the open, like the peers, or sealed, as sessions are unless their link is declared private.
    """

    scene: Scene
    load: Load = field(default_factory=Load)
    name: str = "ours"

    def run(self, timing: Timing) -> Trial:
        scene = self.scene
        with Children() as children:
            ends = Ends(children, self.load, timing)
            listen = scene.address("b", "a"), scene.port()
            ends.start_receiver(scene.place("b"), "--listen", f"{listen[0]}:{listen[1]}")
            ends.start_sender(scene.place("a"), listen, ends.guid)
            assert ends.sender is not None and ends.receiver is not None
            with Meter([ends.sender, ends.receiver]) as meter:
                window, chunks = ends.wait_window()
            sent, received = ends.finish()
            if sent["settled"].get("accepted", 0) != received["bodies"]:
                raise ChildError(f"{sent['settled']} at the sender, {received['bodies']} received")
            return make_trial(window, meter, chunks=chunks, sender=sent, receiver=received)


def bench_hop(modes: Sequence[LinkMode | None], timing: Timing, progress: Progress) -> Document:
    """Measure in each mode; None stands for loopback."""
    document = begin_document("hop", timing, modes[0] is None, ("iperf3",))
    document["chunk_bytes"] = Load().payload_bytes
    plan = Plan(hop_scene, _contenders, _figures)
    document["modes"], document["failures"] = measure_modes(plan, modes, timing, progress)
    return document


def _contenders(scene: Scene) -> list[Contender]:
    return [
        OurHop(scene, Load(is_open=True)),
        OurHop(scene, name=SEALED),
        TcpFlow("cubic", scene, "cubic"),
        TcpFlow("bbr", scene, "bbr"),
    ]


def _figures(records: Records) -> Document:
    names = ("ours", SEALED, "cubic", "bbr")
    ours, sealed, cubic, bbr = (records[name].goodput_gbps for name in names)
    return {
        "goodput_gbps": ours,
        "sealed_gbps": sealed,
        "sealed_over_open": ratio(sealed, ours),
        "cubic_gbps": cubic,
        "bbr_gbps": bbr,
        "ratio": ratio(ours, best(cubic, bbr)),
        "ratio_sealed": ratio(sealed, best(cubic, bbr)),
    }
