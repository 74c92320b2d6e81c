"""The parts of a receiver, each alone: one transfer, the outcomes, the account."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.buffers import BufferPool, RowBuffer, SmallBody, StoredBody
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.neighbour_credit import NeighbourCredit
from packetcloud.chunk.hop.outcomes import Outcomes
from packetcloud.chunk.reasons import Reason


def incoming(segments: int) -> Incoming:
    store = BufferPool().take_store(segments, 1472)
    return Incoming(7, 1, 0, segments * 1440, segments, store, None, 0.0)


def test_a_segment_counts_once_in_whatever_order() -> None:
    """In order no table is made; behind a gap each new segment counts, a repeat does not."""
    one = incoming(10)
    assert one.mark(0, 3) == 3 and one.got is None and one.partial() == wire.Partial(7, 3, b"")
    assert one.mark(5, 7) == 2 and one.high == 7
    assert one.partial() == wire.Partial(7, 3, bytes([0b1100]))
    assert one.mark(4, 6) == 1 and one.mark(4, 7) == 0 and one.mark(0, 3) == 0
    assert one.count == 6
    assert one.mark(3, 10) == 4 and one.count == one.segments


def test_altered_segments_of_a_whole_transfer_are_missing_again() -> None:
    """Whether it came in order or not; then only they make it whole."""
    one = incoming(4)
    assert one.mark(0, 4) == 4
    one.miss([1, 3])
    assert one.count == 2 and one.partial() == wire.Partial(7, 1, bytes([0b010]))
    assert one.mark(0, 4) == 2 and one.count == 4


def test_settled_transfers_close_ranks() -> None:
    """All below the first gap need no bit; those above have one each."""
    outcomes = Outcomes(None)
    for transfer in (2, 0, 3, 12):
        outcomes.settle(transfer)
    assert outcomes.settled_below == 1 and outcomes.bitmap() == bytes([0b110, 0b1000])
    outcomes.settle(1)
    assert outcomes.settled_below == 4 and outcomes.bitmap() == bytes([0, 1])
    assert 3 in outcomes and 4 not in outcomes and 12 in outcomes


def test_a_refusal_is_said_until_its_sender_knows() -> None:
    """It is on the list with its reason; FORGET settles it."""
    outcomes = Outcomes(None)
    outcomes.refuse(0, Reason.STORE_FULL)
    for _ in range(2):
        assert outcomes.frames(1000) == [wire.RefusedFrame(((0, Reason.STORE_FULL),)).to_bytes()]
    assert 0 in outcomes and outcomes.settled_below == 0
    assert outcomes.forget(0) and outcomes.settled_below == 1 and outcomes.frames(1000) == []


def test_a_decision_after_the_sender_gave_up_is_too_late() -> None:
    """The transfer was settled by then, once."""
    outcomes = Outcomes(None)
    body = SmallBody(bytearray(b"x"), lambda size, flow: None, 1)
    outcomes.defer(0, body)
    assert outcomes.frames(1000) == [wire.WholeFrame(((0, 1),)).to_bytes()]
    assert outcomes.forget(0) and not outcomes.decide(body, None)
    assert outcomes.settled_below == 1


def test_the_sender_learns_of_room_at_a_quarter_or_when_it_waits() -> None:
    """Else with the next ACK; what is advertised never goes back."""
    heard: list[int] = []
    credit = NeighbourCredit(BufferPool(), 1000, 1000, lambda: heard.append(1), lambda *_: None)
    for _ in range(10):
        credit.hold(100)
    assert credit.lacking_bytes(1) == 1 and credit.advertise() == (1000, False)
    for _ in range(2):
        credit.release(100)
    assert not heard
    credit.release(100)
    assert len(heard) == 1 and credit.advertise() == (1300, False)
    credit.is_starved = True
    credit.release(100)
    assert len(heard) == 2
    credit.hold(400)
    assert credit.advertise() == (1400, True) and not credit.is_starved


def test_a_look_at_a_body_leaves_it_in_its_rows() -> None:
    """Whoever looks sees all of it in one piece; it goes on as it lay, and the piece is reused."""
    pool = BufferPool()
    released: list[int] = []
    rows = pool.take_rows(3, 1472)
    assert isinstance(rows, RowBuffer)
    data = bytes(number % 251 for number in range(2 * 1440 + 100))
    for row in range(3):
        share = data[row * 1440 : (row + 1) * 1440]
        start = row * 1472 + 32
        rows.memory[start : start + len(share)] = share
    body = StoredBody(rows, len(data), pool, lambda size, flow: released.append(size), 1)
    for _ in range(2):
        assert body.look(bytes) == data
        assert body.rows is rows
    assert pool.free_bytes == 4096, "one piece for both"
    with pytest.raises(ZeroDivisionError):
        body.look(lambda whole: 1 // 0)
    assert pool.free_bytes == 4096, "given back whatever happened"
    assert bytes(body.contiguous()) == data and body.look(bytes) == data
    body.release()
    assert released == [1]
