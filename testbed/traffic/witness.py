"""A host with a journal: sends numbered chunks at a set rate, or takes what comes.

The journal is that of the simulation (`testbed.simulation.journal`), so the same judges read it. It
is written when the process is told to end, as one JSON array for each line. Prints `ready`, and
`done` when the journal is complete; SIGUSR1 asks for `progress`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID, SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.reactor import new_reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.simulation.journal import Entry, Line
from packetcloud.testbed.simulation.payload import digest_of, make_payload, op_of
from packetcloud.testbed.tally import tallied
from packetcloud.testbed.traffic.node import (
    fire,
    now_s,
    on_signal,
    parse_address,
    parse_guid,
    run_node,
    terminated,
)
from packetcloud.testbed.traffic.schedule import SetRate

SEED = "witness"
SENDER, TAKER = "A", "B"
MOST_OUTSTANDING = 16_384
"""At 200 chunks/s more than a minute: a pause must not make the load go away."""
END_LIMIT_S = 90.0
"""Beyond the lifetime of a chunk; then a journal lacks how some ended, and its judge says so."""

Row = tuple[Line, int]
"""A line, and the count that a tally wrote; 0: none."""


class Journal:
    """The lines of one host, kept until the end."""

    def __init__(self, node: str) -> None:
        self.rows: list[Row] = []
        self.entries: Counter[Entry] = Counter()
        self._node = node

    def write(
        self, entry: Entry, op: int, source: str, chunk_id: int, size: int, digest: str, **more: Any
    ) -> None:
        count = more.pop("count", 0)
        outcome = more.pop("outcome", "")
        line = Line(
            now_s(), self._node, 1, entry, op, source, chunk_id, size, digest, outcome, **more
        )
        self.rows.append((line, count))
        self.entries[entry] += 1

    def dump(self, path: Path) -> None:
        """Write all lines to `path`."""
        with path.open("w") as stream:
            for line, count in self.rows:
                values = [*line[:3], line.entry.name, *line[4:], count]
                stream.write(json.dumps(values) + "\n")


def load_journal(path: Path) -> list[Row]:
    """Read what `Journal.dump` wrote."""
    rows = []
    for text in path.read_text().splitlines():
        *values, count = json.loads(text)
        values[3] = Entry[values[3]]
        rows.append((Line(*values), count))
    return rows


class Sender:
    """Sends at its rate whatever becomes of the chunks before."""

    def __init__(self, reactor: Any, endpoint: Endpoint, options: argparse.Namespace) -> None:
        self.journal = Journal(SENDER)
        self.skipped_count = 0
        self._reactor = reactor
        self._endpoint = endpoint
        self._options = options
        self._schedule = SetRate(options.rate, now_s(), MOST_OUTSTANDING)
        self._outstanding = 0
        self._last_op = 0
        self._drained: Deferred[None] | None = None

    def send_due(self) -> None:
        if self._drained is not None:
            return
        for _ in range(self._schedule.due(now_s(), self._outstanding)):
            self._send()
        next_s = self._schedule.next_s()
        assert next_s is not None
        self._reactor.callLater(max(0.0, next_s - now_s()), self.send_due)

    def drain(self) -> Deferred[None]:
        """Send nothing more; the result fires when the end of every chunk is known."""
        self._drained = Deferred()
        if not self._outstanding:
            fire(self._drained)
        return self._drained

    def _send(self) -> None:
        options = self._options
        self._last_op += 1
        op = self._last_op
        payload = make_payload(op, options.payload_bytes, SEED)
        try:
            promise: Any = self._endpoint.send(
                options.destination, payload, services=options.sid, lifetime_s=options.lifetime
            )
        except SendQueueFullError:
            self.skipped_count += 1
            return
        self._outstanding += 1
        about = op, self._endpoint.guid.short, promise.send.chunk_id, len(payload)
        digest = digest_of(payload)
        self.journal.write(Entry.SUBMITTED, *about, digest)

        def ended(result: SendResult) -> None:
            outcome = f"{result.outcome.value} {result.reason_word}".strip()
            self.journal.write(
                Entry.ENDED, *about, digest, outcome=outcome, is_indeterminate=result.indeterminate
            )
            self._outstanding -= 1
            if self._drained is not None and not self._outstanding:
                fire(self._drained)

        promise.addCallback(ended)


class Taker:
    """Takes every chunk, and writes down the count that a tally put before it."""

    def __init__(self) -> None:
        self.journal = Journal(TAKER)

    def take(self, chunks: list[ReceivedChunk]) -> None:
        for chunk in chunks:
            count, payload = tallied(bytes(chunk.payload))
            op = op_of(payload)
            header = chunk.header
            assert op is not None, f"a chunk of nobody arrived: {header}"
            self.journal.write(
                Entry.TAKEN, op, header.source.short, header.chunk_id.value, len(payload),
                digest_of(payload), count=count,
            )  # fmt: skip
            chunk.release()


async def run(reactor: Any, options: argparse.Namespace) -> None:
    """Send or take until SIGTERM, then write the journal."""
    stop = terminated(reactor)
    identity = Identity.generate()
    endpoint = await Endpoint.open(reactor, options.connect, identity, router_guid=options.expect)
    host: Sender | Taker
    if options.destination is None:
        host = Taker()
        endpoint.on_chunks(host.take)
    else:
        host = Sender(reactor, endpoint, options)
    on_signal(reactor, signal.SIGUSR1, lambda: _tell("progress", host))
    emit_event("ready", guid=identity.guid.hex)
    if isinstance(host, Sender):
        host.send_due()
    await stop
    if isinstance(host, Sender):
        drained = host.drain()
        limit = reactor.callLater(END_LIMIT_S, fire, drained)
        await drained
        if limit.active():
            limit.cancel()
    await endpoint.close()
    host.journal.dump(options.journal)
    _tell("done", host)


def _tell(kind: str, host: Sender | Taker) -> None:
    counts = {entry.name.lower(): count for entry, count in host.journal.entries.items()}
    emit_event(kind, **counts, skipped=getattr(host, "skipped_count", 0))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", type=parse_address, required=True)
    parser.add_argument("--expect", type=parse_guid, help="GUID of the router")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--destination", type=GUID.from_hex, help="absent: take what comes")
    parser.add_argument("--sid", type=SID.from_hex, action="append", default=[])
    parser.add_argument("--payload-bytes", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=200.0, help="chunks per second")
    parser.add_argument("--lifetime", type=float, default=60.0, help="of each chunk, in seconds")
    options = parser.parse_args(arguments)
    reactor = new_reactor()
    try:
        return run_node(reactor, lambda: run(reactor, options))
    finally:
        reactor.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
