"""Whole file transfers over the faulty in-memory router: intact, once, resumable, honest."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.names import SID
from packetcloud.chunk.reasons import Reason
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import HostError, TransferError
from packetcloud.host.file_receiver import IDLE_S, FileReceiver
from packetcloud.host.file_transfer import FileTransfers, ReceivedFile, SentFile
from packetcloud.host.part_file import PartFile, read_journal
from tests.unit.host.host_fakes import World, identity_of

CHUNK = 4096


class Side:
    """One host with its transfers."""

    def __init__(self, world: World, number: int, folder: Path | None = None, **rules: Any) -> None:
        self.world = world
        self.endpoint: Endpoint = world.endpoint(number)
        self.guid = self.endpoint.guid
        self.transfers = FileTransfers(world.clock, self.endpoint)  # type: ignore[arg-type]  # a fake
        self.files: list[ReceivedFile] = []
        self.receiver: FileReceiver | None = None
        if folder is not None:
            promise = self.transfers.receive(folder, on_file=self.files.append, **rules)
            self.receiver = world.run(promise)

    def kill(self) -> None:
        """End without a word, as kill -9 does: only what is on the disk stays."""
        for node in self.world.nodes:
            if node.identity.guid == self.guid and not node.is_closed:
                node.is_closed = True
                if node.neighbour is not None and node.neighbour.is_up:
                    node.neighbour.close("killed")
        if self.receiver is not None:
            self.receiver._folder.close()
            self.receiver._is_closing = True


def make_file(folder: Path, size: int, name: str = "data.bin", seed: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".packetcloud-received")


def send(side: Side, path: Path, to: Side, **options: Any) -> SentFile:
    options.setdefault("chunk_bytes", CHUNK)
    result: SentFile = side.world.run(side.transfers.send(path, to.guid, **options))
    return result


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 50 * CHUNK + 17])
def test_file_arrives_whole(tmp_path: Path, size: int) -> None:
    """Every size around the chunk size, the empty file included; both ends name one SHA-256."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", size)
    sent = send(a, path, b)
    data = path.read_bytes()
    assert (tmp_path / "in" / "data.bin").read_bytes() == data
    assert sent.sha256 == hashlib.sha256(data).digest() == b.files[0].sha256
    assert (sent.size_bytes, sent.name, sent.was_there) == (size, "data.bin", False)
    assert visible(tmp_path / "in") == ["data.bin"]
    assert b.files[0].source == a.guid
    assert a.endpoint.stats()["send_outstanding_count"] == 0


@pytest.mark.parametrize("seed", range(25))
def test_checker_for_files_under_faults(tmp_path: Path, seed: int) -> None:
    """Losses, copies, refusals and broken sessions: every file arrives once, intact."""
    world = World(seed)
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    c = Side(world, 3)
    faults = world.router.faults
    faults.lose, faults.duplicate, faults.settle_lost = 0.05, 0.1, 0.03
    faults.refuse, faults.break_session = 0.03, 0.005
    paths = [make_file(tmp_path / "out", 40 * CHUNK + i, f"f{i}", seed + i) for i in range(3)]
    sides = [a, c, a]
    promises = [
        side.transfers.send(path, b.guid, chunk_bytes=CHUNK, lifetime_s=20, stall_s=200)
        for side, path in zip(sides, paths, strict=True)
    ]
    for promise in promises:
        world.run(promise, limit_s=3000)
    for path in paths:
        assert (tmp_path / "in" / path.name).read_bytes() == path.read_bytes()
    assert visible(tmp_path / "in") == ["f0", "f1", "f2"]
    assert len(b.files) == 3
    assert b.receiver is not None
    assert b.receiver.counters["bugs_total"] == 0


