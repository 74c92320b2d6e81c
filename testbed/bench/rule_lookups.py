"""Header rules in `bench rules`: lookups a second, ours and the peers', by number of rules.

All sizes of all contenders are there at the same time, and each round asks all of them in turn.
Source: docs/reference/bench.md, "rules".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import psutil

from packetcloud.router.rules.segment import Segment, load_segment
from packetcloud.router.rules.table import Table
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress, ratio
from packetcloud.testbed.bench.rule_questions import QUESTIONS, OurRules
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import NetworkLab, can_make_namespaces
from packetcloud.testbed.peers.nftables import NftablesMaps
from packetcloud.testbed.peers.openvswitch import BYTES_PER_FLOW, OpenVSwitch
from packetcloud.testbed.processes import Child, Children, python_command
from packetcloud.testbed.traffic.rule_traffic import Names, RuleTraffic, Spread, make_names

SIZES = (100, 10_000, 1_000_000, 10_000_000)
PEER_LOOKUPS = 240_000
"""In each sample: a multiple of what a packet asks of either peer."""
CHECKED = 100
OURS = ("table", "decision", "cached")
PEERS = ("nftables", "openvswitch")
_WRITE_LIMIT_S = 900.0
_MEMORY_SHARE = 0.6
"""Of what is free, for the switch: the tables of all others are still to come."""


class Peer(Protocol):
    """Somebody else's tables of several sizes."""

    name: str
    sizes: tuple[int, ...]

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def load(self, size: int, names: Names) -> None: ...

    def lookup_s(self, size: int, names: Names) -> dict[str, float]:
        """Return the seconds for one lookup, by figure."""


def measure_lookups(sizes: Sequence[int], repeats: int, progress: Progress) -> Document:
    """Fill tables of these sizes and look names up in them, evenly and by Zipf's law.

    Raises:
        TestbedError: our own tables cannot be written, or do not find what they hold.
    """
    sizes = sorted(set(sizes))
    names = make_names(sizes[-1])
    document: Document = {"lookups_per_sample": QUESTIONS, "missing": {}}
    with ExitStack() as stack:
        children = stack.enter_context(Children())
        writers = {size: _start_writer(children, size) for size in sizes}
        peers = _open_peers(stack, children, sizes, document["missing"])
        for peer in list(peers):
            try:
                for size in peer.sizes:
                    progress(f"{peer.name}: {size} entries")
                    peer.load(size, names)
            except TestbedError as error:
                document["missing"][peer.name] = str(error)
                peers.remove(peer)
        segments = {}
        for size, writer in writers.items():
            progress(f"our table of {size} rules")
            writer.wait_event("done", _WRITE_LIMIT_S)
            segments[size] = load_segment(children.directory / f"{size}.segment")
        ours = OurRules({size: Table(1, [one]) for size, one in segments.items()}, names)
        rounds = _Rounds(ours, peers, names, sizes)
        for number in range(1, repeats + 1):
            for spread in Spread:
                for size in sizes:
                    progress(f"{size} rules, {spread}, {number} of {repeats}")
                    rounds.run(size, spread)
        document["sizes"] = {str(size): rounds.figures(size, segments[size]) for size in sizes}
    return document


def rate_ratio(lookups: Document, size: int, figure: str) -> float | None:
    """Return the rate with `size` rules, evenly hit, over that with the fewest; None: unknown."""
    measured = lookups.get("sizes", {})
    if str(size) not in measured:
        return None
    many, few = measured[str(size)], measured[min(measured, key=int)]
    return ratio(*(one[Spread.EVEN].get(f"{figure}_per_s") for one in (many, few)))


class _Rounds:
    """Samples of all figures."""

    def __init__(
        self, ours: OurRules, peers: Sequence[Peer], names: Names, sizes: Sequence[int]
    ) -> None:
        self._ours = ours
        self._peers = peers
        self._names = names
        self._traffic = {
            (size, spread): RuleTraffic(size, spread) for size in sizes for spread in Spread
        }
        self._samples: dict[tuple[int, Spread, str], list[float]] = {}
        self._misses: dict[tuple[int, Spread], list[float]] = {}
        for size in sizes:
            self._check(size)
            for spread in Spread:
                ours.cached_s(size, spread, self._asked(size, spread, QUESTIONS))

    def run(self, size: int, spread: Spread) -> None:
        """Take one sample of every figure."""
        asked = self._asked(size, spread, PEER_LOOKUPS)
        found = {
            "table": self._ours.table_s(size, asked[:QUESTIONS]),
            "decision": self._ours.decision_s(size, asked[:QUESTIONS]),
        }
        found["cached"], misses = self._ours.cached_s(size, spread, asked[-QUESTIONS:])
        self._misses.setdefault((size, spread), []).append(misses)
        for peer in self._peers:
            if size in peer.sizes:
                found |= peer.lookup_s(size, asked)
        for figure, seconds in found.items():
            self._samples.setdefault((size, spread, figure), []).append(seconds)

    def figures(self, size: int, segment: Segment) -> Document:
        """Return what was measured of one size."""
        return {
            "table_bytes_per_rule": segment.array_bytes / size,
            **{spread.value: self._figures_of(size, spread) for spread in Spread},
        }

    def _figures_of(self, size: int, spread: Spread) -> Document:
        found: Document = {"cache_misses": median(self._misses[size, spread])}
        for (one, other, figure), seconds in self._samples.items():
            if (one, other) == (size, spread):
                middle = median(seconds)
                found[f"{figure}_per_s"] = 1 / middle if middle > 0 else None
                found[f"{figure}_samples_us"] = [each * 1e6 for each in seconds]
        return found

    def _check(self, size: int) -> None:
        """See to it that what is measured is found, and nothing else."""
        here = self._names[np.linspace(0, size - 1, CHECKED).astype(np.intp)]
        elsewhere = here ^ np.uint8(0xFF)
        counts = self._ours.check(size, here), self._ours.check(size, elsewhere)
        if counts != (CHECKED, 0):
            raise TestbedError(
                f"our table of {size} rules found {counts[0]} of {CHECKED} names that it holds, "
                f"and {counts[1]} that it does not"
            )

    def _asked(self, size: int, spread: Spread, count: int) -> Names:
        return self._names[self._traffic[size, spread].draw(count)]


def _start_writer(children: Children, size: int) -> Child:
    file = children.directory / f"{size}.segment"
    options = "--count", size, "--segment", file
    command = python_command("packetcloud.testbed.traffic.rule_writer", *options)
    return children.start("rule_writer", command)


def _open_peers(
    stack: ExitStack, children: Children, sizes: Sequence[int], missing: dict[str, str]
) -> list[Peer]:
    """Start the peers that run here; why the others do not goes into `missing`."""
    if not can_make_namespaces():
        missing |= dict.fromkeys(PEERS, "needs root, for a network namespace of its own")
        return []
    lab = stack.enter_context(NetworkLab())
    room = psutil.virtual_memory().available * _MEMORY_SHARE
    fitting = [size for size in sizes if size * BYTES_PER_FLOW <= room]
    for size in set(sizes) - set(fitting):
        missing[f"openvswitch, {size}"] = f"takes {size * BYTES_PER_FLOW / 1e9:.1f} GB of memory"
    found: list[Peer] = []
    peers: tuple[Peer, ...] = (
        NftablesMaps(lab.namespace("nft"), sizes),
        OpenVSwitch(children, lab.namespace("ovs"), fitting),
    )
    for peer in peers:
        try:
            found.append(stack.enter_context(peer))
        except TestbedError as error:
            missing[peer.name] = str(error)
    return found
