"""Fillers of the caps of file transfers. Source: host/caps.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.names import GUID, ChunkId
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
from packetcloud.host.inbox_folder import (
    MAX_PARTS_COUNT,
    MAX_REMEMBERED_COUNT,
    CompletedFile,
    InboxFolder,
)
from packetcloud.host.incoming import MAX_PIECES_COUNT
from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendOutcome, SendResult
from tests.unit.caps.endpoint_fillers import FRIEND, OWN, name_of
from tests.unit.caps.filled import Filled, fills
from tests.unit.host.host_fakes import FakeBody, WorldClock


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
            self.clock,  # type: ignore[arg-type]  # a fake
            self.endpoint,  # type: ignore[arg-type]  # a fake
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

        self.receiver.take(ReceivedChunk(header, 0, FakeBody(b""), answer), message)  # type: ignore[arg-type]  # fakes
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
