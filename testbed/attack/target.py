"""The node that is attacked: takes bodies, counts them, and says how it stands.

Prints `ready`, and `state` at SIGUSR1. For control runs one of its defences can be switched off:
a test that such a run does not fail either proves nothing.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil
from twisted.internet.task import LoopingCall

from packetcloud.chunk.hop import core, flood, handshake, wire
from packetcloud.chunk.hop.api import Body, HopConfig, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.caps import in_use
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import (
    ANYWHERE,
    install_reactor,
    now_s,
    on_signal,
    parse_address,
    run_node,
    terminated,
)

LOOK_S = 0.02
"""How often the node looks how far its caps are used."""
UNLIMITED = 1 << 40


class Target:
    """The layer above the hop: takes every body and lets it go at once."""

    def __init__(self) -> None:
        self.bodies = 0
        self.payload_bytes = 0
        self.sessions_begun = 0
        self.sessions_lost = 0
        self.largest: dict[str, int] = {}

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self.sessions_begun += 1

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self.sessions_lost += 1

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        self.bodies += 1
        self.payload_bytes += len(body)
        body.release()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        raise AssertionError("a target sends nothing")

    def look(self, node: HopNode) -> None:
        """Remember the most that each cap was used."""
        for name, used in in_use(node.core).items():
            self.largest[name] = max(used, self.largest.get(name, 0))

    def state(self, node: HopNode) -> dict[str, object]:
        self.look(node)
        return {
            "at_s": now_s(),
            "bodies": self.bodies,
            "payload_bytes": self.payload_bytes,
            "sessions_begun": self.sessions_begun,
            "sessions_lost": self.sessions_lost,
            "largest": dict(self.largest),
            "neighbours": [one.peer_address for one in node.core.sessions.values()],
            "sessions": list(node.core.sessions),
            "hop": node.stats(),
            "dropped": node.dropped,
            "rss_bytes": psutil.Process().memory_info().rss,
            "cpu_s": sum(psutil.Process().cpu_times()[:2]),
        }


def without_cookie(config: HopConfig) -> HopConfig:
    """Every stranger gets a signature and a place, and no place ends."""
    handshake.COOKIE_FROM_COUNT = handshake.HALF_OPEN_COUNT = UNLIMITED
    return config


def without_random_ids(config: HopConfig) -> HopConfig:
    """Session ids count from 1."""
    numbers = itertools.count(1)

    def next_id(random_bytes: handshake.RandomBytes) -> int:
        return next(numbers)

    for module in (handshake, core):
        setattr(module, "new_session_id", next_id)  # noqa: B010  # on purpose, and only here
    return config


def without_padding(config: HopConfig) -> HopConfig:
    """A HELLO need not be longer than its answer: what it lacks in the middle is taken as zero."""
    whole = handshake.ServerHandshakes.receive_hello

    def receive_short(
        self: handshake.ServerHandshakes,
        datagram: bytes,
        address: Any,
        parameters: wire.Parameters,
        now: float,
    ) -> bytes:
        tail = wire.MAC_BYTES + wire.COOKIE_BYTES
        padded = datagram[:-tail].ljust(wire.HELLO_CORE_BYTES, b"\0") + datagram[-tail:]
        return whole(self, padded, address, parameters, now)

    whose = handshake.ServerHandshakes
    whose.receive_hello = receive_short  # type: ignore[method-assign]  # on purpose, as above
    return config


def without_credit(config: HopConfig) -> HopConfig:
    """A neighbour may begin as many bytes of bodies as it likes."""
    return replace(config, credit_bytes=UNLIMITED, max_held_bytes=UNLIMITED)


def without_shedding(config: HopConfig) -> HopConfig:
    """However many strangers come, this process is woken for each."""
    flood.STRANGERS_PER_S = UNLIMITED
    return config


WITHOUT: dict[str, Callable[[HopConfig], HopConfig]] = {
    "cookie": without_cookie,
    "random_ids": without_random_ids,
    "padding": without_padding,
    "credit": without_credit,
    "shedding": without_shedding,
}


async def stand(reactor: Any, options: argparse.Namespace) -> None:
    """Take bodies until SIGTERM."""
    stop = terminated(reactor)
    config = HopConfig(private_links=ANYWHERE if options.open else ())
    if options.without:
        config = WITHOUT[options.without](config)
    target = Target()
    identity = Identity.generate()
    node = HopNode(reactor, identity, Role.HOST, config, target)
    address = node.listen(*options.listen)
    looking = LoopingCall(target.look, node)
    looking.clock = reactor
    looking.start(LOOK_S)
    on_signal(reactor, signal.SIGUSR1, lambda: emit_event("state", **target.state(node)))
    emit_event("ready", address=address, guid=identity.guid.hex)
    await stop
    looking.stop()
    await node.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=parse_address, required=True)
    parser.add_argument("--open", action="store_true", help="sessions are not sealed")
    parser.add_argument("--without", choices=WITHOUT, help="switch this defence off")
    options = parser.parse_args(arguments)
    reactor = install_reactor()
    return run_node(reactor, lambda: stand(reactor, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
