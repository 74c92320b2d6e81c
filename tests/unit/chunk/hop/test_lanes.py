"""Bodies that go through shared memory, between two cores and over a bad network."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig, Refusal, Settlement
from packetcloud.chunk.hop.lane import LENT_FROM_BYTES, PAGE_BYTES, Lane, Shelf
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.reasons import Reason
from tests.unit.chunk.hop.hop_link import OPEN, A, B, Link

SIZE = 1 << 20
BODY = 100_000


def lanes(size: int = SIZE) -> tuple[Lane, Lane]:
    """Return both ends of a lane."""
    first, second = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    return Lane(first, second), Lane(second, first)


def sharing(link: Link, size: int = SIZE) -> tuple[Session, Session]:
    """Connect, and let both sides lend."""
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    for session, lane in zip((ours, theirs), lanes(size), strict=True):
        session.open_lane(lane)
    ours.use_lane()
    theirs.use_lane()
    return ours, theirs


def free_bytes(session: Session) -> int:
    lane = session.sender.departures.lane
    assert lane is not None
    return lane.free_bytes


def body(number: int, size: int = BODY) -> bytes:
    return number.to_bytes(4, "big") + random.Random(number).randbytes(size - 4)


@pytest.mark.parametrize("config", [OPEN, HopConfig()], ids=["open", "sealed"])
def test_what_is_lent_needs_few_bytes_of_the_network(config: HopConfig) -> None:
    """A body that is worth it travels as a reference; both sides' books end as they began."""
    link = Link(config=config)
    ours, theirs = sharing(link)
    sent: list[int] = []
    link.on_datagram = lambda source, datagram: sent.append(len(datagram)) is None
    ours.send(BodyKind.TASK, b"head", body(1), 1)
    ours.send(BodyKind.TASK, b"", body(2, LENT_FROM_BYTES - 1), 2)
    ours.send(BodyKind.TASK, b"", body(3, LENT_FROM_BYTES), 3)
    link.run_until_settled(3)
    assert link.uppers[B].bodies[0] == b"head" + body(1)
    assert set(link.uppers[B].bodies[1:]) == {
        body(2, LENT_FROM_BYTES - 1),
        body(3, LENT_FROM_BYTES),
    }
    assert sum(sent) < LENT_FROM_BYTES + 3000
    assert ours.counters()["lent_bodies"] == theirs.counters()["borrowed_bodies"] == 2
    assert free_bytes(ours) == SIZE
    assert ours.queued_bytes == 0 and link.cores[B].stats()["held_bytes"] == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_network_loses_and_mixes_nothing(seed: int) -> None:
    """Lost, repeated and overtaking references: each body arrives once, as it was."""
    link = Link(seed, loss=0.2, duplication=0.2, jitter_s=0.02, config=OPEN)
    ours, theirs = sharing(link)
    count = 60
    for number in range(count):
        ours.send(BodyKind.TASK, b"", body(number), number)
        theirs.send(BodyKind.VERDICT, b"", body(1000 + number), number)
    link.run(lambda: all(len(upper.settled) == count for upper in link.uppers.values()))
    assert sorted(link.uppers[B].bodies) == [body(number) for number in range(count)]
    assert sorted(link.uppers[A].bodies) == [body(1000 + number) for number in range(count)]
    assert min(s.counters()["lent_bodies"] for s in (ours, theirs)) > 0
    link.run(lambda: free_bytes(ours) == free_bytes(theirs) == SIZE)


def test_what_has_no_room_goes_in_datagrams() -> None:
    """A lane for two bodies never holds up a third."""
    link = Link(config=OPEN, delay_s=0.05)
    ours, _ = sharing(link, 2 * (BODY + PAGE_BYTES))
    for number in range(6):
        ours.send(BodyKind.TASK, b"", body(number), number)
    link.run_until_settled(6)
    assert 2 <= ours.counters()["lent_bodies"] < 6
    assert sorted(link.uppers[B].bodies) == [body(number) for number in range(6)]


def give_back_at_once(session: Session) -> None:
    """The defence left out: what is given up makes room before the neighbour knows of it."""
    transfers = session.sender.transfers
    give_up = transfers.give_up

    def without(transfer: int) -> object:
        loan = transfers._loans.pop(transfer, None)
        if loan is not None:
            assert transfers.lane is not None
            transfers.lane.give_back(loan)
        return give_up(transfer)

    transfers.give_up = without  # type: ignore[method-assign,assignment]  # what is left out