@pytest.mark.parametrize("seed", range(12))
def test_checker_with_kills_of_both_sides(tmp_path: Path, seed: int) -> None:
    """The receiver is killed and comes back while the sender runs; then the sender is killed and
    resumes: the file arrives once, intact, and what was safe is not sent again."""
    world = World(seed)
    rng = random.Random(seed)
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 300 * CHUNK, seed=seed)
    world.router.faults.delay_s = (0.01, 0.05)
    progress: list[int] = []
    limit = rng.randrange(1, 200) * CHUNK
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: progress.append(p.delivered_bytes)
    )
    world.until(lambda: bool(progress) and progress[-1] >= limit)
    assert b.receiver is not None
    for active in b.receiver._all:
        if rng.random() < 0.7:
            world.run(_sync(b.receiver, active))
    b.kill()
    world.advance(rng.random() * 5)
    b = Side(world, 2, tmp_path / "in")
    if seed % 2:
        world.advance(rng.random() * 3)
        a.kill()
        promise.addErrback(lambda _: None)
        a = Side(world, 1)
        promise = a.transfers.send(path, b.guid, chunk_bytes=CHUNK, resume=True)
    sent = world.run(promise)
    assert (tmp_path / "in" / "data.bin").read_bytes() == path.read_bytes()
    assert visible(tmp_path / "in") == ["data.bin"]
    assert len(b.files) == 1
    assert sent.sha256 == hashlib.sha256(path.read_bytes()).digest()


def _sync(receiver: FileReceiver, active: Any) -> Any:
    from packetcloud.host.promise import Promise

    return Promise.from_coroutine(receiver._sync(active))


def test_what_arrives_slowly_is_made_safe_meanwhile(tmp_path: Path) -> None:
    """A transfer of many seconds is noted in the journal on the way, and its end closes it once.

    Regression: a sync was begun on the file that had just been finished and closed."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    world.router.faults.delay_s = (2.0, 4.0)
    path = make_file(tmp_path / "out", 200 * CHUNK)
    promise = a.transfers.send(path, b.guid, chunk_bytes=CHUNK)
    ranges: list[int] = []
    while not promise.is_kept:
        world.advance(0.5)
        for journal in (tmp_path / "in").glob(".*.journal"):
            ranges.append(read_journal(journal)[1].total_bytes)
    assert any(0 < total < 200 * CHUNK for total in ranges)
    assert b.receiver is not None
    assert b.receiver.counters["bugs_total"] == 0
    assert b.receiver.counters["sync_failures_total"] == 0


def test_resume_sends_only_what_is_missing(tmp_path: Path) -> None:
    """The sender stops in the middle; with resume the rest goes, without it all goes again."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 100 * CHUNK)
    half: list[int] = []
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: half.append(p.delivered_bytes)
    )
    world.until(lambda: bool(half) and half[-1] >= 50 * CHUNK)
    promise.addErrback(lambda failure: failure.trap(TransferError))
    promise.cancel()
    world.advance(1.0)
    before = len(_data_chunks(world))
    sent = send(a, path, b, resume=True)
    assert sent.had_bytes >= 50 * CHUNK
    assert len(_data_chunks(world)) - before < 55
    assert visible(tmp_path / "in") == ["data.bin"]
    again = send(a, path, b, resume=True)
    assert again.was_there
    assert len(b.files) == 1


def test_same_file_twice_and_a_taken_name(tmp_path: Path) -> None:
    """Without resume a second sending is a second file; nothing is overwritten unless asked."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 10_000)
    names = [send(a, path, b).name for _ in range(3)]
    assert names == ["data.bin", "data-1.bin", "data-2.bin"]
    world_2 = World()
    a, b = Side(world_2, 1), Side(world_2, 2, tmp_path / "over", overwrite=True)
    assert [send(a, path, b).name for _ in range(2)] == ["data.bin", "data.bin"]
    assert visible(tmp_path / "over") == ["data.bin"]


def test_same_file_at_the_same_time(tmp_path: Path) -> None:
    """Two runs of one file side by side: two whole files (fresh), or one shared (resumed)."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 60 * CHUNK)
    for resume in (False, True):
        promises = [
            a.transfers.send(path, b.guid, chunk_bytes=CHUNK, resume=resume) for _ in range(2)
        ]
        for promise in promises:
            assert world.run(promise).sha256 == hashlib.sha256(path.read_bytes()).digest()
        if not resume:
            assert visible(tmp_path / "in") == ["data-1.bin", "data.bin"]
            for name in visible(tmp_path / "in"):
                (tmp_path / "in" / name).unlink()
    assert visible(tmp_path / "in") == ["data.bin"]


