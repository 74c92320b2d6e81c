"""Sends chunks of one size, at full rate or at a set one; prints `ready` and, when ended, `done`.

One payload buffer serves all chunks: what is measured is the hop, not a source of bytes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from packetcloud.chunk.header import ChunkHeader, ServiceSequence
from packetcloud.chunk.hop.api import Neighbour, Role, Settlement
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, SID, SID_SEQUENCE, SID_ZERO, ChunkId
from packetcloud.chunk.reasons import reason_word
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import (
    fire,
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
from packetcloud.testbed.traffic.pattern import make_payload
from packetcloud.testbed.traffic.schedule import FullWindow, SetRate
from packetcloud.testbed.traffic.source import Source
from packetcloud.testbed.traffic.ticks import path_of, start_ticks

LIFETIME_MS = 60_000
MOST_OUTSTANDING = 4096
"""Cap of an open loop beyond the limit of its path: 4096 chunks wait, the rest is skipped."""
DRAIN_S = 5.0
"""How long the end of a run waits for what is in flight."""


class Sender(Source):
    """Keeps bodies in flight as its schedule says."""

    def __init__(
        self,
        reactor: Any,
        head: bytes,
        payload: bytes,
        make_schedule: Callable[[float], FullWindow | SetRate],
        background: bool = False,
    ) -> None:
        """
        Args:
            make_schedule: called with the time when sending begins: what came before, such as the
                start of the session, is nobody's arrears.
        """
        super().__init__(secrets.randbits(48) << 8)
        self._set_head(head)
        self._reactor = reactor
        self._payload = payload
        self._make_schedule = make_schedule
        self._schedule: FullWindow | SetRate | None = None
        self._background = background
        self._in_flight = 0
        self._drained: Deferred[None] | None = None
        self.departures: list[tuple[int, float]] | None = None
        self.sent = 0
        self.settled: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def begin(self, neighbour: Neighbour) -> None:
        """Start to send to `neighbour`."""
        self._neighbour = neighbour
        self._schedule = self._make_schedule(now_s())
        self._fill()

    @property
    def skipped(self) -> int:
        """Bodies that were due while too many were in flight."""
        return self._schedule.skipped if isinstance(self._schedule, SetRate) else 0

    def drain(self) -> Deferred[None]:
        """Send nothing more; the result fires once nothing is in flight."""
        self._neighbour = None
        self._drained = Deferred()
        if self._in_flight == 0:
            self._drained.callback(None)
        return self._drained

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        self._in_flight -= 1
        self.settled[settlement.value] += 1
        if settlement is Settlement.REFUSED:
            self.refusals[reason_word(reason)] += 1
        if self._drained is not None:
            if self._in_flight == 0:
                fire(self._drained)
        elif self._neighbour is not None:
            self._send_due()

    def _fill(self) -> None:
        if self._neighbour is None:
            return
        self._send_due()
        assert self._schedule is not None
        next_s = self._schedule.next_s()
        if next_s is not None:
            self._reactor.callLater(max(0.0, next_s - now_s()), self._fill)

    def _send_due(self) -> None:
        neighbour = self._neighbour
        assert neighbour is not None and self._schedule is not None
        moment_s = now_s()
        for _ in range(self._schedule.due(moment_s, self._in_flight)):
            number, head = self._next_head()
            if self.departures is not None:
                self.departures.append((number, moment_s))
            self._in_flight += 1
            self.sent += 1
            neighbour.send(BodyKind.CHUNK, head, self._payload, number, background=self._background)


def chunk_head(source: GUID, destination: GUID, payload_bytes: int, sids: list[SID]) -> bytes:
    """Return the header of every chunk of a run; only the chunk id differs."""
    header = ChunkHeader(
        source=source,
        destination=destination,
        chunk_id=ChunkId(0),
        payload_bytes=payload_bytes,
        sid=SID_ZERO if not sids else sids[0] if len(sids) == 1 else SID_SEQUENCE,
        sequence=ServiceSequence(tuple(sids)) if len(sids) > 1 else None,
        lifetime_ms=LIFETIME_MS,
    )
    return header.to_bytes()


async def send(reactor: Any, options: argparse.Namespace) -> None:
    """Send until SIGTERM, or until `--seconds` are over."""
    stop = terminated(reactor)
    identity = own_identity(options.identity)
    payload = make_payload(options.payload_bytes)
    head = chunk_head(identity.guid, options.destination, len(payload), options.sid)

    def make_schedule(start_s: float) -> FullWindow | SetRate:
        if options.rate > 0:
            return SetRate(options.rate, start_s, MOST_OUTSTANDING)
        return FullWindow(options.outstanding)

    sender = Sender(reactor, head, payload, make_schedule, options.background)
    if options.departures is not None:
        sender.departures = []
    config = hop_config(len(payload), is_open=options.open)
    node = HopNode(reactor, identity, Role.HOST, config, sender)
    node.listen(*own_address(options.connect))
    neighbour = await node.connect(options.connect, options.expect)
    go: Deferred[None] = Deferred()
    on_signal(reactor, signal.SIGUSR1, lambda: fire(go))
    emit_event("ready", guid=identity.guid.hex)
    if options.hold:
        await go
    if options.seconds > 0:
        reactor.callLater(options.seconds, fire, stop)
    if options.tick > 0:
        start_ticks(reactor, options.tick, lambda: path_of(neighbour))
    sender.begin(neighbour)
    await stop
    drained = sender.drain()
    reactor.callLater(DRAIN_S, fire, drained)
    await drained
    hop = node.stats()
    await node.close()
    if options.departures is not None:
        options.departures.write_text(json.dumps(sender.departures))
    emit_event(
        "done",
        sent=sender.sent,
        settled=dict(sender.settled),
        refusals=dict(sender.refusals),
        skipped=sender.skipped,
        hop=hop,
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", type=parse_address, required=True)
    parser.add_argument("--expect", type=parse_guid, help="GUID of the node to connect to")
    parser.add_argument("--destination", type=parse_guid, required=True)
    parser.add_argument("--identity", type=Path, help="key file; without it, a new key")
    parser.add_argument("--sid", type=SID.from_hex, action="append", default=[])
    parser.add_argument("--payload-bytes", type=int, default=1 << 20)
    parser.add_argument("--outstanding", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.0, help="chunks per second; 0: all it can")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until SIGTERM")
    parser.add_argument("--open", action="store_true", help="sessions need not be sealed")
    parser.add_argument("--background", action="store_true", help="in the class that yields")
    parser.add_argument("--hold", action="store_true", help="begin only at SIGUSR1")
    parser.add_argument("--tick", type=float, default=0.0, help="say `tick` every so many seconds")
    parser.add_argument("--departures", type=Path, help="write [chunk id, time] pairs here")
    options = parser.parse_args(arguments)
    reactor = install_reactor()
    return run_node(reactor, lambda: send(reactor, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
