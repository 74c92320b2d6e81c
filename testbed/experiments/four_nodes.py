"""The paper's topology: A - R - B, and the cloudlet C at R, with links that are chosen.

Figure 4(a) has capacity, latency and loss of the links, and the text of the paper does not: only
that NICs do 1 Gbit/s. So the links here are chosen such that TCP CUBIC measures what the paper
measured: 4.30 Mbit/s from B to A, and from B to C, which is all that TCP does in the third
scenario, the 7.10 Mbit/s that bound it. `calibration` finds them; what it tried stands in its
table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from packetcloud.testbed.bench.emulated import Conditions, EmulatedScene, run_valid
from packetcloud.testbed.bench.rounds import Contender, Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.emulator.link import Emulator
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.namespaces import Namespace, NetworkLab

RATE_BPS = 50e6
"""Of both links: twice what the paper's chunks reached, and less than two cores can emulate. TCP
never fills it, so it decides about chunks alone."""
FAR_DELAY_S = 0.015
"""One way between B and R: chosen freely, as loss and delay can be had for each other."""
QUEUE_PACKETS = 125
"""One bandwidth-delay product of the longer link."""


@dataclass(frozen=True, slots=True)
class Links:
    """What is chosen: loss in both directions of both links, and the delay of A's."""

    loss: float
    near_delay_s: float

    def conditions(self) -> Conditions:
        """Return the shapes of both links."""
        near, far = self._shape(self.near_delay_s), self._shape(FAR_DELAY_S)
        return Conditions(far, far, {"a": near, "b": far})

    def _shape(self, delay_s: float) -> Shape:
        return Shape(
            rate_bps=RATE_BPS, delay_s=delay_s, queue_packets=QUEUE_PACKETS, loss=self.loss
        )


CHOSEN = Links(loss=0.0033, near_delay_s=0.0018)


class FourNodes(EmulatedScene):
    """A, B and C around R; see `Scene`. C's link is a veth pair: cloudlet and router are beside
    each other."""

    def __init__(self) -> None:
        super().__init__("router", "a", "b", "c", emulator=Emulator.TUN)

    def _build(self, lab: NetworkLab) -> None:
        super()._build(lab)
        try:
            for role in (self.centre, *self.leaves):
                place = self.place(role)
                assert place is not None
                # Or a run would begin with what the kernel remembers of the one before.
                place.set_sysctl("net.ipv4.tcp_no_metrics_save", "1")
        except BaseException:  # Ctrl-C too: nobody has a handle to them yet
            self._emulators.close()
            raise

    def _join(
        self, lab: NetworkLab, leaf: Namespace, centre: Namespace, mtu: int
    ) -> tuple[str, str]:
        if leaf.role == "c":
            return Scene._join(self, lab, leaf, centre, mtu)
        return super()._join(lab, leaf, centre, mtu)


@dataclass(slots=True)
class OnLinks:
    """A contender on these links, for a time of its own; its n-th run has the same seed as the
    others' n-th run.

    A flow of TCP that did not begin, or broke off, fails: counted as 0 it would look like a slow
    one."""

    contender: Contender
    scene: FourNodes
    links: Links
    seconds: int
    next_seed: Callable[[], int]

    @property
    def name(self) -> str:
        return self.contender.name

    def run(self, timing: Timing) -> Trial:
        own = Timing(self.seconds, timing.warmup, timing.repeats)
        conditions, seed = self.links.conditions(), self.next_seed()
        trial = run_valid(self.scene, conditions, seed, lambda: self.contender.run(own))
        if not trial.details.get("is_whole", True):
            per_second = trial.details["per_second_mbps"]
            assert isinstance(per_second, list)
            raise ChildError(
                f"the flow broke off after {len(per_second)} of {own.warmup + own.seconds} s "
                f"(seed {seed}): it counts for nothing"
            )
        details = {**trial.details, "seed": seed}
        return Trial(trial.goodput_gbps, trial.seconds, trial.cpu_s_per_gb, details)
