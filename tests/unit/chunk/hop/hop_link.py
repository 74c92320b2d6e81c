"""Two hop cores joined in memory, with the layers above them, a clock and a bad network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from packetcloud.chunk.hop.api import (
    HopConfig,
    Neighbour,
    Refusal,
    Role,
    Settlement,
)
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind

A = ("192.0.2.1", 4000)
B = ("192.0.2.2", 4000)
OPEN = HopConfig(private_links=("192.0.2.0/24",))


class Upper:
    """The layer above: keeps what it is told; `answer` decides on each body, `on_settled`
    acts on each end."""

    def __init__(self) -> None:
        self.up: list[Neighbour] = []
        self.down: list[str] = []
        self.bodies: list[bytes] = []
        self.settled: list[tuple[object, Settlement, int]] = []
        self.keep: list[Any] = []
        self.answer: Callable[[bytes], Refusal | None] = lambda data: None
        self.on_settled: Callable[[object], None] = lambda token: None
        self.keeps = False

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.up.append(neighbour)

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.down.append(reason)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Any) -> Refusal | None:
        data = body.head(100) if self.keeps else bytes(body.contiguous())
        refusal = self.answer(data)
        if refusal is None:
            self.bodies.append(data)
            if self.keeps:
                self.keep.append(body)
            else:
                body.release()
        return refusal

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self.settled.append((token, settlement, reason))
        self.on_settled(token)


class Link:
    """Two cores, a clock and a network that loses, repeats, alters, reorders and delays by one
    seed."""

    def __init__(
        self,
        seed: int = 1,
        *,
        loss: float = 0.0,
        duplication: float = 0.0,
        corruption: float = 0.0,
        jitter_s: float = 0.0,
        delay_s: float = 0.005,
        config: HopConfig | None = None,
        datagram_bytes: int = 1472,
        has_fast_aes: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.loss, self.duplication, self.corruption = loss, duplication, corruption
        self.jitter_s, self.delay_s = jitter_s, delay_s
        self.in_flight: list[tuple[float, int, Any, Any, bytes, int]] = []
        self.count = 0
        self.has_fast_aes = has_fast_aes
        self.uppers = {A: Upper(), B: Upper()}
        self.cores: dict[Any, HopCore] = {}
        for address, role in ((A, Role.HOST), (B, Role.ROUTER)):
            self.cores[address] = self.core(address, role, config, datagram_bytes)
        self.on_datagram: Callable[[Any, bytes], bool] = lambda address, datagram: True

    def core(
        self,
        address: Any,
        role: Role,
        config: HopConfig | None = None,
        datagram_bytes: int = 1472,
        identity: Identity | None = None,
    ) -> HopCore:
        """Return a node that tells the layer above at `address`; with no `identity` a new one."""
        return HopCore(
            identity or Identity(self.random.randbytes(32)),
            role,
            self.config_of(config),
            self.uppers[address],
            self.random.randbytes,
            lambda _: datagram_bytes,
            1 << 20,
            None,
            lambda: None,
            has_fast_aes=self.has_fast_aes,
        )

    def config_of(self, config: HopConfig | None) -> HopConfig:
        """Return what a node is configured with that asked for this."""
        return config or HopConfig()

    def put_above(self, address: Any, upper: Upper) -> None:
        """Let `upper` be the layer above of a node that has no session yet."""
        core = self.cores[address]
        self.uppers[address] = core._upper = upper
        core._surroundings = replace(core._surroundings, upper=upper)

    def connect(self) -> Session:
        result: list[Session | str] = []
        self.cores[A].connect(B, None, result.append, self.now)
        self.run(lambda: bool(result) and bool(self.uppers[B].up))
        assert isinstance(result[0], Session), result
        return result[0]

    def pump(self) -> None:
        """Let every core send once and put what it sends on the wire, datagram by datagram."""
        for source, core in self.cores.items():
            for address, buffers, row_bytes in core.datagrams_to_send(self.now):
                train = b"".join(bytes(b) for b in buffers)
                for start in range(0, len(train), row_bytes):
                    self.put(source, address, train[start : start + row_bytes])

    def put(self, source: Any, address: Any, datagram: bytes) -> None:
        if not self.on_datagram(source, datagram) or self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.duplication else 1
        for _ in range(copies):
            self.count += 1
            if self.corruption and self.random.random() < self.corruption:
                altered = bytearray(datagram)
                for _ in range(self.random.choice((1, 1, 8))):
                    bit = self.random.randrange(8 * len(altered))
                    altered[bit // 8] ^= 1 << bit % 8
                datagram = bytes(altered)
            at = self.now + self.delay_s + self.random.random() * self.jitter_s
            self.in_flight.append((at, self.count, source, address, datagram, len(datagram)))

    def deliver(self) -> None:
        """Hand over what is due; datagrams of one size and source in a row come as a train."""
        due = sorted(entry for entry in self.in_flight if entry[0] <= self.now)
        self.in_flight = [entry for entry in self.in_flight if entry[0] > self.now]
        at = 0
        while at < len(due):
            _, _, source, address, first, size = due[at]
            train = [first]
            while (
                at + len(train) < len(due)
                and (len(train) + 1) * size <= 65_535
                and due[at + len(train)][2:4] == (source, address)
                and len(train[-1]) == size
                and due[at + len(train)][5] <= size
            ):
                train.append(due[at + len(train)][4])
            at += len(train)
            self.receive(address, source, train)

    def receive(self, address: Any, source: Any, train: list[bytes]) -> None:
        core, data = self.cores[address], b"".join(train)
        left = memoryview(data)
        for buffer in core.landing():
            taken = min(len(buffer), len(left))
            buffer[:taken] = left[:taken]
            left = left[taken:]
        core.receive_train(len(data), len(train[0]), source, self.now)

    def run(self, until: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Advance the clock from event to event until a condition holds."""
        end = self.now + limit_s
        for _ in range(400_000):
            self.pump()
            if until():
                return
            times = [entry[0] for entry in self.in_flight]
            times += [t for c in self.cores.values() if (t := c.next_timeout()) is not None]
            if any(core.has_more for core in self.cores.values()):
                times.append(self.now)
            assert times, "nothing left to wait for"
            self.now = max(self.now, min(times))
            assert self.now < end, f"no end after {limit_s} s"
            self.deliver()
            for core in self.cores.values():
                core.handle_timeout(self.now)
        raise AssertionError("too many steps")

    def run_until_settled(self, count: int, limit_s: float = 60.0) -> None:
        """Advance until the layer above A was told of the end of so many bodies."""
        self.run(lambda: len(self.uppers[A].settled) == count, limit_s)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock by so much, whatever happens meanwhile."""
        end = self.now + seconds
        self.run(lambda: self.now >= end, seconds + 60.0)
