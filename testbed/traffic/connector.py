"""Makes handshakes one after the other, each from a new node with a new key; prints one event each.

After each handshake a body of 1 KiB must be taken, so that a session counts only if it works.
`python -m packetcloud.testbed.traffic.connector --connect ADDRESS --expect GUID --count N`
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from packetcloud.chunk.hop.api import Body, Neighbour, Refusal, Role, Settlement
from packetcloud.chunk.hop.udp import HopConnectError, HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import (
    fire,
    hop_config,
    install_reactor,
    now_s,
    own_address,
    parse_address,
    parse_guid,
    run_node,
)
from packetcloud.testbed.traffic.pattern import make_payload
from packetcloud.testbed.traffic.sender import chunk_head

PAYLOAD_BYTES = 1024
SETTLE_LIMIT_S = 30.0


class OneBody:
    """The layer above a hop node that sends one body and waits for its settlement."""

    def __init__(self) -> None:
        self.settled: Deferred[None] = Deferred()
        self.outcome = "not settled"

    def neighbour_up(self, neighbour: Neighbour) -> None:
        pass

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        if not self.settled.called:
            self.outcome += f", the session ended: {reason}"
        fire(self.settled)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        body.release()
        return None

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self.outcome = settlement.value
        if settlement is not Settlement.LOST:  # then `neighbour_down` says why
            fire(self.settled)


async def connect_once(reactor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Make one handshake and send one body; return how both went."""
    identity = Identity.generate()
    upper = OneBody()
    node = HopNode(reactor, identity, Role.HOST, hop_config(PAYLOAD_BYTES, is_open=False), upper)
    node.listen(*own_address(options.connect))
    began_s = now_s()
    try:
        neighbour = await node.connect(options.connect, options.expect)
    except HopConnectError as error:
        await node.close()
        return {"is_up": False, "connect_s": now_s() - began_s, "text": str(error)}
    connected_s = now_s()
    payload = make_payload(PAYLOAD_BYTES)
    head = chunk_head(identity.guid, options.expect, PAYLOAD_BYTES, [])
    neighbour.send(BodyKind.CHUNK, head, payload, upper)
    limit = reactor.callLater(SETTLE_LIMIT_S, fire, upper.settled)
    await upper.settled
    if limit.active():
        limit.cancel()
    settled_s = now_s()
    await node.close()
    is_taken = upper.outcome == Settlement.ACCEPTED.value
    return {
        "is_up": is_taken,
        "connect_s": connected_s - began_s,
        "settle_s": settled_s - connected_s,
        "text": "" if is_taken else f"the body was {upper.outcome}",
    }


async def connect_all(reactor: Any, options: argparse.Namespace) -> None:
    """Make the handshakes, until the time is over."""
    emit_event("ready")
    began_s = now_s()
    for number in range(options.count):
        if now_s() - began_s > options.limit:
            break
        emit_event("handshake", number=number, **await connect_once(reactor, options))
        await deferLater(reactor, 0.0)
    emit_event("done", seconds=now_s() - began_s)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", type=parse_address, required=True)
    parser.add_argument("--expect", type=parse_guid, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for all of them")
    options = parser.parse_args(arguments)
    reactor = install_reactor()
    return run_node(reactor, lambda: connect_all(reactor, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