def test_two_senders_of_one_name(tmp_path: Path) -> None:
    """Two hosts send different files of the same name at once: both arrive, apart."""
    world = World()
    a, c = Side(world, 1), Side(world, 3)
    b = Side(world, 2, tmp_path / "in")
    one = make_file(tmp_path / "one", 50 * CHUNK, seed=1)
    two = make_file(tmp_path / "two", 50 * CHUNK, seed=2)
    promises = [s.transfers.send(p, b.guid, chunk_bytes=CHUNK) for s, p in [(a, one), (c, two)]]
    for promise in promises:
        world.run(promise)
    got = {p.read_bytes() for p in (tmp_path / "in").glob("data*")}
    assert got == {one.read_bytes(), two.read_bytes()}


def test_only_allowed_sources(tmp_path: Path) -> None:
    """A source that is not listed is refused with words, and nothing is written."""
    world = World()
    a, c = Side(world, 1), Side(world, 3)
    b = Side(world, 2, tmp_path / "in", allowed=[a.guid])
    path = make_file(tmp_path / "out", 1000)
    with pytest.raises(TransferError, match="not_allowed"):
        send(c, path, b)
    assert visible(tmp_path / "in") == []
    send(a, path, b)


def test_limits_are_told(tmp_path: Path) -> None:
    """A file over the receiver's limit is refused at the offer; one at the limit is taken."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in", max_bytes=1000)
    send(a, make_file(tmp_path / "out", 1000, "fits"), b)
    with pytest.raises(TransferError, match="too_large: the file has 1001 bytes"):
        send(a, make_file(tmp_path / "out", 1001, "large"), b)
    assert visible(tmp_path / "in") == ["fits"]


def test_a_host_without_receiver_says_so(tmp_path: Path) -> None:
    """Sending to a host that receives no files is refused with words."""
    world = World()
    a, b = Side(world, 1), Side(world, 2)
    with pytest.raises(TransferError, match="receives no files"):
        send(a, make_file(tmp_path / "out", 10), b)


def test_unknown_destination_fails_at_once(tmp_path: Path) -> None:
    """Nobody there at the offer: the reason after a moment, not after the stall time."""
    world = World()
    a = Side(world, 1)
    path = make_file(tmp_path / "out", 10)
    promise = a.transfers.send(path, identity_of(9).guid)
    with pytest.raises(TransferError, match="unresolvable_guid"):
        world.run(promise, limit_s=4.0)


def test_disk_full_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up: the sender is told why, and can resume once there is room."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 100 * CHUNK)
    real, room = os.pwrite, [30 * CHUNK]

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr("packetcloud.host.part_file.os.pwrite", pwrite)
    with pytest.raises(TransferError, match="disk is full") as caught:
        send(a, path, b)
    assert caught.value.resumable
    room[0] = 1 << 40
    sent = send(a, path, b, resume=True)
    assert sent.had_bytes > 0
    assert (tmp_path / "in" / "data.bin").read_bytes() == path.read_bytes()


def test_disk_failure_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final fsync fails: told to the sender, the part is kept, a later resume succeeds."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 10 * CHUNK)
    with monkeypatch.context() as patch:

        def broken(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr("packetcloud.host.part_file.os.fsync", broken)
        with pytest.raises(TransferError, match="cannot_store: Input/output error"):
            send(a, path, b)
    assert send(a, path, b, resume=True).name == "data.bin"


def test_services_stand_in_every_chunk_of_the_file(tmp_path: Path) -> None:
    """Offer, data and finish ask for the sequence; the answers come back plainly."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    sids = [SID(bytes([i]) * 20) for i in (7, 8)]
    send(a, make_file(tmp_path / "out", 5 * CHUNK), b, services=sids)
    files = [h for h in world.router.seen if h.payload_type == PayloadType.FILE]
    for header in files:
        wanted = tuple(sids) if header.source == a.guid else None
        assert (header.sequence.sids if header.sequence else None) == wanted


