"""Fillers of the caps of a host. Source: host/caps.py."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.hop.api import Refusal, Settlement
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.host.chunk_ids import MAX_RUNS_COUNT
from packetcloud.host.duplicates import (
    MAX_PAGES_COUNT,
    MAX_PAGES_PER_SOURCE_COUNT,
    MAX_REFUSED_COUNT,
    MAX_REFUSED_PER_SOURCE_COUNT,
    DuplicateWindow,
    Seen,
)
from packetcloud.host.endpoint_core import MAX_TEMPLATES_COUNT, EndpointCore, HandReport
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.file_answers import MAX_PENDING_COUNT as MAX_ANSWERS_COUNT
from packetcloud.host.file_answers import MAX_PENDING_PER_SOURCE_COUNT
from packetcloud.host.file_format import Data, Finish, Message, Offer
from packetcloud.host.file_receiver import (
    MAX_ACTIVE_COUNT,
    MAX_ACTIVE_PER_SOURCE_COUNT,
    MAX_TRANSFERS_PER_FILE_COUNT,
    FileReceiver,
    ReceiveRules,
)
from packetcloud.host.header_template import SendOptions
from packetcloud.host.inbox_folder import (
    MAX_PARTS_COUNT,
    MAX_REMEMBERED_COUNT,
    CompletedFile,
    InboxFolder,
)
from packetcloud.host.incoming import MAX_PIECES_COUNT
from packetcloud.host.outstanding import HEAP_SLACK_COUNT, RECENT_COUNT
from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.reports import MAX_PENDING_COUNT as MAX_REPORTS_COUNT
from packetcloud.host.results import SendOutcome, SendResult
from packetcloud.host.send import HandToHop, Send
from tests.unit.caps.filled import Filled, fills
from tests.unit.host.host_fakes import FakeBody, WorldClock

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


class Window:
    """A duplicate window that scattered ids come into."""

    def __init__(self) -> None:
        self.window = DuplicateWindow()
        self.early = self.window.counters

    def scatter(self, source: GUID, first: int, end: int) -> None:
        """Each id lies in a page of its own."""
        for number in range(first, end):
            self.window.arrived(source.value, number << 8, 60.0, 0.0)

    def knows_friend(self) -> bool:
        return self.window.arrived(FRIEND.value, 7, 60.0, 0.0) is Seen.TAKEN

    def left(self) -> int:
        self.window.expire(1e6)
        return len(self.window._sources) + self.window._pages_count + self.window._refused_count


def _window() -> Window:
    made = Window()
    made.window.arrived(FRIEND.value, 7, 60.0, 0.0)
    made.window.taken(FRIEND.value, 7)
    return made


@fills("host", "pages of ids seen of one source")
def pages_of_source() -> Filled:
    """A source scatters its ids."""
    limit = MAX_PAGES_PER_SOURCE_COUNT
    made = _window()

    def scatter(first: int, end: int) -> tuple[int, int]:
        made.scatter(name_of(1), first, end)
        pages = len(made.window._sources[name_of(1).value].pages)
        return pages, made.early["forgotten_early_total"]

    at_cap, counted = scatter(0, limit)
    beyond, counted_beyond = scatter(limit, limit + 100)
    goes_on = made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())


@fills("host", "pages of ids seen of all sources")
def pages_of_all() -> Filled:
    """Many sources scatter their ids."""
    limit = MAX_PAGES_COUNT
    made = _window()
    each = limit // 16
    for number in range(1, 17):
        made.scatter(name_of(number), 0, each - (number == 16))
    at_cap, counted = made.window._pages_count, made.early["forgotten_early_total"]
    made.scatter(name_of(99), 0, 500)
    beyond, counted_beyond = made.window._pages_count, made.early["forgotten_early_total"]
    goes_on = made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())


@fills("host", "refusals remembered of one source")
def refusals_of_source() -> Filled:
    """The application refuses everything of a source."""
    limit = MAX_REFUSED_PER_SOURCE_COUNT
    made = _window()

    def refuse(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            made.window.arrived(name_of(1).value, number, 60.0, 0.0)
            made.window.refused(name_of(1).value, number, "no")
        known = len(made.window._sources[name_of(1).value].refused)
        return known, made.early["refused_forgotten_total"]

    at_cap, counted = refuse(0, limit)
    beyond, counted_beyond = refuse(limit, limit + 100)
    return Filled(limit, at_cap, counted, beyond, counted_beyond, made.knows_friend(), made.left())


@fills("host", "refusals remembered of all sources")
def refusals_of_all() -> Filled:
    """The application refuses everything of many sources."""
    limit = MAX_REFUSED_COUNT
    made = _window()
    window = made.window

    def refuse(source: int, count: int) -> tuple[int, int]:
        for number in range(count):
            window.arrived(name_of(source).value, number, 60.0, 0.0)
            window.refused(name_of(source).value, number, "no")
        known = sum(len(one.refused) for one in window._sources.values())
        assert known == window._refused_count
        return known, made.early["refused_forgotten_total"]

    sources = limit // MAX_REFUSED_PER_SOURCE_COUNT
    for number in range(1, sources):
        refuse(number, MAX_REFUSED_PER_SOURCE_COUNT)
    at_cap, counted = refuse(sources, MAX_REFUSED_PER_SOURCE_COUNT)
    beyond, counted_beyond = refuse(sources + 1, 10)
    goes_on = window.refusal_detail(name_of(sources + 1).value, 0) == "no" and made.knows_friend()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, made.left())


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


# files


class Silent:
    """An endpoint whose sends never end."""

    def __init__(self) -> None:
        self.sent: list[tuple[GUID, Promise[SendResult]]] = []

    def send(self, destination: GUID, payload: bytes, **options: Any) -> Promise[SendResult]:
        promise: Promise[SendResult] = Promise()
        self.sent.append((destination, promise))
        return promise


class Inbox:
    """A receiver of files that is given messages by hand; nothing of it is on a network."""

    def __init__(self, path: Path) -> None:
        self.clock = WorldClock()
        self.endpoint = Silent()
        self.folder = InboxFolder(path, sync_disk=False, free_bytes=lambda _: 1 << 50)
        self.folder.open()
        self.receiver = FileReceiver(
            self.clock,  # type: ignore[arg-type]
            self.endpoint,  # type: ignore[arg-type]
            self.folder,
            ReceiveRules(sync_disk=False),
        )
        self.refusals: list[str] = []
        self.serial = 0

    def give(self, source: GUID, message: Message) -> bool:
        """Return whether the message was not refused."""
        header = ChunkHeader(
            source, OWN, ChunkId(1), payload_bytes=0, payload_type=PayloadType.FILE
        )
        before = len(self.refusals)

        def answer(chunk: ReceivedChunk, words: str | None) -> None:
            if words is not None:
                self.refusals.append(words)

        self.receiver.take(ReceivedChunk(header, 0, FakeBody(b""), answer), message)  # type: ignore[arg-type]
        return len(self.refusals) == before

    def offer(
        self, source: GUID, *, key: int = 0, size: int = 1 << 30, transfer: int = 0
    ) -> bytes | None:
        """Offer a file; return the transfer id, None when it was refused."""
        self.serial += 1
        transfer_id = (transfer or self.serial).to_bytes(16, "big")
        file_key = (key or self.serial).to_bytes(15, "big") + b"k"
        message = Offer(
            transfer_id, self.serial, file_key, size, f"file-{self.serial}", resume=True
        )
        return transfer_id if self.give(source, message) else None

    def counted(self, word: str) -> int:
        return self.receiver.counters[word]

    def idle(self) -> None:
        """Let every file be closed, and every answer end."""
        for _ in range(400):
            self.clock.advance(1.0)
        for _, promise in self.endpoint.sent:
            promise.callback(SendResult(SendOutcome.DELIVERED))
        self.endpoint.sent.clear()

    def held(self) -> int:
        receiver = self.receiver
        answers = receiver._answers
        return (
            len(receiver._all)
            + len(receiver._by_id)
            + len(receiver._by_key)
            + len(answers._pending)
            + len(answers._pending_of)
        )


@contextmanager
def inbox() -> Iterator[Inbox]:
    with tempfile.TemporaryDirectory() as folder:
        made = Inbox(Path(folder))
        yield made
        made.folder.close()


@fills("host", "files coming in")
def files() -> Filled:
    """Sources offer files and send none of them."""
    with inbox() as box:
        for number in range(MAX_ACTIVE_COUNT):
            assert box.offer(name_of(1 + number // 8))
        at_cap, counted = len(box.receiver._all), box.counted("refused_busy_total")
        for number in range(20):
            assert box.offer(name_of(100 + number)) is None
        beyond, counted_beyond = len(box.receiver._all), box.counted("refused_busy_total")
        box.idle()
        goes_on = box.offer(FRIEND) is not None
        box.idle()
        left = box.held()
    return Filled(MAX_ACTIVE_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "files coming in from one source")
def files_of_source() -> Filled:
    """One source offers files and sends none of them."""
    limit = MAX_ACTIVE_PER_SOURCE_COUNT
    with inbox() as box:

        def press(count: int) -> tuple[int, int]:
            for _ in range(count):
                box.offer(name_of(1))
            return len(box.receiver._all), box.counted("refused_busy_total")

        at_cap, counted = press(limit)
        beyond, counted_beyond = press(20)
        goes_on = box.offer(FRIEND) is not None
        box.idle()
        left = box.held()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "transfers of one file coming in")
def transfers() -> Filled:
    """One file is offered again and again, each time as a new transfer."""
    limit = MAX_TRANSFERS_PER_FILE_COUNT
    with inbox() as box:

        def press(count: int) -> tuple[int, int]:
            for _ in range(count):
                box.offer(name_of(1), key=7)
            (active,) = box.receiver._all
            assert len(active.incoming._questions) <= len(active.incoming.transfer_ids)
            assert len(box.receiver._by_id) == len(active.incoming.transfer_ids)
            return len(active.incoming.transfer_ids), box.counted("refused_busy_total")

        at_cap, counted = press(limit)
        beyond, counted_beyond = press(1000)
        goes_on = box.offer(FRIEND) is not None
        box.idle()
        left = box.held()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "separate pieces of one file coming in")
def pieces() -> Filled:
    """Every second byte of a file comes in."""
    with inbox() as box:
        transfer_id = box.offer(name_of(1))
        assert transfer_id is not None
        (active,) = box.receiver._all
        ranges = active.incoming._reserved

        def press(first: int, end: int) -> tuple[int, int]:
            # Writing each by itself would take as long as the disk does: they are only decided on.
            for number in range(first, end):
                verdict = active.incoming.data(2 * number, 2 * number + 1, box.clock.seconds())
                box.receiver.counters[f"data_{verdict.value}_total"] += 1
            return len(ranges), box.counted("data_bad_total")

        at_cap, counted = press(0, MAX_PIECES_COUNT)
        press(MAX_PIECES_COUNT, MAX_PIECES_COUNT + 100)
        box.give(name_of(1), Data(transfer_id, 2 * MAX_PIECES_COUNT + 500, memoryview(b"x")))
        beyond, counted_beyond = len(ranges), box.counted("refused_bad_range_total")
        goes_on = box.offer(FRIEND) is not None
        active.incoming.not_written()
        left = len(active.incoming._reserved)
    return Filled(MAX_PIECES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


def _answers(limit: int, sources: int) -> Filled:
    with inbox() as box:
        ids = [box.offer(name_of(1 + number)) for number in range(sources)]
        answers = box.receiver._answers

        def press(count: int) -> tuple[int, int]:
            for number in range(count):
                which = number % sources
                transfer = int.from_bytes(ids[which] or b"", "big")
                box.offer(name_of(1 + which), transfer=transfer, key=which + 1)
            return len(answers._pending), box.counted("answers_not_sent_total")

        at_cap, counted = press(limit - sources)
        beyond, counted_beyond = press(200)
        before = len(box.endpoint.sent)
        goes_on = True
        if sources == 1:
            assert box.offer(FRIEND)
            goes_on = len(box.endpoint.sent) == before + 1
        box.idle()
        left = box.held()
    return Filled(limit, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("host", "answers about files on their way")
def answers_of_all() -> Filled:
    """Many sources ask again and again, and take no answers."""
    return _answers(MAX_ANSWERS_COUNT, MAX_ANSWERS_COUNT // MAX_PENDING_PER_SOURCE_COUNT)


@fills("host", "answers about files on their way to one source")
def answers_of_source() -> Filled:
    """One source asks again and again, and takes no answers."""
    return _answers(MAX_PENDING_PER_SOURCE_COUNT, 1)


@fills("host", "unfinished files on the disk")
def parts() -> Filled:
    """Sources offer files, send none of them, and come back with others."""
    with inbox() as box:

        def on_disk() -> int:
            return sum(map(len, box.folder._parts.values()))

        offered = 0
        while on_disk() < MAX_PARTS_COUNT:
            for _ in range(MAX_ACTIVE_PER_SOURCE_COUNT):
                offered += 1
                assert box.offer(name_of(1 + offered // 16))
            box.idle()
        at_cap, counted = on_disk(), box.counted("refused_busy_total")
        for number in range(20):
            box.offer(name_of(500 + number))
        beyond, counted_beyond = on_disk(), box.counted("refused_busy_total")
        assert len(list(box.folder.path.glob(".*.part"))) == MAX_PARTS_COUNT
        # Whoever left one may go on with it.
        goes_on = box.offer(name_of(1), key=1) is not None
        left = box.held() - 4  # that one file: its place, two names, and an answer
        left -= len(box.receiver._answers._pending_of)
    return Filled(MAX_PARTS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, max(0, left))


@fills("host", "completed files remembered")
def completed() -> Filled:
    """A source sends empty files without end."""
    with inbox() as box:
        digest = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

        for number in range(10**9, 10**9 + MAX_REMEMBERED_COUNT - 20):
            transfer_id, key = number.to_bytes(16, "big"), number.to_bytes(15, "big") + b"k"
            done = CompletedFile(name_of(1).value, transfer_id, key, "file", 0, digest)
            box.folder._remember(done)

        def press(count: int) -> tuple[int, int]:
            for _ in range(count):
                transfer_id = box.offer(name_of(1), size=0)
                assert transfer_id is not None
                box.give(name_of(1), Finish(transfer_id, 1, 0, digest))
                box.endpoint.sent.clear()
                box.receiver._answers._pending.clear()
                box.receiver._answers._pending_of.clear()
            assert not box.receiver._all
            return len(box.folder._completed) // 2, box.folder.forgotten_count

        at_cap, counted = press(20)
        beyond, counted_beyond = press(50)
        lines = (box.folder.path / ".packetcloud-received").read_bytes().count(b"\n")
        assert lines <= 2 * MAX_REMEMBERED_COUNT
        goes_on = box.offer(FRIEND) is not None
        left = 0
    return Filled(MAX_REMEMBERED_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)
