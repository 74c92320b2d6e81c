"""Datagrams made by hand, for a table of what each must lead to: a reply or silence, and no change.

A row names who sends: a stranger without keys, somebody on the path who alters or repeats what he
saw, or the neighbour itself, who has all keys and lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.keys import Exchange
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link

STRANGER = ("198.51.100.9", 909)
OTHER_ID = 0x0BAD_0BAD_0BAD_0BAD
BODY_BYTES = 4000
"""Three segments of datagrams of 1472 bytes."""


class Scene(Link):
    """A sealed session between A and B, all that was said on it, and an open transfer to B."""

    def __init__(self) -> None:
        super().__init__(9)
        self.said: list[tuple[Any, bytes]] = []
        self.on_datagram = lambda source, datagram: not self.said.append((source, datagram))
        self.ours = self.connect()
        (self.theirs,) = self.cores[B].sessions.values()
        self.ours.send(BodyKind.CHUNK, b"", b"small", "small")
        self.ours.send(BodyKind.CHUNK, b"", bytes(BODY_BYTES), "large")
        self.theirs.send(BodyKind.VERDICT, b"", bytes(BODY_BYTES), "back")
        self.run(lambda: len(self.uppers[A].settled) == 2 and bool(self.uppers[B].settled))
        self.run(lambda: not self.in_flight)
        self.on_datagram = lambda source, datagram: False
        for core in self.cores.values():
            core.dropped.clear()
        self.transfer = 2
        """The next one of A."""

    # --- what A would say ---------------------------------------------------------------------

    def first(self, kind: wire.DatagramType, source: Any = A) -> bytes:
        """Return the first datagram of a type that was said."""
        return next(d for s, d in self.said if s == source and d[0] & 15 == kind)

    def control(self, *frames: wire.Frame) -> bytes:
        """A CONTROL of A with its keys."""
        return self.ours._envelope.control([frame.to_bytes() for frame in frames])

    def raw_control(self, content: bytes) -> bytes:
        """A CONTROL of A with its keys, whatever its content is."""
        return self.ours._envelope.control([content])

    def data(
        self,
        *,
        transfer: int | None = None,
        body_bytes: int = BODY_BYTES + wire.TAG_BYTES,
        index: int = 0,
        kind: int = 1,
        flow: int = 0,
        burst: int = 10_000,
        share_bytes: int = 1440,
    ) -> bytes:
        """A DATA of A whose header has the right check; its share is zeros."""
        assert self.ours.sender.transfers._ring is not None
        keys = self.ours.sender.transfers._ring.send
        number = self.transfer if transfer is None else transfer
        check = int(keys.check.make(kind, flow, number, body_bytes, index, burst, 1)[0])
        head = wire.DATA_HEADER.pack(
            wire.DATA_BYTE, kind, flow, self.ours.remote_id, number, body_bytes, index, burst,
            check,
        )  # fmt: skip
        return head + bytes(share_bytes)

    def bundle(self, records: bytes, count: int = 1) -> bytes:
        return self.ours._envelope.bundle(10_000, count, records)

    def hello(self, stamp: int = 1 << 40, share: bytes | None = None) -> wire.Hello:
        """A HELLO of a newcomer to B."""
        identity = Identity(bytes(31) + b"\x07")
        exchange = Exchange(lambda size: b"\x05" * size)
        parameters = wire.Parameters(1, 1472, 1 << 20, 1 << 20, 1 << 24, suites=12)
        return wire.Hello(
            77, identity.public_key, share or exchange.share, stamp, parameters
        ).towards(self.cores[B].identity.guid)

    # --- what it leads to ---------------------------------------------------------------------

    def state(self) -> object:
        """All of B that a datagram could change and must not."""
        receiver, sender = self.theirs.receiver, self.theirs.sender
        transfers, ring = sender.transfers, sender.transfers._ring
        return (
            self.theirs.is_up, self.theirs.peer_address, len(self.cores[B].sessions),
            self.cores[B].stats()["half_open"], self.cores[B].stats()["held_bytes"],
            receiver.outcomes.settled_below, sorted(receiver.outcomes._done),
            dict(receiver.outcomes.refused),
            {t: i.count for t, i in receiver.incoming.transfers.items()},
            receiver.custody.received_bodies, receiver.incoming.stride, sender.stride,
            transfers.next_transfer, transfers.done_below,
            sender.flight.largest_acked, sorted(transfers.outstanding), sender.in_flight_bytes,
            ring.newest.epoch if ring else None, list(self.uppers[B].bodies),
            list(self.uppers[B].settled), list(self.uppers[B].up), list(self.uppers[B].down),
        )  # fmt: skip

    def answers(self, source: Any) -> list[bytes]:
        """What B says to `source` about it, at once."""
        found = []
        for address, buffers, row_bytes in self.cores[B].datagrams_to_send(self.now):
            train = b"".join(bytes(buffer) for buffer in buffers)
            assert address in (source, A), "nobody else is told"
            if address == source:
                found += [train[at : at + row_bytes] for at in range(0, len(train), row_bytes)]
        return found


@dataclass(frozen=True)
class Row:
    """One crafted datagram and what B does with it."""

    threat: str
    name: str
    make: Callable[[Scene], bytes] = field(repr=False)
    reason: str | None = None
    """Why it is dropped; None: it is taken in, and changes nothing all the same."""
    reply: wire.DatagramType | None = None
    source: Any = A

    def __str__(self) -> str:
        return f"{self.threat} {self.name}"


def put(data: bytes, at: int, value: bytes) -> bytes:
    """Return `data` with `value` at `at`."""
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


def flip(data: bytes, at: int) -> bytes:
    """Return `data` with one bit of byte `at` turned over."""
    return put(data, at, bytes([data[at] ^ 1]))