def test_a_change_on_the_way_without_its_counterpart_is_explained(tmp_path: Path) -> None:
    """Encrypted and never decrypted: the sender is told what is likely wrong."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")

    def garble(header: ChunkHeader, payload: bytes) -> bytes:
        return bytes(byte ^ 0x55 for byte in payload)

    world.router.change_payload = garble
    with pytest.raises(TransferError, match="without its counterpart"):
        send(a, make_file(tmp_path / "out", 10), b)


def test_altered_data_never_becomes_a_file(tmp_path: Path) -> None:
    """One flipped bit of the data: no file, no part, and the sender learns it."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    flipped: list[int] = []

    def flip(header: ChunkHeader, payload: bytes) -> bytes:
        if header.payload_type == PayloadType.FILE and len(payload) > 1000 and not flipped:
            flipped.append(1)
            return payload[:-1] + bytes([payload[-1] ^ 1])
        return payload

    world.router.change_payload = flip
    with pytest.raises(TransferError, match="digest_mismatch") as caught:
        send(a, make_file(tmp_path / "out", 5 * CHUNK), b)
    assert not caught.value.resumable
    assert visible(tmp_path / "in") == []


def test_resumed_part_of_another_content_is_replaced(tmp_path: Path) -> None:
    """The content changed under the same name, size and time: found by the digest, sent anew."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 100 * CHUNK, seed=1)
    stamp = path.stat().st_mtime_ns
    half: list[int] = []
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: half.append(p.delivered_bytes)
    )
    promise.addErrback(lambda failure: failure.trap(TransferError))
    world.until(lambda: bool(half) and half[-1] >= 50 * CHUNK)
    promise.cancel()
    world.advance(1.0)
    make_file(tmp_path / "out", 100 * CHUNK, seed=2)
    os.utime(path, ns=(stamp, stamp))
    send(a, path, b, resume=True)
    assert (tmp_path / "in" / "data.bin").read_bytes() == path.read_bytes()
    assert visible(tmp_path / "in") == ["data.bin"]


def test_file_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    """The sender notices and says so; the receiver keeps no file."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 2000 * CHUNK)
    half: list[int] = []
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: half.append(p.delivered_bytes)
    )
    world.until(lambda: bool(half) and half[-1] >= 30 * CHUNK)
    with path.open("r+b") as stream:
        stream.truncate(1)
    with pytest.raises(TransferError, match="send it again"):
        world.run(promise)
    assert "data.bin" not in visible(tmp_path / "in")


def test_names_from_outside_stay_inside(tmp_path: Path) -> None:
    """A sender's path is reduced to a harmless name."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 10)
    assert send(a, path, b, name="../../../tmp/evil").name == "evil"
    assert send(a, path, b, name=".profile").name == "_profile"
    assert visible(tmp_path / "in") == ["_profile", "evil"]


def test_receiver_closes_files_that_nobody_sends(tmp_path: Path) -> None:
    """After five idle minutes the part is closed, and a later resume goes on with it."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 100 * CHUNK)
    half: list[int] = []
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: half.append(p.delivered_bytes)
    )
    promise.addErrback(lambda failure: failure.trap(TransferError))
    world.until(lambda: bool(half) and half[-1] >= 50 * CHUNK)
    promise.cancel()
    assert b.receiver is not None
    world.advance(IDLE_S - 60)
    assert b.receiver.active_count == 1
    world.advance(120)
    assert b.receiver.active_count == 0
    assert send(a, path, b, resume=True).had_bytes >= 50 * CHUNK


