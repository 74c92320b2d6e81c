"""Endpoints over a router that misbehaves: none lost, none doubled, intact, and every send ends."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import ChunkHeader, DigestAlgorithm, PayloadDigest, PayloadType
from packetcloud.chunk.hop.api import Refusal, Role
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID_ZERO, SID, ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import EndpointLimits
from packetcloud.host.errors import EndpointClosedError, RouterUnreachableError
from packetcloud.host.outstanding import SendLimits
from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendOutcome, SendResult
from tests.unit.host.host_fakes import World, identity_of


class Receiver:
    """A destination application that keeps a journal."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.journal: list[tuple[bytes, int, str]] = []
        self.batches: list[int] = []
        endpoint.on_chunks(self.take)

    def take(self, batch: list[ReceivedChunk]) -> None:
        self.batches.append(len(batch))
        for chunk in batch:
            digest = hashlib.sha256(chunk.payload).hexdigest()
            self.journal.append((chunk.header.source.value, chunk.header.chunk_id.value, digest))
            chunk.release()


def test_send_is_delivered_and_reported() -> None:
    """The plain case: payload and header arrive, the sender learns it."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    got: list[bytes] = []

    def take(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            got.append(bytes(chunk.payload))
            chunk.release()

    b.on_chunks(take)
    result = world.run(a.send(b.guid, b"hello", payload_prefix=b"well "))
    assert got == [b"well hello"]
    assert result.outcome is SendOutcome.DELIVERED
    assert result.custody_s is not None
    assert 0 < result.custody_s < result.total_s


@pytest.mark.parametrize("seed", range(40))
def test_checker_under_faults(seed: int) -> None:
    """L1 to L3 and L5 with every fault at once: what was accepted is delivered or reported failed,
    nothing arrives twice, every payload is whole. On even seeds, where the network makes no copies
    of its own, no send said to have failed for sure arrived."""
    world = World(seed)
    rng = random.Random(seed)
    a, b = world.endpoint(1), world.endpoint(2)
    receiver = Receiver(b)
    faults = world.router.faults
    faults.lose, faults.duplicate, faults.settle_lost = 0.1, 0.15 * (seed % 2), 0.05
    faults.refuse, faults.break_session = 0.05, 0.01
    faults.delay_s = (0.001, 0.3)
    sent: dict[str, SendResult | None] = {}
    for number in range(200):
        payload = number.to_bytes(4, "big") + rng.randbytes(rng.randrange(200))
        key = hashlib.sha256(payload).hexdigest()
        sent[key] = None

        def ended(result: SendResult, key: str = key) -> None:
            assert sent[key] is None, "ended twice"
            sent[key] = result

        a.send(b.guid, payload, lifetime_s=rng.choice([2.0, 20.0, 60.0])).addCallback(ended)
        world.advance(rng.random() * 0.2)
    world.until(lambda: all(result is not None for result in sent.values()))
    faults.__init__()  # type: ignore[misc]  # healing
    world.advance(120.0)
    arrived = [digest for _, _, digest in receiver.journal]
    ids = [(source, chunk_id) for source, chunk_id, _ in receiver.journal]
    assert len(ids) == len(set(ids)), "doubled"
    assert set(arrived) <= set(sent), "altered"
    for key, result in sent.items():
        assert result is not None
        if result.ok:
            assert key in arrived, "said to be delivered and lost"
        elif not result.indeterminate and seed % 2 == 0:
            assert key not in arrived, "said to have failed for sure and delivered"
    stats = a.stats()
    assert stats["send_submitted_total"] == 200
    ends = ("delivered", "refused", "expired")
    assert sum(stats.get(f"send_{word}_total", 0) for word in ends) == 200
    assert stats["send_outstanding_count"] == 0
    assert stats["send_delivered_total"] > 150


def test_refusal_reason_reaches_the_caller() -> None:
    """An unattached destination comes back as unresolvable_guid, with advice."""
    world = World()
    a = world.endpoint(1)
    result = world.run(a.send(identity_of(9).guid, b"x"))
    assert result.reason == Reason.UNRESOLVABLE_GUID
    assert "is the destination attached" in result.explain()


def test_application_refusal_reaches_the_caller_again_and_again() -> None:
    """The application's words travel back, also for a repeated copy."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    calls: list[int] = []

    def refuse(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            calls.append(1)
            chunk.refuse("no thanks")
            chunk.release()

    b.on_chunks(refuse)
    dropped: list[int] = []

    def drop_first_report(header: ChunkHeader) -> bool:
        if header.payload_type == PayloadType.REPORT and not dropped:
            dropped.append(1)
            return True
        return False

    world.router.drop_data = drop_first_report
    result = world.run(a.send(b.guid, b"x"))
    assert (result.reason, result.detail) == (Reason.RECEIVER_REFUSED, "no thanks")
    assert result.attempts_count == 2
    assert calls == [1]


def test_lost_report_is_healed_without_a_second_delivery() -> None:
    """The report is lost: the chunk is sent again, suppressed, and reported again."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    receiver = Receiver(b)
    lost: list[int] = []

    def drop(header: ChunkHeader) -> bool:
        if header.payload_type == PayloadType.REPORT and len(lost) < 2:
            lost.append(1)
            return True
        return False

    world.router.drop_data = drop
    result = world.run(a.send(b.guid, b"once"))
    assert result.ok
    assert result.attempts_count == 3
    assert len(receiver.journal) == 1
    assert b.stats()["receive_duplicates_taken_total"] == 2


def test_reports_are_batched() -> None:
    """Many chunks cost few report chunks."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    Receiver(b)
    promises = [a.send(b.guid, b"x" * 10) for _ in range(500)]
    for promise in promises:
        assert world.run(promise).ok
    chunks = b.stats()["report_report_chunks_total"]
    assert b.stats()["report_reports_sent_total"] == 500
    assert chunks < 50


def test_router_restart_is_survived() -> None:
    """The router goes away and comes back: the endpoint reconnects and the sends go on."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    receiver = Receiver(b)
    world.router.stop()
    promises = [a.send(b.guid, bytes([i])) for i in range(5)]
    world.advance(7.0)
    assert not a.is_connected
    world.router.is_running = True
    for promise in promises:
        assert world.run(promise).ok
    assert len(receiver.journal) == 5
    assert a.stats()["sessions_total"] == 2


def test_a_second_session_takes_over_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router forgot us and we connected twice: what the first session held goes on the new
    one, and the late settlements of the first change nothing."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    receiver = Receiver(b)
    node = world.nodes[0]
    old = node.neighbour
    assert old is not None
    promises = [a.send(b.guid, bytes([i])) for i in range(10)]
    world.advance(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(old, "close", lambda reason="": None)
        world.run(Promise.from_coroutine(node.connect(world.router.address, None)))
    assert node.neighbour is not old
    old.close("late")
    for promise in promises:
        assert world.run(promise).ok
    assert len(receiver.journal) == 10
    assert a.stats()["sessions_total"] == 2
    assert a.is_connected


def test_no_router_is_said_with_the_next_step() -> None:
    """Opening without a router fails with what to look at, not with a traceback of the hop."""
    world = World()
    world.router.is_running = False
    with pytest.raises(RouterUnreachableError, match=r"127.0.0.1:4700.*packetcloud router status"):
        world.endpoint(1)


def test_a_neighbour_that_is_no_router_is_refused() -> None:
    """A host answering at the router's address is not taken for a router."""
    world = World()
    world.router.role = Role.HOST
    with pytest.raises(RouterUnreachableError, match="not a router"):
        world.endpoint(1)


def test_another_router_than_the_named_one_is_refused() -> None:
    """`router_guid` pins the router."""
    world = World()
    with pytest.raises(RouterUnreachableError):
        world.endpoint(1, router_guid=identity_of(77).guid)


def test_backpressure_by_writable() -> None:
    """Who awaits `writable` never exceeds the cap and still gets everything through."""
    world = World()
    limits = EndpointLimits(SendLimits(max_outstanding_count=8))
    a, b = world.endpoint(1, limits=limits), world.endpoint(2)
    receiver = Receiver(b)
    most = 0
    promises = []
    for number in range(50):
        world.run(a.writable(b.guid))
        promises.append(a.send(b.guid, bytes([number])))
        most = max(most, int(a.stats()["send_outstanding_count"]))
    for promise in promises:
        assert world.run(promise).ok
    assert most == 4
    assert len(receiver.journal) == 50


def test_a_destination_that_takes_nothing_stops_nobody_else() -> None:
    """Its sends fill their share of the room; another destination's go out and are delivered."""
    world = World()
    limits = EndpointLimits(SendLimits(max_outstanding_count=20))
    a, stuck, b = world.endpoint(1, limits=limits), world.endpoint(2), world.endpoint(3)

    def take(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            chunk.defer()
            chunk.release()

    stuck.on_chunks(take)
    receiver = Receiver(b)
    for number in range(100):
        a.send(stuck.guid, bytes([number])).addErrback(lambda failure: None)
    any_room, room_there = a.writable(), a.writable(stuck.guid)
    for number in range(100):
        world.run(a.writable(b.guid))
        assert world.run(a.send(b.guid, bytes([number]))).ok
    assert len(receiver.journal) == 100
    assert not any_room.called and not room_there.called
    assert a.stats()["send_waiting_count"] == 90


def test_stream_takes_a_chunk_when_the_next_is_asked_for() -> None:
    """The iterator's chunk is reported once the application came back for more, or released it."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    stream = b.receive()
    results: list[SendResult] = []
    a.send(b.guid, b"one").addCallback(results.append)
    chunk = world.run(stream.__anext__())
    world.advance(0.5)
    assert bytes(chunk.payload) == b"one"
    assert results == []
    waiting = stream.__anext__()
    world.advance(0.5)
    assert results[0].ok
    a.send(b.guid, b"two").addCallback(results.append)
    second = world.run(waiting)
    second.release()
    world.advance(0.5)
    assert results[1].ok


def test_async_for_ends_at_close() -> None:
    """`async for` over `receive()` ends without an error when the endpoint closes."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    got: list[bytes] = []

    async def consume() -> int:
        async for chunk in b.receive():
            got.append(bytes(chunk.payload))
            chunk.release()
        return len(got)

    consumer = Promise.from_coroutine(consume())
    for number in range(3):
        world.run(a.send(b.guid, bytes([number])))
    world.run(b.close())
    assert world.run(consumer) == 3


def test_deferred_answer() -> None:
    """`defer` keeps the report back until the application says so, also after release."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    kept: list[ReceivedChunk] = []

    def take(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            chunk.defer()
            chunk.release()
            kept.append(chunk)

    b.on_chunks(take)
    promise = a.send(b.guid, b"x")
    world.advance(0.9)
    assert not promise.is_kept
    kept[0].accept()
    assert world.run(promise).ok


def test_a_failing_callback_refuses_its_batch(caplog: Any) -> None:
    """An exception in the application is a refusal to the source, never a lost chunk."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)

    def broken(batch: list[ReceivedChunk]) -> None:
        raise ValueError("bug")

    b.on_chunks(broken)
    result = world.run(a.send(b.guid, b"x"))
    assert result.reason == Reason.RECEIVER_REFUSED
    assert b.stats()["callback_failures_total"] == 1


def test_chunks_wait_for_a_receiver() -> None:
    """What arrives before the application listens is kept and then delivered."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    promise = a.send(b.guid, b"early")
    world.advance(0.5)
    assert not promise.is_kept
    receiver = Receiver(b)
    assert world.run(promise).ok
    assert len(receiver.journal) == 1


def test_callbacks_by_payload_type() -> None:
    """A callback for a type gets that type only; two for one type are a mistake."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    files: list[ReceivedChunk] = []
    rest: list[ReceivedChunk] = []
    b.on_chunks(files.extend, PayloadType.FILE)
    b.on_chunks(rest.extend)
    world.run(a.send(b.guid, b"f", payload_type=PayloadType.FILE))
    world.run(a.send(b.guid, b"d"))
    assert (len(files), len(rest)) == (1, 1)
    with pytest.raises(LocalMisuseError):
        b.on_chunks(rest.extend)


def test_unanswered_chunks_are_capped_and_the_source_waits() -> None:
    """Over the cap the destination says store_full, the source tries again, nothing is lost."""
    world = World()
    a = world.endpoint(1)
    b = world.endpoint(2, limits=EndpointLimits(max_unanswered_count=3))
    kept: list[ReceivedChunk] = []

    def take(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            chunk.defer()
            kept.append(chunk)

    b.on_chunks(take)
    promises = [a.send(b.guid, bytes([i])) for i in range(6)]
    world.advance(0.5)
    assert len(kept) == 3
    while any(not promise.is_kept for promise in promises):
        for chunk in kept:
            chunk.accept()
        world.advance(0.5)
    assert all(promise.value_now().ok for promise in promises)
    assert len(kept) == 6


def test_malformed_bodies_are_refused_with_a_reason() -> None:
    """Not a chunk, cut short, wrong length, not for us: refused at the hop, counted, no crash."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    node = next(node for node in world.nodes if node.identity.guid == b.guid)
    neighbour = node.neighbour
    good = ChunkHeader(a.guid, b.guid, ChunkId(1), 3).to_bytes() + b"abc"
    from tests.unit.host.host_fakes import FakeBody

    cases = {
        b"": Reason.MALFORMED,
        good[:50]: Reason.MALFORMED,
        good[:-1]: Reason.MALFORMED,
        good + b"d": Reason.MALFORMED,
        ChunkHeader(a.guid, a.guid, ChunkId(1), 0).to_bytes(): Reason.UNRESOLVABLE_GUID,
    }
    for data, reason in cases.items():
        assert neighbour is not None
        assert b.body_received(neighbour, BodyKind.CHUNK, FakeBody(data)) == Refusal(reason)
        assert b.body_received(neighbour, BodyKind.TASK, FakeBody(data)) == Refusal(
            Reason.UNSUPPORTED
        )
    assert b.stats()["receive_hop_refused_malformed_payload_length_total"] == 2


def test_digest_is_checked() -> None:
    """A payload that does not match the digest its source sent is refused, a good one is taken."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    Receiver(b)
    good = PayloadDigest(DigestAlgorithm.SHA256, hashlib.sha256(b"abc").digest())
    assert world.run(a.send(b.guid, b"abc", digest=good)).ok
    assert world.run(a.send(b.guid, b"abd", digest=good)).reason == Reason.DIGEST_MISMATCH
    blake = PayloadDigest(
        DigestAlgorithm.BLAKE2B_256, hashlib.blake2b(b"abc", digest_size=32).digest()
    )
    assert world.run(a.send(b.guid, b"abc", digest=blake)).ok


def test_services_stand_in_the_header() -> None:
    """One service is the SID, several are a sequence, in order."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    Receiver(b)
    sids = [SID(bytes([i]) * 20) for i in (7, 8)]
    world.run(a.send(b.guid, b"x", sid=sids[0]))
    world.run(a.send(b.guid, b"x", services=sids))
    data = [h for h in world.router.seen if h.payload_type == PayloadType.DATA]
    assert data[0].sid == sids[0]
    assert data[1].sequence is not None
    assert data[1].sequence.sids == tuple(sids)
    with pytest.raises(LocalMisuseError):
        a.send(b.guid, b"x", sid=sids[0], services=sids)
    with pytest.raises(LocalMisuseError):
        a.send(GUID_ZERO, b"x")
    with pytest.raises(LocalMisuseError):
        a.send(b.guid, b"x", lifetime_s=0)


def test_payloads_of_any_buffer() -> None:
    """bytes, bytearray, memoryviews of any item size, a numpy array; not memory with gaps."""
    import array

    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    got: list[bytes] = []

    def take(batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            got.append(bytes(chunk.payload))
            chunk.release()

    b.on_chunks(take)
    numbers = array.array("I", [1, 2, 3])
    for payload in (b"abc", bytearray(b"abc"), memoryview(b"xabc")[1:], memoryview(numbers)):
        assert world.run(a.send(b.guid, payload)).ok
    assert got == [b"abc", b"abc", b"abc", numbers.tobytes()]
    with pytest.raises(LocalMisuseError, match="contiguous"):
        a.send(b.guid, memoryview(b"abcdef")[::2])
    with pytest.raises(LocalMisuseError, match="payload prefix"):
        a.send(b.guid, b"", payload_prefix=bytes(1013))
    assert world.run(a.send(b.guid, b"", payload_prefix=bytes(1000))).ok


def test_cancelling_a_send_gives_it_up() -> None:
    """Cancel on the promise ends the send with the truth."""
    world = World()
    a = world.endpoint(1)
    promise = a.send(identity_of(9).guid, b"x")
    promise.cancel()
    world.advance(0.0)
    result = promise.value_now()
    assert result.reason == Reason.CANCELLED


def test_cancelling_sends_when_another_ends() -> None:
    """A callback that cancels the other sends, in the middle of handing them to the hop, is fine:
    each ends once, and nothing is handed over after its end."""
    world = World()
    limits = EndpointLimits(SendLimits(max_outstanding_count=1))
    a, b = world.endpoint(1, limits=limits), world.endpoint(2)
    receiver = Receiver(b)
    promises = [a.send(b.guid, bytes([i])) for i in range(10)]
    for promise in promises[1:]:
        promise.addErrback(lambda _: None)

    def cancel_others(result: SendResult) -> SendResult:
        for promise in promises[1:]:
            promise.cancel()
        return result

    promises[0].addCallback(cancel_others)
    assert world.run(promises[0]).ok
    world.advance(10.0)
    assert all(promise.called for promise in promises)
    assert len(receiver.journal) <= 2
    assert a.stats()["send_outstanding_count"] == 0


def test_close_ends_what_is_outstanding_and_flushes_reports() -> None:
    """After close every send has ended, later sends raise, the last reports are with the router."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    Receiver(b)
    promise = a.send(b.guid, b"x")
    world.until(lambda: b.stats()["receive_taken_total"] == 1 if _has_taken(b) else False)
    world.run(b.close())
    assert world.run(promise).ok
    hanging = a.send(identity_of(9).guid, b"x")
    world.run(a.close())
    assert world.run(hanging).reason == Reason.CANCELLED
    with pytest.raises(EndpointClosedError):
        a.send(b.guid, b"x")
    world.run(a.close())
    owners = [getattr(call.func, "__self__", None) for call in world.clock.getDelayedCalls()]
    assert a not in owners
    assert b not in owners


def test_attach_adds_an_identity() -> None:
    """A second GUID at the same router, sending and receiving for itself, closed with the first."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    second = world.run(a.attach(identity_of(3)))
    Receiver(second)
    assert world.run(b.send(second.guid, b"x")).ok
    world.run(a.close())
    assert not second.is_connected


def test_restarted_receiver_knows_what_it_took(tmp_path: Path) -> None:
    """With a state file, a copy that comes after a restart is not delivered again (L2)."""
    world = World()
    a = world.endpoint(1)
    state = tmp_path / "window"
    b = world.endpoint(2, state_file=state)
    receiver = Receiver(b)
    world.router.drop_data = lambda header: header.payload_type == PayloadType.REPORT
    promise = a.send(b.guid, b"once")
    world.until(lambda: len(receiver.journal) == 1)
    world.advance(0.5)
    next(n for n in world.nodes if n.identity.guid == b.guid).is_closed = True
    for neighbour in list(world.router.hosts.values()):
        if neighbour.node.identity.guid == b.guid:
            neighbour.close("killed")
    world.router.drop_data = None
    again = world.endpoint(2, state_file=state)
    second = Receiver(again)
    assert world.run(promise).ok
    assert second.journal == []


def _has_taken(endpoint: Endpoint) -> bool:
    return "receive_taken_total" in endpoint.stats()


@pytest.mark.parametrize(
    ("kind", "words", "counter"),
    [
        (PayloadType.SEALED, "no router decrypted it", "sealed_total"),
        (PayloadType.SEALED_REPORT, "no router decrypted it", "sealed_total"),
        (PayloadType.COMPRESSED, "no router restored it", "compressed_total"),
    ],
)
def test_what_nobody_unwrapped_is_refused(kind: PayloadType, words: str, counter: str) -> None:
    """The source is told what is missing; an application that asks for such payloads gets them."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    arrived: list[ReceivedChunk] = []
    b.on_chunks(arrived.extend)
    result = world.run(a.send(b.guid, b"\x00secret", payload_type=kind))
    assert result.reason == Reason.RECEIVER_REFUSED and words in result.detail
    assert not arrived and b.stats()[counter] == 1
    b.on_chunks(arrived.extend, kind)
    assert world.run(a.send(b.guid, b"\x00secret", payload_type=kind)).ok
    assert len(arrived) == 1


@pytest.mark.parametrize("flush_s", [1.0, 0.0])
def test_close_lets_the_last_words_out(flush_s: float) -> None:
    """What was sent just before arrives. Control: without the time for it nothing does."""
    world = World()
    a, b = world.endpoint(1), world.endpoint(2)
    receiver = Receiver(b)
    a.send(b.guid, b"the end", report=False)
    world.run(a.close(flush_s=flush_s))
    world.advance(5.0)
    assert len(receiver.journal) == (1 if flush_s else 0)


def test_close_waits_no_longer_than_it_may() -> None:
    """A router that has no room for the last words does not keep a program from ending."""
    world = World()
    a = world.endpoint(1)
    for _ in range(3):
        a.send(identity_of(9).guid, bytes(1 << 20), report=False, lifetime_s=600.0)
    ended = a.close(flush_s=0.5)
    world.advance(3.0)
    assert ended.called
