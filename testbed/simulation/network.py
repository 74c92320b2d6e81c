"""The links between machines: what each does to the datagrams that it carries, by its own seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from packetcloud.testbed.simulation.machine import Address, Machine
from packetcloud.testbed.simulation.trace import Trace
from packetcloud.testbed.simulation.virtual_time import VirtualTime

IP_UDP_BYTES = 28
DEGRADED_LOSS = 0.6
REPLAY_LATEST_S = 15
CERTAIN_COUNT = 25
"""What is expected so often and happens never is not there: the odds are e**-25."""
ARRIVALS_PER_S = 5_000
"""Arrivals are looked at so often, as a network card does that gathers its interrupts."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """One direction of a link. All shares are probabilities per datagram."""

    delay_s: float = 0.001
    jitter_s: float = 0.0
    rate_bps: float = 0.0
    """0 = no limit."""
    queue_bytes: int = 1 << 20
    """What may wait for a link with a rate; the rest is dropped."""
    loss: float = 0.0
    burst_enter: float = 0.0
    """Gilbert-Elliott: from good to bad, per datagram."""
    burst_leave: float = 0.25
    burst_loss: float = 0.9
    """The loss while bad."""
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.005
    """Reordered datagrams come up to so much later."""
    replay: float = 0.0
    """Somebody on the way keeps a copy and sends it again, up to `REPLAY_LATEST_S` later."""
    corrupt: float = 0.0
    corruption_is_seen: bool = True
    """The UDP checksum drops what was altered; False: bit flips reach the receiver."""
    mtu_bytes: int = 1500
    """IP packets that are larger vanish."""


class Path:
    """One direction of a link: options, state, and counters of what it did."""

    def __init__(self, options: LinkOptions, rng: random.Random) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self.cuts_count = 0
        """Faults that cut it now."""
        self.degrades_count = 0
        """Faults that make it lose most of what it carries."""
        self._rng = rng
        self._is_bad = False
        self._free_at_s = 0.0
        self._last_arrival_s = 0.0

    def carry(self, datagrams: list[bytes], now_s: float) -> dict[float, list[bytes]]:
        """Return what arrives, by the moment of arrival."""
        arrivals: dict[float, list[bytes]] = {}
        options, rng, counts = self.options, self._rng, self.counts
        counts["offered"] += len(datagrams)
        for datagram in datagrams:
            if self._is_lost(datagram):
                continue
            at_s = now_s
            if options.rate_bps:
                waiting_s = max(0.0, self._free_at_s - now_s)
                if waiting_s * options.rate_bps / 8 > options.queue_bytes:
                    counts["queue_full"] += 1
                    continue
                wire_bytes = len(datagram) + IP_UDP_BYTES
                self._free_at_s = now_s + waiting_s + wire_bytes * 8 / options.rate_bps
                at_s = self._free_at_s
            at_s += options.delay_s
            if options.jitter_s:
                at_s += options.jitter_s * rng.random()
            if options.reorder and rng.random() < options.reorder:
                counts["reordered"] += 1
                at_s += options.reorder_s * rng.random()
            else:
                at_s = self._last_arrival_s = max(at_s, self._last_arrival_s)
            if options.corrupt and rng.random() < options.corrupt:
                counts["corrupted"] += 1
                if options.corruption_is_seen:
                    continue
                datagram = _flipped(datagram, rng)
            at_s = -(-at_s * ARRIVALS_PER_S // 1) / ARRIVALS_PER_S
            arrivals.setdefault(at_s, []).append(datagram)
            if options.duplicate and rng.random() < options.duplicate:
                counts["duplicated"] += 1
                again_s = at_s + rng.randrange(50) / ARRIVALS_PER_S
                arrivals.setdefault(again_s, []).append(datagram)
            if options.replay and rng.random() < options.replay:
                counts["replayed"] += 1
                again_s = at_s + rng.randrange(REPLAY_LATEST_S * ARRIVALS_PER_S) / ARRIVALS_PER_S
                arrivals.setdefault(again_s, []).append(datagram)
        return arrivals

    def unfelt(self) -> list[str]:
        """Return which of the options did nothing although there was enough to do it to."""
        options, counts = self.options, self.counts
        offered = counts["offered"] - counts["cut"] - counts["degraded"]
        shares = {
            "lost": options.loss,
            "burst_lost": options.burst_enter * options.burst_loss,
            "duplicated": options.duplicate,
            "reordered": options.reorder,
            "corrupted": options.corrupt,
            "replayed": options.replay,
        }
        return [
            f"{what} nothing of {offered} datagrams"
            for what, share in shares.items()
            if offered * share * (1 - options.loss) > CERTAIN_COUNT and not counts[what]
        ]

    def _is_lost(self, datagram: bytes) -> bool:
        options, rng, counts = self.options, self._rng, self.counts
        if self.cuts_count:
            counts["cut"] += 1
            return True
        if self.degrades_count and rng.random() < DEGRADED_LOSS:
            counts["degraded"] += 1
            return True
        if len(datagram) + IP_UDP_BYTES > options.mtu_bytes:
            counts["too_large"] += 1
            return True
        if options.burst_enter:
            self._is_bad = rng.random() < (
                1 - options.burst_leave if self._is_bad else options.burst_enter
            )
            if self._is_bad and rng.random() < options.burst_loss:
                counts["burst_lost"] += 1
                return True
        if options.loss and rng.random() < options.loss:
            counts["lost"] += 1
            return True
        return False


class Network:
    """All machines, and a path for each direction between two that are linked."""

    def __init__(self, time: VirtualTime, seed: str, trace: Trace) -> None:
        self._time = time
        self._seed = seed
        self._trace = trace
        self._machines: dict[str, Machine] = {}
        self.paths: dict[tuple[str, str], Path] = {}
        """By the names of the machines: from, to."""
        self.nodes: dict[tuple[str, int], Any] = {}
        """Hop nodes by their address, for what two of them do beside the network."""

    def add(self, machine: Machine) -> None:
        self._machines[machine.ip] = machine

    def move(self, machine: Machine, ip: str) -> None:
        """Give a machine another address, as where it roams to another network.

        Its ports stay open; what is on its way to the old address goes astray.
        """
        del self._machines[machine.ip]
        machine.ip = ip
        self._machines[ip] = machine
        for port, sock in machine.sockets.items():
            sock.address = ip, port

    def link(self, one: Machine, other: Machine, there: LinkOptions, back: LinkOptions) -> None:
        """Join two machines."""
        for source, target, options in ((one, other, there), (other, one, back)):
            rng = random.Random(f"{self._seed}/{source.name}>{target.name}")
            self.paths[source.name, target.name] = Path(options, rng)

    def send(self, sender: Machine, source: Address, to: Address, datagrams: list[bytes]) -> None:
        """Put datagrams on their way."""
        target = self._machines.get(to[0])
        path = self.paths.get((sender.name, target.name)) if target is not None else None
        if target is None or path is None:
            return
        time = self._time
        for at_s, arriving in path.carry(datagrams, time.now_s).items():

            def arrive(arriving: list[bytes] = arriving) -> None:
                self._arrive(sender, target, source, to, arriving)

            time.at(at_s, arrive)

    def _arrive(
        self, sender: Machine, target: Machine, source: Address, to: Address, arriving: list[bytes]
    ) -> None:
        if not target.is_powered:
            return
        self._trace.datagrams(self._time.now_s, source, to, arriving)
        sock = target.sockets.get(to[1])
        if sock is not None:
            sock.put(source, arriving)
            return
        back = self.paths[target.name, sender.name]
        if back.carry([b"icmp: port unreachable"], self._time.now_s):
            asker = sender.sockets.get(source[1])
            if asker is not None:
                asker.put_error(to)


def _flipped(datagram: bytes, rng: random.Random) -> bytes:
    """Return the datagram with one to three bits inverted."""
    altered = bytearray(datagram)
    for _ in range(rng.randint(1, 3)):
        altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
    return bytes(altered)