def test_receiver_close_keeps_what_is_there(tmp_path: Path) -> None:
    """A clean stop in the middle notes all that arrived; the next one needs only the rest."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    path = make_file(tmp_path / "out", 100 * CHUNK)
    half: list[int] = []
    promise = a.transfers.send(
        path, b.guid, chunk_bytes=CHUNK, on_progress=lambda p: half.append(p.delivered_bytes)
    )
    world.until(lambda: bool(half) and half[-1] >= 50 * CHUNK)
    assert b.receiver is not None
    world.run(b.receiver.close())
    world.run(b.endpoint.close())
    before = len(_data_chunks(world))
    b = Side(world, 2, tmp_path / "in")
    assert world.run(promise).sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert len(_data_chunks(world)) - before < 70


def test_too_many_files_of_one_source(tmp_path: Path) -> None:
    """Over the cap an offer is refused as busy; the others go on."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    world.router.drop_data = lambda header: header.payload_bytes > 2000
    paths = [make_file(tmp_path / "out", 5000, f"f{i}") for i in range(17)]
    promises = [a.transfers.send(path, b.guid, chunk_bytes=CHUNK) for path in paths]
    world.advance(2.0)
    failed = [p for p in promises if p.is_kept]
    assert len(failed) == 1
    with pytest.raises(TransferError, match="busy"):
        failed[0].value_now()
    world.router.drop_data = None
    for promise in promises:
        if promise is not failed[0]:
            world.run(promise)


def test_chunks_that_come_while_the_folder_is_opened(tmp_path: Path) -> None:
    """A running sender meets its restarted receiver before that has opened its folder: it waits.

    Regression: such a chunk was refused as if the host received no files."""
    world = World()
    a = Side(world, 1)
    b = Side(world, 2)
    opening: list[Any] = []
    pool = world.clock.getThreadPool()

    class SlowPool:
        def callInThreadWithCallback(self, *call: Any) -> None:
            opening.append(call)

    world.clock.getThreadPool = lambda: SlowPool()  # type: ignore[method-assign]  # till it opens
    promise = b.transfers.receive(tmp_path / "in", on_file=b.files.append)
    del world.clock.getThreadPool
    sending = a.transfers.send(make_file(tmp_path / "out", 10), b.guid)
    world.advance(0.5)
    assert not sending.is_kept
    pool.callInThreadWithCallback(*opening[0])
    b.receiver = world.run(promise)
    assert world.run(sending).name == "data.bin"


def test_folder_in_use_is_said(tmp_path: Path) -> None:
    """A second receiver on the same folder fails to open with words."""
    world = World()
    Side(world, 2, tmp_path / "in")
    with pytest.raises(HostError, match="another receiver"):
        Side(world, 3, tmp_path / "in")


def test_large_offsets(tmp_path: Path) -> None:
    """Past 4 GiB: a sparse part and pieces at large offsets keep their place."""
    from packetcloud.host.part_file import PartLabel

    size = (5 << 30) + 3
    part = PartFile.create(tmp_path, PartLabel(b"s" * 20, b"k" * 16, "big", size), "tag")
    part.write([(size - 3, memoryview(b"end"))], 0)
    with part.part_path.open("rb") as stream:
        stream.seek(size - 3)
        assert stream.read() == b"end"
    part.discard()


def test_hop_limit_and_other_final_reasons_are_told(tmp_path: Path) -> None:
    """A reason that trying again does not heal ends the transfer with it."""
    world = World()
    a, b = Side(world, 1), Side(world, 2, tmp_path / "in")
    world.router.refuse_with = lambda header: Reason.HOP_LIMIT if header.payload_bytes > 2000 else 0
    with pytest.raises(TransferError, match="hop_limit"):
        send(a, make_file(tmp_path / "out", 5 * CHUNK), b)


def _data_chunks(world: World) -> list[ChunkHeader]:
    return [h for h in world.router.seen if h.payload_type == 2 and h.payload_bytes > 2000]