def lend_and_give_up(prepare: Callable[[Session], None]) -> list[bytes]:
    """Give a body up whose reference is late, and lend another; return what arrived."""
    link = Link(config=OPEN)
    ours, _ = sharing(link)
    prepare(ours)
    late: list[bytes] = []

    def hold(source: object, datagram: bytes) -> bool:
        if source == A and datagram[0] == wire.BUNDLE_BYTE and not late:
            late.append(datagram)
            return False
        return source != A or bool(datagram[0] == wire.BUNDLE_BYTE)  # no FORGET arrives yet

    link.on_datagram = hold
    ours.send(BodyKind.TASK, b"", body(1), 1)
    link.pump()
    assert late
    ours.cancel(1)
    ours.send(BodyKind.TASK, b"", body(2), 2)
    link.pump()
    link.on_datagram = lambda source, datagram: True
    link.receive(B, A, late)
    link.run_until_settled(2)
    assert [(token, ending) for token, ending, _ in link.uppers[A].settled] == [
        (1, Settlement.LOST),
        (2, Settlement.ACCEPTED),
    ]
    link.run(lambda: free_bytes(ours) == SIZE)
    return link.uppers[B].bodies


def test_what_is_given_up_is_not_written_over_before_the_neighbour_knows() -> None:
    """A reference that comes late finds the body that it was about."""
    assert lend_and_give_up(lambda session: None) == [body(1), body(2)]


def test_without_waiting_another_body_is_taken_for_it() -> None:
    """The control: the same, where memory of what was given up is used again at once."""
    assert lend_and_give_up(give_back_at_once) == [body(2), body(2)]


def test_a_refused_body_gives_its_memory_back() -> None:
    """Whether the layer above refuses it or it is too large to be looked at."""
    link = Link(config=OPEN)
    ours, theirs = sharing(link)
    link.uppers[B].answer = lambda data: Refusal(Reason.UNSUPPORTED)
    theirs.receiver.custody._max_wire_bytes = BODY
    ours.send(BodyKind.TASK, b"", body(1), 1)
    ours.send(BodyKind.TASK, b"", body(2, BODY + 1), 2)
    link.run_until_settled(2)
    assert sorted(reason for _, _, reason in link.uppers[A].settled) == sorted(
        (Reason.UNSUPPORTED, Reason.PAYLOAD_TOO_LARGE)
    )
    link.run(lambda: free_bytes(ours) == SIZE)
    assert link.cores[B].stats()["held_bytes"] == 0


@pytest.mark.parametrize(
    "reference",
    [
        wire.REFERENCE.pack(SIZE - 10, 11),
        wire.REFERENCE.pack(0xFFFF_FFFF, 0xFFFF_FFFF),
        wire.REFERENCE.pack(0, 0),
        b"\0" * 7,
        b"\0" * 9,
    ],
)
def test_who_lends_what_is_not_there_loses_the_session(reference: bytes) -> None:
    """Nothing outside of the lane is read, and nothing of it is handed up."""
    link = Link(config=OPEN)
    _, theirs = sharing(link)
    send_record(link, theirs, reference)
    link.run(lambda: not theirs.is_up and not link.cores[B].sessions)
    assert link.uppers[B].down == ["it lends what is not there"]
    assert link.uppers[B].bodies == []


def test_who_lends_without_a_lane_loses_the_session() -> None:
    """The same where no memory is shared."""
    link = Link(config=OPEN)
    link.connect()
    (theirs,) = link.cores[B].sessions.values()
    send_record(link, theirs, wire.REFERENCE.pack(0, 10))
    link.run(lambda: not link.cores[B].sessions)
    assert link.cores[B].dropped["bad_reference"] == 1


def send_record(link: Link, to: Session, content: bytes, transfer: int = 0) -> None:
    """Have B get a bundle with one record that says where a body lies."""
    (ours,) = link.cores[A].sessions.values()
    record = wire.RECORD.pack(transfer, len(content), BodyKind.TASK, wire.FORM_LENT, 0) + content
    link.receive(B, A, [ours._envelope.bundle(1, 1, record)])


