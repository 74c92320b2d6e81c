"""Sends chunks when it is told to: to whom, through which services, how large, how many, how often.

Orders are JSON objects, one a line, on standard input: `destination`, `sids`, `payload_bytes`,
`count`, `interval_s`. Prints `ready`, and `sent` with all ids and departures when the router has
taken, or refused, every chunk of an order; a moment later, as who reads it would wake just when
router and VI have the last chunk in hand. Ends with its standard input, or at SIGTERM.

One process sends everything of a measurement, so that what is compared comes from the same place.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from packetcloud.chunk.hop.api import Neighbour, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, SID
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
    terminated,
)
from packetcloud.testbed.traffic.pattern import make_payload
from packetcloud.testbed.traffic.priority import Priority, set_priority
from packetcloud.testbed.traffic.sender import chunk_head
from packetcloud.testbed.traffic.source import Source

_FIRST_ID = 1
TOLD_AFTER_S = 0.2
"""A chunk that is alone is through router, VI and sink by then."""


class Caller(Source):
    """Carries out one order after the other."""

    def __init__(self, reactor: Any, source: GUID) -> None:
        super().__init__(_FIRST_ID)
        self._reactor = reactor
        self._source = source
        self._payloads: dict[int, bytes] = {}
        self._payload = b""
        self._count = 0
        self._interval_s = 0.0
        self._next_s = 0.0
        self._departures: list[tuple[int, float]] = []
        self._settled: Counter[str] = Counter()

    def begin(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour

    def obey(self, order: dict[str, Any]) -> None:
        """Begin an order; the one before has ended."""
        size = order["payload_bytes"]
        if size not in self._payloads:
            self._payloads[size] = make_payload(size)
        self._payload = self._payloads[size]
        sids = [SID.from_hex(text) for text in order["sids"]]
        self._set_head(chunk_head(self._source, GUID.from_hex(order["destination"]), size, sids))
        self._count = order["count"]
        self._interval_s = order["interval_s"]
        self._departures = []
        self._settled.clear()
        self._next_s = now_s()
        self._send_one()

    def _send_one(self) -> None:
        neighbour = self._neighbour
        if neighbour is None:
            return
        number, head = self._next_head()
        self._departures.append((number, now_s()))
        neighbour.send(BodyKind.CHUNK, head, self._payload, number)
        if len(self._departures) < self._count:
            self._next_s += self._interval_s
            self._reactor.callLater(max(0.0, self._next_s - now_s()), self._send_one)

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self._settled[settlement.value] += 1
        if self._settled.total() == self._count:
            self._reactor.callLater(TOLD_AFTER_S, self._tell)

    def _tell(self) -> None:
        emit_event("sent", departures=self._departures, settled=dict(self._settled))


async def call(reactor: Any, options: argparse.Namespace) -> None:
    """Carry out what standard input says until it ends."""
    stop = terminated(reactor)
    identity = Identity.generate()
    caller = Caller(reactor, identity.guid)
    node = HopNode(
        reactor, identity, Role.HOST, hop_config(options.largest_bytes, is_open=False), caller
    )
    node.listen(*own_address(options.connect))
    caller.begin(await node.connect(options.connect, options.expect))
    reader = threading.Thread(target=_read_orders, args=(reactor, caller, stop), daemon=True)
    reader.start()
    emit_event("ready", guid=identity.guid.hex)
    await stop
    await node.close()
    emit_event("done")


def _read_orders(reactor: Any, caller: Caller, stop: Deferred[None]) -> None:
    for line in sys.stdin.buffer:
        reactor.callFromThread(caller.obey, json.loads(line))
    reactor.callFromThread(fire, stop)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", type=parse_address, required=True)
    parser.add_argument("--expect", type=parse_guid, help="GUID of the node to connect to")
    parser.add_argument("--largest-bytes", type=int, default=1 << 20, help="of all payloads")
    parser.add_argument("--priority", type=Priority, default=Priority.OWN)
    options = parser.parse_args(arguments)
    set_priority(options.priority)
    reactor = install_reactor()
    return run_node(reactor, lambda: call(reactor, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
