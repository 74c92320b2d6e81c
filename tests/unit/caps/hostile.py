"""A neighbour that keeps to nothing, beside an honest one, and the node that must bear both.

The hostile one takes part in the handshake like any neighbour; then its core is taken away, and its
datagrams are made by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link

C = ("192.0.2.3", 4000)
HONEST = C
VICTIM = B
DATAGRAM_BYTES = 1472
SHARE_BYTES = DATAGRAM_BYTES - wire.DATA_HEADER_BYTES
TWO_SEGMENTS = SHARE_BYTES + 1
"""The smallest body that is not whole after one datagram."""


class Scene(Link):
    """The victim, the honest neighbour, and hostile neighbours that only this class speaks for."""

    def __init__(self, *, config: HopConfig | None = None, seed: int = 1) -> None:
        # The victim takes any size: the neighbours choose.
        super().__init__(seed, config=config, datagram_bytes=wire.MAX_DATAGRAM_BYTES)
        self.uppers[HONEST] = type(self.uppers[A])()
        self.cores[HONEST] = self.core(HONEST, Role.HOST, None, DATAGRAM_BYTES)
        self.heard: list[tuple[Any, bytes]] = []
        """What the victim sent to hostile addresses."""
        del self.cores[A]

    def config_of(self, config: HopConfig | None) -> HopConfig:
        """All links of every node are private: what is sealed is no less hostile."""
        return replace(super().config_of(config), private_links=("0.0.0.0/0",))

    @property
    def victim(self) -> HopCore:
        return self.cores[VICTIM]

    def join(self, core: HopCore, address: Any) -> Session:
        """Let `core` become a neighbour of the victim; it has a core until `take_away`."""
        self.cores[address] = core
        upper: Any = core._upper
        self.uppers.setdefault(address, upper)
        result: list[Session | str] = []
        core.connect(VICTIM, None, result.append, self.now)
        self.run(lambda: bool(result))
        assert isinstance(result[0], Session), result
        self.run(lambda: any(s.peer_address == address for s in self.victim.sessions.values()))
        return result[0]

    def hostile(self, number: int = 1, datagram_bytes: int = DATAGRAM_BYTES) -> Hostile:
        """Return a neighbour of the victim that keeps to nothing."""
        address = (f"198.51.100.{number}", 4000)
        self.uppers[address] = type(self.uppers[VICTIM])()
        core = self.core(address, Role.HOST, None, datagram_bytes)
        session = self.join(core, address)
        for _ in range(4):  # what is due of both goes out before the hostile one falls silent
            self.step(0.01)
        del self.cores[address]
        theirs = next(s for s in self.victim.sessions.values() if s.peer_address == address)
        return Hostile(self, address, core.identity, session, theirs)

    def put(self, source: Any, address: Any, datagram: bytes) -> None:
        if address in self.cores:
            super().put(source, address, datagram)
        else:
            self.heard.append((address, datagram))

    def step(self, seconds: float) -> None:
        """Let time pass, with everything that is due in it."""
        end = self.now + seconds
        self.run(lambda: self.now >= end or self._next_at() > end, seconds + 1)
        self.now = max(self.now, end)
        self.deliver()
        for core in self.cores.values():
            core.handle_timeout(self.now)
        self.pump()

    def _next_at(self) -> float:
        times = [entry[0] for entry in self.in_flight]
        times += [t for c in self.cores.values() if (t := c.next_timeout()) is not None]
        if any(core.has_more for core in self.cores.values()):
            times.append(self.now)
        return min(times, default=float("inf"))

    def honest_goes_on(self, limit_s: float = 1.0) -> bool:
        """Tell whether the honest neighbour gets a chunk accepted in `limit_s`."""
        address = HONEST
        known = [s for s in self.cores[address].sessions.values() if s.is_up]
        session = known[0] if known else self.join(self.cores[address], address)
        settled = self.uppers[address].settled
        before = len(settled)
        session.send(BodyKind.CHUNK, b"", bytes(100_000), object())
        began = self.now
        self.run(lambda: len(settled) > before, 30.0)
        return settled[-1][1].value == "accepted" and self.now - began <= limit_s


class Hostile:
    """Speaks for one hostile neighbour. `theirs` is the session at the victim's side."""

    def __init__(
        self, scene: Scene, address: Any, identity: Identity, ours: Session, theirs: Session
    ) -> None:
        self.scene = scene
        self.address = address
        self.identity = identity
        self.ours = ours
        self.theirs = theirs
        self.burst = 0

    def send(self, datagram: bytes) -> None:
        """Have the victim receive one datagram."""
        self.scene.receive(VICTIM, self.address, [datagram])

    def data(self, transfer: int, body_bytes: int, index: int = 0, flow: int = 0) -> None:
        """Send one segment of a transfer."""
        self.burst += 1
        stride = self.ours.stride
        share = stride - wire.DATA_HEADER_BYTES
        size = min(share, body_bytes - index * share)
        head = wire.DATA_HEADER.pack(
            wire.DATA_BYTE,
            BodyKind.CHUNK,
            flow,
            self.theirs.local_id,
            transfer & 0xFFFF_FFFF,
            body_bytes,
            index,
            self.burst,
            0,
        )
        self.send(head + bytes(size))

    def bundle(self, bodies: dict[int, bytes], flow: int = 0) -> None:
        """Send whole small bodies, by transfer number."""
        self.burst += 1
        head = wire.BUNDLE_HEADER.pack(
            wire.BUNDLE_BYTE, 0, 0, self.theirs.local_id, 0, self.burst, len(bodies), 0
        )
        records = b"".join(
            wire.RECORD.pack(transfer & 0xFFFF_FFFF, len(body), BodyKind.CHUNK, 0, flow) + body
            for transfer, body in bodies.items()
        )
        self.send(head + records)

    def control(self, *frames: bytes) -> None:
        """Send frames."""
        self.send(wire.encode_control(self.theirs.local_id, 0, frames))

    def forget(self, transfers: dict[int, int]) -> None:
        """Give transfers up, by number and body bytes."""
        entries = list(transfers.items())
        for start in range(0, len(entries), wire.MAX_ENTRIES_COUNT):
            part = tuple(entries[start : start + wire.MAX_ENTRIES_COUNT])
            self.control(wire.ForgetFrame(part).to_bytes())

    def ack(
        self,
        largest_burst: int,
        done_below: int = 0,
        received_bytes: int = 0,
        done_bitmap: bytes = b"",
    ) -> None:
        """Acknowledge bursts of the victim, and settle transfers of it."""
        frame = wire.AckFrame(
            largest_burst, 0, received_bytes, 1 << 40, 1 << 30, done_below, done_bitmap
        )
        self.control(frame.to_bytes())
