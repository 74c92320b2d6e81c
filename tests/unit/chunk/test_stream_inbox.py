"""What comes before its turn: how many pieces it makes, and that it comes out as it was sent."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.streams.inbox import MAX_EARLY_COUNT, Inbox
from packetcloud.chunk.streams.wire import Data

WHOLE = Random(10).randbytes(4 * MAX_EARLY_COUNT)


def take(inbox: Inbox, numbers: Iterable[int]) -> bytes:
    """Let the bytes of these offsets come one by one; return what was in order."""
    got = b""
    for number in numbers:
        piece = memoryview(WHOLE)[number : number + 1]
        got += b"".join(inbox.take(Data(1, number, (piece,))))
    return got


def test_one_late_answer_resets_no_stream_of_small_messages() -> None:
    """More messages come behind it than pieces are kept: they are one piece."""
    inbox = Inbox(len(WHOLE))
    assert take(inbox, range(1, len(WHOLE))) == b""
    assert inbox.early_bytes == len(WHOLE) - 1
    assert take(inbox, [0]) == WHOLE and inbox.early_bytes == 0


def test_answers_that_overtake_each_other_are_no_pieces() -> None:
    """Each second message comes before the one ahead of it, behind a late one."""
    inbox = Inbox(len(WHOLE))
    numbers = [number for one in range(1, len(WHOLE) - 1, 2) for number in (one + 1, one)]
    assert take(inbox, numbers) == b""
    assert take(inbox, [0, len(WHOLE) - 1]) == WHOLE


def test_pieces_in_any_order_are_what_was_sent() -> None:
    """Some overlap what lies here already, on either side."""
    random = Random(11)
    for _ in range(50):
        inbox, sent = Inbox(len(WHOLE)), WHOLE[:200]
        spans = [(start, random.randint(1, 30)) for start in range(0, 200, 7)] * 2
        random.shuffle(spans)
        got = b""
        for start, size in spans:
            piece = memoryview(sent[start : start + max(size, 7)])
            got += b"".join(inbox.take(Data(1, start, (piece,))))
        assert got == sent and inbox.early_bytes == 0


def test_who_sends_backwards_makes_few_pieces() -> None:
    """A piece is joined with as large a one at most, so that no byte is copied often."""
    inbox = Inbox(len(WHOLE))
    assert take(inbox, range(len(WHOLE) - 1, 0, -1)) == b""
    sizes = [len(inbox._early[start]) for start in inbox._starts]
    assert sizes == sorted(set(sizes)) and sum(sizes) == len(WHOLE) - 1
    assert take(inbox, [0]) == WHOLE


def test_pieces_with_gaps_are_counted() -> None:
    """The control of the above: each second byte, and one too many."""
    inbox = Inbox(len(WHOLE))
    take(inbox, range(1, 2 * MAX_EARLY_COUNT, 2))
    with pytest.raises(ProtocolError, match="too many pieces"):
        take(inbox, [2 * MAX_EARLY_COUNT + 1])
