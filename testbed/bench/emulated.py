"""Scenes of emulated links, and runs that count only if the emulator kept its schedule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Contender, Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.bench.trial import Trial
from packetcloud.testbed.emulator.link import Emulator, Link, chosen, start_link
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import DEFAULT_MTU, Namespace, NetworkLab
from packetcloud.testbed.processes import Children

LINK = Shape(rate_bps=50e6, delay_s=0.015, queue_packets=125)
"""50 Mbit/s, 30 ms there and back; 125 full packets are one bandwidth-delay product."""
INTEROP_LINK = Shape(rate_bps=10e6, delay_s=0.015, queue_packets=25)
"""The base link of the QUIC interop runner: 10 Mbit/s, 15 ms one way, a queue of 25 packets."""
ATTEMPTS = 3
"""A run in which the emulator was late is done again so often; then it counts as failed."""
NOT_VOUCHED = "the link emulator did not keep its schedule"
"""So begins why such a run does not count."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the links of a scene do."""

    towards_b: Shape
    """From A to B, where the payload goes."""
    towards_a: Shape
    by_leaf: Mapping[str, Shape] = field(default_factory=dict)
    """Links that differ, by leaf, the same both ways."""

    @classmethod
    def both(cls, shape: Shape) -> Conditions:
        return cls(shape, shape)


class EmulatedScene(Scene):
    """A star of emulated links; see `Scene`."""

    def __init__(self, centre: str, *leaves: str, emulator: Emulator) -> None:
        super().__init__(LinkMode.BARE, centre, dict.fromkeys(leaves, DEFAULT_MTU))
        self.emulator = chosen(emulator)
        self._emulators = Children()
        self.links: dict[str, Link] = {}
        """By leaf; its left end is the leaf."""

    @property
    def name(self) -> str:
        return "emulated"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._emulators.close()
        super().__exit__(kind, error, trace)

    def restart(self, conditions: Conditions, seed: int) -> None:
        """Begin anew on every link, empty and with chances from `seed`."""
        for leaf, link in self.links.items():
            link.restart(*self._ways(leaf, conditions), seed)

    def change(self, conditions: Conditions) -> None:
        """Change every link while packets pass."""
        for leaf, link in self.links.items():
            link.change(*self._ways(leaf, conditions))

    def report(self) -> Document:
        """Return each link's report, and whether all of them are valid."""
        reports = {leaf: link.report() for leaf, link in self.links.items()}
        objections = [text for report in reports.values() for text in report["objections"]]
        return {"links": reports, "objections": objections, "is_valid": not objections}

    def _ways(self, leaf: str, conditions: Conditions) -> tuple[Shape, Shape]:
        """What the leaf sends, and what it gets: only B is where the payload goes."""
        if (shape := conditions.by_leaf.get(leaf)) is not None:
            return shape, shape
        ways = conditions.towards_b, conditions.towards_a
        return ways if leaf != "b" else (ways[1], ways[0])

    def _join(
        self, lab: NetworkLab, leaf: Namespace, centre: Namespace, mtu: int
    ) -> tuple[str, str]:
        plain = Shape()
        try:
            link = start_link(
                lab, self._emulators, leaf, centre, plain, plain, 0, mtu, self.emulator
            )
        except BaseException:  # Ctrl-C too: the caller has no handle yet to end them with
            self._emulators.close()
            raise
        self.links[leaf.role] = link
        return link.left.address, link.right.address


def emulated_hop(emulator: Emulator = Emulator.TUN) -> EmulatedScene:
    """A - B."""
    return EmulatedScene("b", "a", emulator=emulator)


def emulated_path(emulator: Emulator = Emulator.TUN) -> EmulatedScene:
    """A - R - B, the same link twice."""
    return EmulatedScene("router", "a", "b", emulator=emulator)


@dataclass(slots=True)
class OnLink:
    """A contender under set conditions. Its n-th run has the same seed as the others' n-th run."""

    contender: Contender
    scene: EmulatedScene
    conditions: Conditions
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def name(self) -> str:
        return self.contender.name

    def run(self, timing: Timing) -> Trial:
        return run_valid(
            self.scene, self.conditions, next(self.seeds), lambda: self.contender.run(timing)
        )


def run_valid(
    scene: EmulatedScene, conditions: Conditions, seed: int, run: Callable[[], Trial]
) -> Trial:
    """Run until the emulator kept its schedule; what the links did goes into the details.

    Raises:
        ChildError: it never did.
    """
    for _ in range(ATTEMPTS):
        scene.restart(conditions, seed)
        trial = run()
        report = scene.report()
        if report["is_valid"]:
            return replace(trial, details={**trial.details, "emulator": report})
    raise ChildError(
        f"{NOT_VOUCHED} in {ATTEMPTS} runs, so nothing was measured: "
        + "; ".join(report["objections"])
    )
