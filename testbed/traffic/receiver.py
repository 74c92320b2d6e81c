"""Receives bodies, counts them, checks a sample; prints `ready`, `opened` (the warm-up is over),
`window` and, when ended, `done`.

SIGUSR1 asks for `progress`.

Either listens for a neighbour (one hop) or attaches to a router as a host (a path).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.chunk.header import FIXED_BYTES
from packetcloud.chunk.hop.api import Body, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.messages import BodyKind
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import (
    hop_config,
    install_reactor,
    now_s,
    on_signal,
    own_address,
    own_identity,
    parse_address,
    parse_guid,
    run_node,
    terminated,
)
from packetcloud.testbed.traffic.pattern import SampleCheck
from packetcloud.testbed.traffic.priority import Priority, set_priority
from packetcloud.testbed.traffic.source import CHUNK_ID
from packetcloud.testbed.traffic.ticks import start_ticks
from packetcloud.testbed.traffic.window import ArrivalWindow

_HEADER_BYTES = slice(2, 4)


class Receiver:
    """The layer above the hop: takes every body and lets it go at once."""

    def __init__(
        self,
        window: ArrivalWindow,
        check: SampleCheck | None,
        payload_bytes: int,
        keeps: bool,
        volume_bytes: int = 0,
        restore: Callable[[memoryview], memoryview] | None = None,
    ) -> None:
        self._restore = restore
        self._window: ArrivalWindow | None = window
        self._volume_bytes = volume_bytes or math.inf
        self._check = check
        self._payload_bytes = payload_bytes
        self.arrivals: list[tuple[int, float]] | None = [] if keeps else None
        self.bodies = 0
        self.payload_total = 0
        self.wrong_length = 0
        self.sessions_lost = 0

    def neighbour_up(self, neighbour: Neighbour) -> None:
        pass

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.sessions_lost += 1

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        raise AssertionError("a receiver sends nothing")

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        head = body.head(FIXED_BYTES)
        header_bytes = int.from_bytes(head[_HEADER_BYTES], "big")
        payload_bytes = len(body) - header_bytes
        self.bodies += 1
        self.payload_total += payload_bytes
        moment_s = now_s()
        if self._payload_bytes and payload_bytes != self._payload_bytes:
            self.wrong_length += 1
        elif self._check is not None and self._check.is_due():
            payload = body.contiguous()[header_bytes:]
            self._check.compare(self._restore(payload) if self._restore else payload)
        body.release()
        if self.arrivals is not None:
            self.arrivals.append((int.from_bytes(head[CHUNK_ID], "big"), moment_s))
        if self.payload_total >= self._volume_bytes:
            self._volume_bytes = math.inf
            emit_event("volume", payload_bytes=self.payload_total)
        if self._window is not None:
            self._count(self._window, moment_s, payload_bytes)
        return None

    def _count(self, counted: ArrivalWindow, moment_s: float, payload_bytes: int) -> None:
        was_open = counted.is_open
        closed = counted.arrived(moment_s, payload_bytes)
        if counted.is_open and not was_open:
            emit_event("opened", at_s=moment_s)
        if closed is not None:
            self._window = None
            emit_event("window", **counted.event(closed))

    def report(self) -> dict[str, object]:
        check = self._check
        return {
            "bodies": self.bodies,
            "payload_bytes": self.payload_total,
            "wrong_length": self.wrong_length,
            "compared": check.compared if check else 0,
            "altered": check.altered if check else 0,
            "sessions_lost": self.sessions_lost,
        }


def decrypting(key_file: Path) -> Callable[[memoryview], memoryview]:
    """Return what undoes our secure communication service, suite AES-128-CBC."""
    from packetcloud.services.secure_communication.keys import load_key_file
    from packetcloud.services.secure_communication.suites import find_cbc

    suite = find_cbc("openssl")
    key = load_key_file(key_file)[-1].derive(suite.name, suite.key_bytes)

    def restore(payload: memoryview) -> memoryview:
        output = memoryview(bytearray(len(payload)))
        return output[: suite.decrypt(key, payload, b"", output)]

    return restore


async def receive(reactor: Any, options: argparse.Namespace) -> None:
    """Receive until SIGTERM."""
    stop = terminated(reactor)
    check = SampleCheck(options.payload_bytes) if options.check else None
    window = ArrivalWindow(options.warmup, options.seconds)
    restore = decrypting(options.key_file) if options.key_file else None
    expected_bytes = options.payload_bytes if options.check and restore is None else 0
    keeps = options.arrivals is not None
    receiver = Receiver(window, check, expected_bytes, keeps, options.volume, restore)
    identity = own_identity(options.identity)
    config = hop_config(options.payload_bytes, is_open=options.open)
    node = HopNode(reactor, identity, Role.HOST, config, receiver)
    address = node.listen(*(options.listen or own_address(options.connect)))
    if options.connect is not None:
        await node.connect(options.connect, options.expect)
    on_signal(reactor, signal.SIGUSR1, lambda: emit_event("progress", bodies=receiver.bodies))
    if options.tick > 0:
        start_ticks(reactor, options.tick, lambda: {"payload_bytes": receiver.payload_total})
    emit_event("ready", address=address, guid=identity.guid.hex)
    await stop
    report = receiver.report() | {"hop": node.stats()}
    await node.close()
    if options.arrivals is not None:
        options.arrivals.write_text(json.dumps(receiver.arrivals))
    emit_event("done", **report)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--listen", type=parse_address, help="where to wait for the sender")
    where.add_argument("--connect", type=parse_address, help="the router to attach to")
    parser.add_argument("--expect", type=parse_guid, help="the router's GUID")
    parser.add_argument("--identity", type=Path, help="key file; without it, a new key")
    parser.add_argument("--payload-bytes", type=int, default=1 << 20)
    parser.add_argument("--check", action="store_true", help="compare with the pattern")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--volume", type=int, default=0, help="say when so many bytes came")
    parser.add_argument("--tick", type=float, default=0.0, help="say `tick` every so many seconds")
    parser.add_argument("--open", action="store_true", help="sessions need not be sealed")
    parser.add_argument("--key-file", type=Path, help="decrypt before comparing")
    parser.add_argument("--arrivals", type=Path, help="write [chunk id, time] pairs here")
    parser.add_argument("--priority", type=Priority, default=Priority.OWN)
    options = parser.parse_args(arguments)
    set_priority(options.priority)
    reactor = install_reactor()
    return run_node(reactor, lambda: receive(reactor, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
