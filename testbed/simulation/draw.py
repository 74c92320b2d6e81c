"""Draws the parts of a plan: links, operations, moments, and what no scenario fixes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from packetcloud.testbed.simulation.application import Operation
from packetcloud.testbed.simulation.network import LinkOptions
from packetcloud.testbed.simulation.plan import (
    LOAD_BEGINS_S,
    LOAD_LASTS_S,
    LONGEST_LIFETIME_S,
    Fault,
    Plan,
)

SHORTEST_LIFETIME_S = 2.0

Flow = tuple[str, str, tuple[str, ...]]
"""Source, destination and the services on the way."""


class Draw:
    """Draws the parts of one plan from one stream of random numbers."""

    def __init__(self, seed: int, scenario: str) -> None:
        self.seed = seed
        self.scenario = scenario
        self.rng = random.Random(f"packetcloud simulation {scenario} {seed}")
        self.is_private = self.rng.random() < 0.2

    def link(
        self, *, lossy: bool = False, bursty: bool = False, crooked: bool = False
    ) -> LinkOptions:
        rng = self.rng
        rate_bps = rng.choice([0.0, 0.0, 5e6, 20e6, 100e6])
        options = LinkOptions(
            delay_s=rng.choice([0.0001, 0.001, 0.005, 0.02, 0.05]),
            jitter_s=rng.choice([0.0, 0.0, 0.002]),
            rate_bps=rate_bps,
            queue_bytes=rng.choice([37_500, 150_000, 1 << 20]),
        )
        if lossy:
            options = replace(options, loss=rng.choice([0.01, 0.02, 0.05, 0.1, 0.2, 0.3]))
        if bursty:
            options = replace(options, burst_enter=rng.choice([0.005, 0.02, 0.05]))
        if crooked:
            options = replace(
                options,
                duplicate=rng.choice([0.0, 0.02, 0.1, 0.3]),
                reorder=rng.choice([0.05, 0.2, 0.5]),
                reorder_s=rng.choice([0.001, 0.01, 0.05]),
                replay=rng.choice([0.0, 0.0, 0.05]),
                corrupt=rng.choice([0.0, 0.02, 0.05]),
                # An open session has only the checksum of UDP between it and bit flips.
                corruption_is_seen=self.is_private,
            )
        return options

    def links(
        self, names: Iterable[str], **traits: bool
    ) -> dict[str, tuple[LinkOptions, LinkOptions]]:
        """Draw each link with these traits; a third of them differ by direction."""
        links = {}
        for name in names:
            there = self.link(**traits)
            links[name] = (there, there if self.rng.random() < 0.7 else self.link(**traits))
        return links

    def operations(
        self,
        flows: Sequence[Flow],
        count: int,
        *,
        faults: tuple[Fault, ...] = (),
    ) -> tuple[Operation, ...]:
        """Draw `count` operations, and one along each flow into every fault: it must be felt."""
        rng = self.rng
        moments = [LOAD_BEGINS_S + rng.random() * LOAD_LASTS_S for _ in range(count)]
        for fault in faults:
            moments += [fault.at_s + rng.random() * 0.1 for _ in flows]
        drawn = []
        for number, at_s in enumerate(moments):
            source, destination, services = flows[number % len(flows)]
            drawn.append(
                Operation(
                    op=number + 1,
                    at_s=at_s,
                    source=source,
                    destination=destination,
                    size=self.size(),
                    services=services,
                    lifetime_s=rng.uniform(SHORTEST_LIFETIME_S, LONGEST_LIFETIME_S),
                    wants_report=rng.random() < 0.9,
                )
            )
        return tuple(drawn)

    def size(self) -> int:
        """Mostly small; one in a hundred is large."""
        rng = self.rng
        share = rng.random()
        if share < 0.01:
            return rng.randint(100_000, 300_000)
        if share < 0.15:
            return rng.randint(8_000, 60_000)
        return int(16 * 2 ** rng.uniform(0.0, 9.0))

    def moment(self) -> float:
        """A moment in the middle of the load."""
        return LOAD_BEGINS_S + 0.5 + self.rng.random() * (LOAD_LASTS_S - 2.0)

    def plan(self, topology: str, operations: tuple[Operation, ...], **rest: Any) -> Plan:
        common: dict[str, Any] = {
            "joins_datagrams": self.rng.random() < 0.7,
            "rekey_after_s": self.rng.choice([3600.0, 3600.0, 1.5]),
            "is_private": self.is_private,
            "has_fast_aes": self.rng.random() < 0.7,
            "detached_hold_s": self.rng.choice([5.0, 30.0]),
        }
        values = common | rest
        return Plan(self.seed, self.scenario, topology, operations=operations, **values)
