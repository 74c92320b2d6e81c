"""A neighbour that makes a handshake like any other and then keeps to nothing.

On a link without seals, so that its datagrams can be made by hand; what it fills lies behind the
seal all the same. Prints `ready`, begins at SIGUSR1, and prints `done` with what was sent.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import Body, HopConfig, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.testbed.attack.go import wait_for_go
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import ANYWHERE, now_s, parse_address, parse_guid

DATAGRAM_BYTES = 1472
SHARE_BYTES = DATAGRAM_BYTES - wire.DATA_HEADER_BYTES
CONNECT_LIMIT_S = 10.0
_BATCH = 64
_WINDOW = wire.TRANSFER_WINDOW_COUNT


class Silent:
    """The layer above: there is none."""

    def neighbour_up(self, neighbour: Neighbour) -> None:
        pass

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        pass

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        body.release()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        pass


def connect(sock: socket.socket, options: argparse.Namespace) -> Session:
    """Make a handshake over a plain socket. Raises: TestbedError."""
    core = HopCore(
        Identity.generate(),
        Role.HOST,
        HopConfig(private_links=ANYWHERE),
        Silent(),
        os.urandom,
        lambda _: DATAGRAM_BYTES,
        1 << 20,
        None,
        lambda: None,
    )
    result: list[Session | str] = []
    core.connect(options.target, options.guid, result.append, now_s())
    until = now_s() + CONNECT_LIMIT_S
    while not result and now_s() < until:
        core.handle_timeout(now_s())
        for address, buffers, _ in core.datagrams_to_send(now_s()):
            sock.sendto(b"".join(bytes(one) for one in buffers), address)
        if select.select([sock], [], [], 0.05)[0]:
            size, address = sock.recvfrom_into(core.landing()[0])
            core.receive_train(size, size, address, now_s())
    if not result or isinstance(result[0], str):
        raise TestbedError(f"no session: {result}")
    return result[0]


class Abuse:
    """Makes datagrams of one session that no honest neighbour sends."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._burst = 0

    def data(self, transfer: int, body_bytes: int, index: int = 0) -> bytes:
        self._burst += 1
        size = min(SHARE_BYTES, body_bytes - index * SHARE_BYTES)
        head = wire.DATA_HEADER.pack(
            wire.DATA_BYTE, BodyKind.CHUNK, 0, self._session, transfer & 0xFFFF_FFFF, body_bytes,
            index, self._burst & 0xFFFF_FFFF, 0,
        )  # fmt: skip
        return head + bytes(size)

    def bundle(self, first: int, count: int) -> bytes:
        self._burst += 1
        head = wire.BUNDLE_HEADER.pack(
            wire.BUNDLE_BYTE, 0, 0, self._session, 0, self._burst & 0xFFFF_FFFF, count, 0
        )
        record = wire.RECORD
        return head + b"".join(
            record.pack(first + number, 1, BodyKind.CHUNK, 0, 0) + b"x" for number in range(count)
        )

    def control(self, *frames: bytes) -> bytes:
        return wire.encode_control(self._session, 0, frames)


def half_chunks(abuse: Abuse) -> Iterator[bytes]:
    """Chunks of 1 MiB that are begun and never finished, far beyond credit and window."""
    for transfer in range(1 << 30):
        yield abuse.data(transfer % (3 * _WINDOW), 1 << 20)


def small_halves(abuse: Abuse) -> Iterator[bytes]:
    """The same with the smallest bodies that take two datagrams."""
    for transfer in range(1 << 30):
        yield abuse.data(transfer % (3 * _WINDOW), SHARE_BYTES + 1)


def holes(abuse: Abuse) -> Iterator[bytes]:
    """The first transfer is never finished, and all others are whole."""
    yield abuse.data(0, SHARE_BYTES + 1)
    for first in range(1, 1 << 30, 64):
        yield abuse.bundle(1 + first % (3 * _WINDOW), 64)


def questions(abuse: Abuse) -> Iterator[bytes]:
    """Nothing but questions, as many as go into a datagram."""
    probe, blocked = wire.ProbeFrame(0).to_bytes(), wire.BlockedFrame(1 << 20).to_bytes()
    while True:
        yield abuse.control(*[probe] * 100)
        yield abuse.control(*[blocked] * 100)


def forgets(abuse: Abuse) -> Iterator[bytes]:
    """Transfers are given up that were never begun."""
    for first in range(0, 1 << 30, 64):
        entries = tuple((number % (3 * _WINDOW), 1 << 20) for number in range(first, first + 64))
        yield abuse.control(wire.ForgetFrame(entries).to_bytes())


PHASES: tuple[Callable[[Abuse], Iterator[bytes]], ...] = (
    half_chunks,
    small_halves,
    holes,
    questions,
    forgets,
)


def attack(options: argparse.Namespace) -> Counter[str]:
    """Do one abuse after the other, each on a session of its own and at full speed."""
    sent: Counter[str] = Counter()
    for phase in PHASES:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 0))
            abuse = Abuse(connect(sock, options).remote_id)
            datagrams = phase(abuse)
            until = time.monotonic() + options.seconds / len(PHASES)
            while time.monotonic() < until:
                for datagram, _ in zip(datagrams, range(_BATCH), strict=False):
                    sock.sendto(datagram, options.target)
                    sent[phase.__name__] += 1
                _drain(sock)
    return sent


def _drain(sock: Any) -> None:
    """Take what comes back out of the way, unread."""
    while select.select([sock], [], [], 0)[0]:
        sock.recv(65_535)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=parse_address, required=True)
    parser.add_argument("--guid", type=parse_guid, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    wait_for_go()
    emit_event("done", sent=attack(options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
