"""One direction of an emulated link on virtual time.

A packet waits in a drop-tail queue, is sent bit by bit at the link's rate, meets the faults, and
arrives after the delay. Everything follows from the moments at which packets came, never from when
this code ran: a caller that runs late delivers late, but the link loses no capacity by it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from packetcloud.testbed.emulator.faults import Chance
from packetcloud.testbed.emulator.packets import flip_bit
from packetcloud.testbed.emulator.shape import Shape

NEVER = float("inf")
MOST_HELD_PACKETS = 200_000
"""Queue and delay together, 300 MB of full frames: one second of 2.4 Gbit/s. Beyond it the
emulator itself drops, which no report calls valid."""
OVERFLOW = "emulator_full"


@dataclass(slots=True)
class Sums:
    """What a channel has done since it was started."""

    in_packets: int = 0
    in_bytes: int = 0
    out_packets: int = 0
    """Duplicates count."""
    out_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Packets by reason: `queue_full`, `lost`, `down`, `too_large`, `emulator_full`."""
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    busy_s: float = 0.0
    """How long the link was sending."""
    waited_s: float = 0.0
    """Sum over all packets of the time in the queue."""
    longest_wait_s: float = 0.0
    longest_queue_packets: int = 0

    def to_json(self) -> dict[str, object]:
        sent = self.in_packets - self.dropped["queue_full"]
        return {
            "in_packets": self.in_packets,
            "in_bytes": self.in_bytes,
            "out_packets": self.out_packets,
            "out_bytes": self.out_bytes,
            "dropped": dict(self.dropped),
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "corrupted": self.corrupted,
            "busy_s": self.busy_s,
            "waited_s": self.waited_s,
            "mean_wait_s": self.waited_s / sent if sent else 0.0,
            "longest_wait_s": self.longest_wait_s,
            "longest_queue_packets": self.longest_queue_packets,
        }


class Channel:
    """Carries packets one way.

    Args:
        seed: of all chances; the same seed and packets give the same fate, whatever the timing.
        now: any clock in seconds that never goes back.
    """

    def __init__(self, shape: Shape, seed: str, now: float) -> None:
        self.sums = Sums()
        self._flight: list[tuple[float, int, bytes]] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._waiting_bytes = 0
        self._number = 0
        self._free_at = now
        self._seed = seed
        self._set(shape, now)

    @property
    def shape(self) -> Shape:
        return self._shape

    def change(self, shape: Shape, now: float) -> None:
        """Take another shape from `now` on. What waits stays, and goes at the new rate; chances
        begin anew from the seed, and so does the count of `up_s` and `down_s`."""
        self._advance(now)
        self._set(shape, now)
        if not self._byte_s:
            # No rate any more: nothing waits.
            while self._waiting:
                packet, _ = self._waiting.popleft()
                self._propagate(packet, now)
            self._waiting_bytes = 0

    def arrive(self, packet: bytes, now: float) -> None:
        """Take in a packet that reaches the link at `now`."""
        sums = self.sums
        size = len(packet)
        sums.in_packets += 1
        sums.in_bytes += size
        if len(self._flight) + len(self._waiting) >= MOST_HELD_PACKETS:
            sums.dropped[OVERFLOW] += 1
        elif not self._byte_s:
            self._propagate(packet, now)
        else:
            self._advance(now)
            if self._free_at > now:
                waiting = len(self._waiting) + 1
                if waiting > self._most_packets or self._waiting_bytes + size > self._most_bytes:
                    sums.dropped["queue_full"] += 1
                    return
                if waiting > sums.longest_queue_packets:
                    sums.longest_queue_packets = waiting
            self._waiting.append((packet, now))
            self._waiting_bytes += size
            self._advance(now)

    def take_due(self, now: float, most: int = 64) -> list[tuple[float, bytes]]:
        """Return up to `most` packets that have arrived by `now`, with when each was due."""
        if self._waiting:
            self._advance(now)
        flight = self._flight
        due: list[tuple[float, bytes]] = []
        while flight and flight[0][0] <= now and len(due) < most:
            moment, _, packet = heapq.heappop(flight)
            self.sums.out_packets += 1
            self.sums.out_bytes += len(packet)
            due.append((moment, packet))
        return due

    def next_due(self) -> float:
        """Return when `take_due` may have something next; `NEVER` when the link is empty."""
        first = self._flight[0][0] if self._flight else NEVER
        if self._waiting:
            # The next one out: not before its last bit has left and the shortest delay is over.
            packet, _ = self._waiting[0]
            out_s = self._free_at + len(packet) * self._byte_s + self._least_delay_s
            return min(first, out_s)
        return first

    def _set(self, shape: Shape, now: float) -> None:
        self._shape = shape
        self._byte_s = 8.0 / shape.rate_bps if shape.rate_bps else 0.0
        self._most_packets: float = shape.queue_packets or NEVER
        self._most_bytes: float = shape.queue_bytes or NEVER
        self._least_delay_s = shape.delay_s - shape.jitter_s
        self._began_at = now
        self._latest_due = now
        # A source of its own for each, so that one fault more does not shift all the others.
        self._loss = Chance(shape.loss, self._source("loss"), shape.loss_burst, shape.loss_run)
        self._duplication = Chance(shape.duplication, self._source("duplication"))
        self._reordering = Chance(shape.reordering, self._source("reordering"))
        self._corruption = Chance(
            shape.corruption, self._source("corruption"), longest_run=shape.corruption_run
        )
        self._bits = self._source("bits")
        self._jitter = self._source("jitter")

    def _source(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    def _advance(self, now: float) -> None:
        """Begin to send whatever the link has begun to send by `now`."""
        waiting, sums = self._waiting, self.sums
        while waiting:
            packet, came_at = waiting[0]
            begun_at = max(self._free_at, came_at)
            if begun_at > now:
                return
            waiting.popleft()
            self._waiting_bytes -= len(packet)
            wait_s = begun_at - came_at
            sums.waited_s += wait_s
            if wait_s > sums.longest_wait_s:
                sums.longest_wait_s = wait_s
            busy_s = len(packet) * self._byte_s
            sums.busy_s += busy_s
            self._free_at = begun_at + busy_s
            self._propagate(packet, self._free_at)

    def _propagate(self, packet: bytes, left_at: float) -> None:
        """Decide the fate of a packet whose last bit leaves at `left_at`."""
        shape, sums = self._shape, self.sums
        is_lost = self._loss.picks()
        if shape.down_s and self._is_down(left_at):
            sums.dropped["down"] += 1
            return
        if shape.largest_bytes and len(packet) > shape.largest_bytes:
            sums.dropped["too_large"] += 1
            return
        if is_lost:
            sums.dropped["lost"] += 1
            return
        if self._corruption.picks():
            packet = flip_bit(packet, self._bits.random())
            sums.corrupted += 1
        due = left_at + shape.delay_s
        if shape.jitter_s:
            due = max(due + self._jitter.uniform(-shape.jitter_s, shape.jitter_s), self._latest_due)
            self._latest_due = due
        if self._reordering.picks():
            due += shape.reordering_s
            sums.reordered += 1
        self._fly(packet, due)
        if self._duplication.picks():
            sums.duplicated += 1
            self._fly(packet, due)

    def _fly(self, packet: bytes, due: float) -> None:
        self._number += 1
        heapq.heappush(self._flight, (due, self._number, packet))

    def _is_down(self, moment: float) -> bool:
        shape = self._shape
        return (moment - self._began_at) % (shape.up_s + shape.down_s) >= shape.up_s
