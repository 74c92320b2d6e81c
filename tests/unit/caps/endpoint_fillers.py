"""Fillers of the caps of a host's endpoint. Source: host/caps.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import Refusal, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.host.chunk_ids import MAX_RUNS_COUNT
from packetcloud.host.endpoint_core import MAX_TEMPLATES_COUNT, EndpointCore, HandReport
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.header_template import SendOptions
from packetcloud.host.outstanding import HEAP_SLACK_COUNT, RECENT_COUNT
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.reports import MAX_PENDING_COUNT as MAX_REPORTS_COUNT
from packetcloud.host.send import HandToHop, Send
from tests.unit.caps.filled import Filled, fills
from tests.unit.host.host_fakes import FakeBody

OWN = GUID(b"\x0a" * 20)
FRIEND = GUID(b"\x0f" * 20)
FAR_S = 60.0


def name_of(number: int) -> GUID:
    return GUID(number.to_bytes(20, "big"))


class Host:
    """An endpoint's core whose router takes everything and reports nothing."""

    def __init__(self) -> None:
        numbers = iter(range(1 << 40, 1 << 62, 1 << 20))
        self.core = EndpointCore(OWN, lambda: next(numbers))
        self.now = 1000.0
        self.ended = 0
        self.core.link_up(self.now)

    def send(self, destination: GUID = FRIEND, size: int = 1, *, report: bool = True) -> Send:
        options = SendOptions(destination, wants_report=report)
        sent = self.core.send(options, bytes(size), self.now, lifetime_s=FAR_S)
        self.turn()
        return sent

    def friends(self) -> Iterator[GUID]:
        """Yield destinations that are flows of their own."""
        labels = set()
        for number in itertools.count(1 << 32):
            destination = name_of(number)
            label = self.core.flow_of(SendOptions(destination))
            if label not in labels:
                labels.add(label)
                yield destination

    def turn(self) -> list[HandReport]:
        """Do what the core wants done; return the report chunks, settled."""
        reports = []
        while commands := self.core.take_commands(self.now):
            for command in commands:
                if isinstance(command, HandToHop):
                    self.core.settled(command.send, Settlement.ACCEPTED, 0, self.now)
                elif isinstance(command, HandReport):
                    reports.append(command)
                    self.core.settled(command.batch, Settlement.ACCEPTED, 0, self.now)
                else:
                    self.ended += 1
        return reports

    def arrive(
        self, source: GUID, chunk_id: int, *, report: bool = True
    ) -> ReceivedChunk | Refusal | None:
        header = ChunkHeader(
            source=source,
            destination=OWN,
            chunk_id=ChunkId(chunk_id),
            payload_bytes=0,
            lifetime_ms=60_000,
            wants_report=report,
        )

        def answer(chunk: ReceivedChunk, words: str | None) -> None:
            self.core.answered(chunk, words, self.now)

        return self.core.body_arrived(BodyKind.CHUNK, FakeBody(header.to_bytes()), answer, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.handle_timeout(self.now)
        self.turn()


@fills("host", "chunks outstanding")
def outstanding_count() -> Filled:
    """Many destinations, or a custodian, never report; one alone would not get all the room."""
    host = Host()
    friends = host.friends()
    limit = host.core.limits.sends.max_outstanding_count

    def press(count: int) -> tuple[int, int]:
        for _ in range(count):
            host.send(next(friends))
        stats = host.core.sends.stats()
        return host.core.sends._window.held_count, int(stats["waiting_count"])

    at_cap, counted = press(limit)
    beyond, counted_beyond = press(50)
    goes_on = isinstance(host.arrive(FRIEND, 1), ReceivedChunk)
    host.wait(FAR_S + 5)
    host.wait(FAR_S + 5)
    left = len(host.core.sends) + host.core.sends._window.waiting_count
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "bytes outstanding")
def outstanding_bytes() -> Filled:
    """The same with large chunks."""
    host = Host()
    friends = host.friends()
    limit = host.core.limits.sends.max_outstanding_bytes

    def press(count: int) -> tuple[int, int]:
        for _ in range(count):
            host.send(next(friends), size=1 << 20)
        stats = host.core.sends.stats()
        return host.core.sends.outstanding_bytes, int(stats["waiting_count"])

    at_cap, counted = press(limit >> 20)
    beyond, counted_beyond = press(10)
    goes_on = isinstance(host.arrive(FRIEND, 1), ReceivedChunk)
    host.wait(FAR_S + 5)
    host.wait(FAR_S + 5)
    left = host.core.sends.outstanding_bytes
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "sends that wait")
def waiting() -> Filled:
    """The same, and the application goes on sending."""
    host = Host()
    friends = host.friends()
    sends = host.core.sends
    for _ in range(host.core.limits.sends.max_outstanding_count):
        host.send(next(friends))
    limit = host.core.limits.sends.max_waiting_count
    for _ in range(limit):
        host.send()
    at_cap, counted = sends._window.waiting_count, sends.counters["rejected_total"]
    for _ in range(10):
        try:
            host.send()
        except SendQueueFullError:
            continue
    beyond, counted_beyond = sends._window.waiting_count, sends.counters["rejected_total"]
    assert len(sends) <= limit + host.core.limits.sends.max_outstanding_count
    assert not sends._commands
    goes_on = isinstance(host.arrive(FRIEND, 1), ReceivedChunk)
    host.core.sends.abandon_all(host.now)
    host.turn()
    left = len(sends) + sends._window.waiting_count
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "ended sends remembered")
def recent() -> Filled:
    """Sends that want no report end as soon as the router has them."""
    host = Host()

    def press(count: int) -> tuple[int, int]:
        for _ in range(count):
            host.send(report=False)
        return len(host.core.sends._recent), host.core.sends.counters["ended_forgotten_total"]

    at_cap, counted = press(RECENT_COUNT)
    beyond, counted_beyond = press(100)
    goes_on = host.ended == RECENT_COUNT + 100
    return Filled(RECENT_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("host", "replaced wake-ups")
def wakes() -> Filled:
    """The session with the router breaks again and again while a chunk is on its way."""
    host = Host()
    sends = host.core.sends
    host.core.send(SendOptions(FRIEND), b"x", host.now, lifetime_s=1e6)
    fullest, largest = 0, 0
    for _ in range(2 * HEAP_SLACK_COUNT):
        host.core.take_commands(host.now)
        host.core.link_down(host.now)
        host.core.link_up(host.now)
        spare = len(sends._wakes) - 4 * len(sends)
        largest = max(largest, spare)
        if not sends.counters["wakes_swept_total"]:
            fullest = max(fullest, spare)
    counted = sends.counters["wakes_swept_total"]
    goes_on = isinstance(host.arrive(FRIEND, 1), ReceivedChunk)
    host.core.take_commands(host.now)
    host.core.link_down(host.now)
    sends.abandon_all(host.now)
    host.turn()
    sends.next_timeout()
    return Filled(HEAP_SLACK_COUNT, fullest, 0, largest, counted, goes_on, len(sends._wakes), 4)


@fills("host", "received and unanswered chunks")
def unanswered() -> Filled:
    """Chunks come in and the application does not answer."""
    host = Host()
    limit = host.core.limits.max_unanswered_count
    key = "hop_refused_store_full_unanswered_total"
    chunks = [host.arrive(name_of(1), number) for number in range(limit)]
    at_cap, counted = host.core._unanswered_count, host.core.counters[key]
    more = [host.arrive(name_of(1), limit + number) for number in range(20)]
    assert more == [Refusal(Reason.STORE_FULL)] * 20
    beyond, counted_beyond = host.core._unanswered_count, host.core.counters[key]
    goes_on = host.send(report=False).is_over
    for chunk in chunks:
        assert isinstance(chunk, ReceivedChunk)
        chunk.release()
    left = host.core._unanswered_count
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "reports that wait for a router")
def reports() -> Filled:
    """The router is away while chunks are answered."""
    host = Host()
    host.core.link_down(host.now)
    pending = host.core._reports

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            chunk = host.arrive(name_of(1), number)
            assert isinstance(chunk, ReceivedChunk)
            chunk.release()
        return len(pending), pending.counters["reports_dropped_total"]

    at_cap, counted = press(0, MAX_REPORTS_COUNT)
    beyond, counted_beyond = press(MAX_REPORTS_COUNT, MAX_REPORTS_COUNT + 50)
    goes_on = isinstance(host.arrive(FRIEND, 1), ReceivedChunk)
    host.core.link_up(host.now)
    while len(pending):
        host.wait(0.1)
    left = len(pending) + len(pending._by_source)
    return Filled(MAX_REPORTS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


def _many_sources(limit: int, held: Callable[[EndpointCore], tuple[int, int]]) -> Filled:
    """Chunks of ever new sources want reports."""
    host = Host()

    def press(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            host.now += 0.01
            chunk = host.arrive(name_of(number), number)
            assert isinstance(chunk, ReceivedChunk)
            chunk.release()
            assert len(host.turn()) == 1
            if not number % 4096:
                host.core.handle_timeout(host.now)
        return held(host.core)

    at_cap, counted = press(1, limit + 1)
    beyond, counted_beyond = press(limit + 1, limit + 100)
    goes_on = host.send(report=False).is_over
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("host", "destinations with a run of chunk ids")
def id_runs() -> Filled:
    """Chunks of ever new sources want reports."""
    return _many_sources(
        MAX_RUNS_COUNT, lambda core: (len(core._ids._next), core._ids.forgotten_count)
    )


@fills("host", "encoded headers kept")
def templates() -> Filled:
    """Chunks of ever new sources want reports."""
    return _many_sources(
        MAX_TEMPLATES_COUNT,
        lambda core: (len(core._templates), core.counters["templates_forgotten_total"]),
    )