@pytest.mark.parametrize("seed", range(5))
def test_a_shelf_hands_out_what_is_free_once(seed: int) -> None:
    """No two stretches touch each other's pages; what comes back is one piece again."""
    chance = random.Random(seed)
    pages = 64
    shelf = Shelf(pages * PAGE_BYTES + 5)
    held: list[tuple[int, int]] = []
    for _ in range(2000):
        if held and chance.random() < 0.5:
            shelf.give(*held.pop(chance.randrange(len(held))))
        size = chance.randrange(1, 9 * PAGE_BYTES)
        found = shelf.find(size)
        start = shelf.take(size)
        assert start == found
        if start is not None:
            held.append((start, size))
        taken = sorted((at, at + -(-length // PAGE_BYTES) * PAGE_BYTES) for at, length in held)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(taken))
        used = sum(end - at for at, end in taken)
        assert shelf.free_bytes == pages * PAGE_BYTES - used
    for one in held:
        shelf.give(*one)
    assert shelf.take(pages * PAGE_BYTES) == 0


def test_a_service_is_woken_for_the_only_task() -> None:
    """By the bell, before its body is laid; not while it is at work, and not for other bodies."""
    link = Link(config=OPEN)
    ours, _ = sharing(link)
    rung: list[int] = []
    ours.use_lane(lambda: rung.append(ours.counters()["lent_bodies"]))
    ours.send(BodyKind.CHUNK, b"", body(0), 0)
    assert rung == []
    ours.send(BodyKind.TASK, b"", body(1), 1)
    ours.send(BodyKind.TASK, b"", body(2), 2)
    assert rung == [0]
    link.run_until_settled(3)
    assert rung == [0]


def test_who_shares_memory_is_forewarned_by_its_bell() -> None:
    """Nothing is sent for it, and a neighbour is near however late it answered."""
    link = Link(config=OPEN, delay_s=0.05)
    ours, _ = sharing(link)
    rung: list[bool] = []
    ours.use_lane(lambda: rung.append(True))
    assert ours.rtt.minimum_s > 0.05 and ours.is_near
    link.run(lambda: not link.in_flight)
    sent: list[bytes] = []
    link.on_datagram = lambda source, datagram: sent.append(datagram) is None
    ours.forewarn()
    link.pump()
    assert rung == [True] and sent == []


def test_references_to_too_much_are_bounded_as_other_transfers_are() -> None:
    """Whoever lends bodies beyond the limit, and numbers them as he likes, fills nothing."""
    link = Link(config=OPEN)
    _, theirs = sharing(link)
    theirs.receiver.custody._max_wire_bytes = BODY
    reference = wire.REFERENCE.pack(0, BODY + 1)
    for number in range(0, 3 * wire.TRANSFER_WINDOW_COUNT, 7):
        send_record(link, theirs, reference, number)
    refused = theirs.receiver.outcomes.refused
    assert len(refused) == -(-wire.TRANSFER_WINDOW_COUNT // 7)
    assert max(refused) < wire.TRANSFER_WINDOW_COUNT
    assert link.cores[B].dropped["beyond_window"] > 0 and theirs.is_up


def test_a_few_bytes_do_not_have_a_body_copied_again_and_again() -> None:
    """References of one datagram lie side by side: to more than there is they are a lie."""
    link = Link(config=OPEN)
    _, theirs = sharing(link)
    (ours,) = link.cores[A].sessions.values()
    reference = wire.REFERENCE.pack(0, BODY)
    head = (len(reference), BodyKind.TASK, wire.FORM_LENT, 0)
    records = b"".join(wire.RECORD.pack(number, *head) + reference for number in range(50))
    link.receive(B, A, [ours._envelope.bundle(1, 50, records)])
    assert theirs.counters()["borrowed_bodies"] == SIZE // BODY
    link.run(lambda: not link.cores[B].sessions)
    assert link.uppers[B].down == ["it lends what is not there"]


def test_the_memory_of_a_lane_goes_with_its_session() -> None:
    """At once, not when the collector comes by: restarts in a row must not pile it up."""
    link = Link(config=OPEN)
    ours, theirs = sharing(link)
    theirs.use_lane(lambda: None)
    ours.send(BodyKind.TASK, b"", body(1), 1)
    link.run_until_settled(1)
    assert theirs._lane is not None
    gone = weakref.ref(theirs._lane)
    gc.disable()
    try:
        theirs.close("tested")
        link.run(lambda: not link.cores[B].sessions)
        assert gone() is None
    finally:
        gc.enable()
    assert theirs._ring is None and theirs.counters()["borrowed_bodies"] == 1
    assert link.cores[B].stats()["borrowed_bodies"] == 1


@pytest.mark.parametrize("config", [OPEN, HopConfig()], ids=["open", "sealed"])
@pytest.mark.parametrize("is_full", [True, False])
def test_a_lent_body_that_comes_back_is_sent_again(config: HopConfig, is_full: bool) -> None:
    """As a reference, or cut for datagrams as they are now where the lane has no room."""
    link = Link(config=config)
    ours, theirs = sharing(link)
    refusal, answers = theirs.receiver.credit.refusal, [wire.NOT_NOW]

    def refuse_once(size: int, flow: int, now: float) -> int | None:
        if answers and size >= BODY:
            if is_full:
                monkey.setattr(lane, "takes", lambda size: False)
            return answers.pop()
        return refusal(size, flow, now)

    lane = ours.sender.departures.lane
    assert lane is not None
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(theirs.receiver.credit, "refusal", refuse_once)
        ours.send(BodyKind.TASK, b"head", body(1), 1)
        link.run_until_settled(1)
    assert answers == [] and link.uppers[B].bodies == [b"head" + body(1)]
    assert lane.lent_bodies == (1 if is_full else 2)
    link.run(lambda: free_bytes(ours) == SIZE)
    assert ours.queued_bytes == 0 and link.cores[B].stats()["held_bytes"] == 0
