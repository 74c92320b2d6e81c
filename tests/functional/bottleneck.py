"""One bottleneck on virtual time, with real sessions of ours and a model of TCP CUBIC."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from packetcloud.chunk.hop.api import Body, HopConfig, Neighbour, Role, Settlement
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind

DATAGRAM_BYTES = 1472
_IP_UDP_BYTES = 28
_TIMER_S = 0.001
"""Timers of real event loops are that coarse."""
_WINDOW_BYTES = 2_900_000
_BODY_BYTES = 256 << 10
_BODIES_QUEUED = 24


class Clock:
    """Virtual time: calls at their times, and at one time in the order they were asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._calls, (when, next(self._count), call, arguments))

    def run(self, duration_s: float) -> None:
        until = self.now + duration_s
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(self._calls)
            call(*arguments)
        self.now = until


class Wire:
    """One direction: a drop-tail queue before `rate_bps` (0: none), random loss, then the delay."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        rate_bps: float,
        delay_s: float,
        queue_bytes: float = 0.0,
        loss: float = 0.0,
        jitter_s: float = 0.0,
    ) -> None:
        self._clock, self._rng = clock, rng
        self.rate_bps, self._delay_s, self.queue_bytes = rate_bps, delay_s, queue_bytes
        self._loss, self._jitter_s = loss, jitter_s
        self._busy_until = 0.0
        self.overflowed = 0

    def send(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        now = self._clock.now
        if self.rate_bps:
            backlog_bytes = max(0.0, self._busy_until - now) * self.rate_bps / 8
            if backlog_bytes + size > self.queue_bytes:
                self.overflowed += 1
                return
            now = self._busy_until = max(self._busy_until, now) + size * 8 / self.rate_bps
        if self._loss and self._rng.random() < self._loss:
            return
        jitter_s = self._rng.random() * self._jitter_s
        self._clock.at(now + self._delay_s + jitter_s, deliver, *arguments)


class _Upper:
    def __init__(self) -> None:
        self.neighbour: Neighbour | None = None
        self.received_bytes = 0
        self.on_up: Callable[[Neighbour], None] = lambda neighbour: None
        self.on_settled: Callable[[], None] = lambda: None

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.neighbour = neighbour
        self.on_up(neighbour)

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        raise AssertionError(f"a session ended: {reason}")

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> None:
        self.received_bytes += len(body)
        body.release()

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        assert settlement is Settlement.ACCEPTED
        self.on_settled()


class _Node:
    """A hop core on virtual time; `out` takes what it sends."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self.upper = _Upper()
        self.out: Callable[[bytes], None] = lambda datagram: None
        self._timer_at: float | None = None
        self._is_woken = False
        self.core = HopCore(
            Identity(rng.randbytes(32)),
            Role.HOST,
            HopConfig(max_datagram_bytes=DATAGRAM_BYTES),
            self.upper,
            rng.randbytes,
            lambda address: DATAGRAM_BYTES,
            _WINDOW_BYTES,
            None,
            self.wake,
        )

    def wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._clock.at(self._clock.now, self.pump)

    def pump(self) -> None:
        self._is_woken = False
        for _ in range(50):
            for _, buffers, row_bytes in self.core.datagrams_to_send(self._clock.now):
                data = b"".join(bytes(piece) for piece in buffers)
                for start in range(0, len(data), row_bytes):
                    self.out(data[start : start + row_bytes])
            if not self.core.has_more:
                break
        deadline = self.core.next_timeout()
        if deadline is not None and (self._timer_at is None or deadline < self._timer_at):
            self._timer_at = deadline
            wait_s = max(deadline - self._clock.now, 0.0)
            coarse_s = -(-wait_s // _TIMER_S) * _TIMER_S
            self._clock.at(self._clock.now + coarse_s, self._on_timer, deadline)

    def _on_timer(self, deadline: float) -> None:
        if self._timer_at == deadline:
            self._timer_at = None
            self.core.handle_timeout(self._clock.now)
            self.pump()

    def receive(self, datagram: bytes, address: Any) -> None:
        array = np.frombuffer(bytearray(datagram), np.uint8)
        size = len(datagram)
        self.core.receive_elsewhere(array, size, size, address, self._clock.now)
        self.pump()


class OurFlow:
    """A session whose sender has always something to send, once it is told to begin."""

    def __init__(
        self, clock: Clock, rng: random.Random, number: int, there: Wire, back: Wire,
        *, background: bool, body_bytes: int, bodies: int,
    ) -> None:  # fmt: skip
        sender, receiver = _Node(clock, rng), _Node(clock, rng)
        self.sender, self._receiver = sender, receiver
        addresses = ("10.0.0.1", 1000 + number), ("10.0.0.2", 1000 + number)
        sender.out = lambda data: there.send(
            len(data) + _IP_UDP_BYTES, receiver.receive, data, addresses[0]
        )
        back_size = _IP_UDP_BYTES
        receiver.out = lambda data: back.send(
            len(data) + back_size, sender.receive, data, addresses[1]
        )
        self._background, self._payload, self._bodies = background, bytes(body_bytes), bodies
        sender.upper.on_settled = self._send
        sender.core.connect(addresses[1], None, lambda session: None, clock.now)
        sender.pump()

    def begin(self) -> None:
        """Send from now on, or as soon as the session is there."""
        if self.sender.upper.neighbour is None:
            self.sender.upper.on_up = self._fill
        else:
            self._fill(self.sender.upper.neighbour)

    def _fill(self, neighbour: Neighbour) -> None:
        for _ in range(self._bodies):
            self._send()

    def _send(self) -> None:
        neighbour = self.sender.upper.neighbour
        assert neighbour is not None
        neighbour.send(BodyKind.CHUNK, b"", self._payload, object(), background=self._background)

    @property
    def retransmitted_segments(self) -> int:
        return sum(s.sender.retransmitted_segments for s in self.sender.core.sessions.values())

    @property
    def delivered_bytes(self) -> int:
        return self._receiver.upper.received_bytes


class CubicFlow:
    """TCP CUBIC with HyStart and selective ACKs, a segment each; RFC 9438, no more than needed."""

    SEGMENT_BYTES = 1448
    _HEADERS_BYTES = 52

    def __init__(self, clock: Clock, there: Wire, return_delay_s: float) -> None:
        self._clock, self._there, self._return_delay_s = clock, there, return_delay_s
        self._window, self._threshold = 10.0, float("inf")
        self._next = 0
        self._high = -1
        self._recover = -1
        self._in_flight: dict[int, None] = {}
        self._peak = self._last_peak = 0.0
        self._epoch_at: float | None = None
        self._rise_s = self._reno = 0.0
        self._rtt_s: float | None = None
        self._min_rtt_s = float("inf")
        self._heard_at = clock.now
        self.delivered_bytes = 0
        clock.at(clock.now, self._pump)
        clock.at(clock.now + 1.0, self._on_timer)

    def _pump(self) -> None:
        while len(self._in_flight) < int(self._window):
            number, self._next = self._next, self._next + 1
            self._in_flight[number] = None
            size = self.SEGMENT_BYTES + self._HEADERS_BYTES
            self._there.send(size, self._arrive, number, self._clock.now)

    def _on_timer(self) -> None:
        if self._clock.now - self._heard_at > 1.0 and self._in_flight:
            self._in_flight.clear()
            self._threshold, self._window = max(0.7 * self._window, 2.0), 1.0
            self._epoch_at = None
            self._pump()
        self._clock.at(self._clock.now + 0.3, self._on_timer)

    def _arrive(self, number: int, sent_at: float) -> None:
        self._clock.at(self._clock.now + self._return_delay_s, self._ack, number, sent_at)

    def _ack(self, number: int, sent_at: float) -> None:
        self._heard_at = now = self._clock.now
        rtt_s = now - sent_at
        self._rtt_s = rtt_s if self._rtt_s is None else 0.875 * self._rtt_s + 0.125 * rtt_s
        self._min_rtt_s = min(self._min_rtt_s, rtt_s)
        if number in self._in_flight:
            del self._in_flight[number]
            self.delivered_bytes += self.SEGMENT_BYTES
        self._high = max(self._high, number)
        lost = list(itertools.takewhile(lambda n: n < self._high - 3, self._in_flight))
        for missing in lost:
            del self._in_flight[missing]
            if missing > self._recover:
                self._cut()
        if not lost:
            self._grow(rtt_s)
        self._pump()

    def _cut(self) -> None:
        self._recover = self._next - 1
        lower = self._window < self._last_peak
        self._peak = 0.85 * self._window if lower else self._window
        self._last_peak = self._window
        self._window = self._threshold = max(2.0, 0.7 * self._window)
        self._epoch_at = None

    def _grow(self, rtt_s: float) -> None:
        if self._window < self._threshold:
            self._window += 1.0
            delay_s = max(0.004, min(0.016, self._min_rtt_s / 8))
            if rtt_s > self._min_rtt_s + delay_s and self._window > 16:
                self._threshold = self._window
            return
        now = self._clock.now
        if self._epoch_at is None:
            self._epoch_at, self._reno = now, self._window
            self._peak = max(self._peak, self._window)
            self._rise_s = ((self._peak - self._window) / 0.4) ** (1 / 3)
        assert self._rtt_s is not None
        elapsed_s = now - self._epoch_at + self._rtt_s - self._rise_s
        self._reno += 3 * 0.3 / 1.7 / self._window
        wanted = max(0.4 * elapsed_s**3 + self._peak, self._reno)
        if wanted > self._window:
            self._window += min((wanted - self._window) / self._window, 0.5)


Flow = OurFlow | CubicFlow


class Bottleneck:
    """Flows that share one link of `rate_bps`, a round trip of `rtt_s` and a buffer.

    Args:
        body_bytes: of each body of ours; `bodies` of them are queued or under way at any time.
        apart_s: between the handshakes of two sessions of ours.
        held_s: if not 0, nobody sends before so long after the first handshake...
        late_s: ... and then each by chance up to so much later.
    """

    def __init__(
        self,
        *,
        ours: int = 1,
        background: int = 0,
        cubic: int = 0,
        rate_bps: float = 50e6,
        rtt_s: float = 0.030,
        buffer_products: float = 1.0,
        loss: float = 0.0,
        jitter_s: float = 0.0,
        body_bytes: int = _BODY_BYTES,
        bodies: int = _BODIES_QUEUED,
        apart_s: float = 0.0037,
        held_s: float = 0.0,
        late_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        rng = random.Random(seed)
        self.clock = Clock()
        self.rate_bps = rate_bps
        queue_bytes = buffer_products * rate_bps * rtt_s / 8
        half_s = rtt_s / 2
        self.link = Wire(self.clock, rng, rate_bps, half_s, queue_bytes, loss, jitter_s)
        self.flows: list[Flow] = []
        began_at = self.clock.now
        for number in range(ours + background):
            self.clock.run(apart_s)
            back = Wire(self.clock, rng, 0.0, half_s, loss=loss)
            flow = OurFlow(
                self.clock, rng, number, self.link, back, background=number >= ours,
                body_bytes=body_bytes, bodies=bodies,
            )  # fmt: skip
            self.flows.append(flow)
            if held_s:
                self.clock.at(began_at + held_s + late_s * rng.random(), flow.begin)
            else:
                flow.begin()
        self.flows += [CubicFlow(self.clock, self.link, half_s) for _ in range(cubic)]

    def goodput_bps(self, warm_s: float, measured_s: float) -> list[float]:
        """Return what each flow delivered after `warm_s`, of bodies or segments only."""
        self.clock.run(warm_s)
        before = [flow.delivered_bytes for flow in self.flows]
        self.clock.run(measured_s)
        return [
            8 * (flow.delivered_bytes - start) / measured_s
            for flow, start in zip(self.flows, before, strict=True)
        ]

    def per_second_bps(self, warm_s: float, seconds: int) -> list[list[float]]:
        """Return what each flow delivered in each second after `warm_s`: `[second][flow]`."""
        self.clock.run(warm_s)
        return [self.goodput_bps(0.0, 1.0) for _ in range(seconds)]


def jain(rates: list[float]) -> float:
    """Return Jain's index: 1 = all the same, 1/n = one has all."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))
