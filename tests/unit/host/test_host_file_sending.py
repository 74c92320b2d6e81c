"""The sending end of a file transfer, question by question, and the file that it reads."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from packetcloud.chunk.reasons import Reason
from packetcloud.host.errors import TransferError
from packetcloud.host.file_format import (
    Answer,
    AnswerState,
    Offer,
)
from packetcloud.host.file_sender import (
    FileSend,
    GivenUp,
    SendData,
    SenderCommand,
    SenderState,
    SendMessage,
    SendPlan,
    SentAll,
    WantDigest,
)
from packetcloud.host.results import SendOutcome, SendResult
from packetcloud.host.source_file import SourceFile
from tests.unit.host.file_ids import ID, KEY

OK = SendResult(SendOutcome.DELIVERED)


def refused(reason: int, detail: str = "") -> SendResult:
    return SendResult(SendOutcome.REFUSED, reason, detail)


class Sending:
    """A `FileSend` and what it asked for."""

    def __init__(self, size: int, *, resume: bool = False, window: int = 4) -> None:
        plan = SendPlan(ID, KEY, "f", size, 100, window, 60.0, resume)
        self.core = FileSend(plan)
        self.now = 0.0
        self.commands: list[SenderCommand] = []
        self.core.start(0.0)
        self.take()

    def take(self) -> list[SenderCommand]:
        new = self.core.take_commands()
        self.commands.extend(new)
        return new

    @property
    def question(self) -> int:
        return [c for c in self.commands if isinstance(c, SendMessage)][-1].message.question

    def answer(
        self, state: AnswerState, *missing: tuple[int, int], digest: bytes = b"", text: str = ""
    ) -> None:
        have = self.core.plan.size_bytes - sum(end - start for start, end in missing)
        answer = Answer(ID, self.question, state, have, digest or bytes(32), text, missing)
        self.core.answered(answer, self.now)
        self.take()

    def jobs(self) -> list[SendData]:
        return [c for c in self.commands if isinstance(c, SendData)]

    @property
    def end(self) -> SenderCommand:
        return self.commands[-1]


def test_sender_happy_path() -> None:
    """Offer, window by window, digest, finish, done."""
    sending = Sending(1000)
    sending.answer(AnswerState.WANTED, (0, 1000))
    assert [(j.start, j.end) for j in sending.jobs()] == [(i, i + 100) for i in range(0, 400, 100)]
    done = 0
    while done < len(sending.jobs()):
        sending.core.data_ended(sending.jobs()[done].job, OK, 1.0)
        sending.take()
        done += 1
    assert done == 10
    assert any(isinstance(c, WantDigest) for c in sending.commands)
    assert sending.core.state is SenderState.SENDING
    sending.core.hashed(b"d" * 32, 2.0)
    sending.take()
    assert sending.core.state is SenderState.FINISHING
    sending.answer(AnswerState.COMPLETE, digest=b"d" * 32, text="f-1")
    assert sending.end == SentAll("f-1", b"d" * 32, False)
    assert sending.core.next_timeout() is None


def test_empty_file_needs_no_data() -> None:
    """Zero bytes: offer, digest, finish."""
    sending = Sending(0)
    sending.answer(AnswerState.WANTED)
    sending.core.hashed(b"d" * 32, 0.0)
    sending.take()
    assert sending.core.state is SenderState.FINISHING
    assert sending.jobs() == []


def test_sender_resends_what_did_not_arrive() -> None:
    """A piece lost while somebody is away goes again after a pause; nothing else does."""
    sending = Sending(100)
    sending.answer(AnswerState.WANTED, (0, 100))
    sending.core.data_ended(sending.jobs()[0].job, refused(Reason.UNRESOLVABLE_GUID), 1.0)
    assert sending.take() == []
    due = sending.core.next_timeout()
    assert due == 1.5
    sending.core.handle_timeout(due)
    sending.take()
    assert [(j.start, j.end) for j in sending.jobs()] == [(0, 100), (0, 100)]
    assert sending.core.next_timeout() == 60.0


def test_sender_stops_at_once_where_trying_again_is_no_use() -> None:
    """Unknown destination or service at the offer, refused by the receiver: the reason, now."""
    for result, words in [
        (refused(Reason.UNRESOLVABLE_GUID), "unresolvable_guid"),
        (refused(Reason.UNKNOWN_SID), "unknown_sid"),
        (refused(Reason.RECEIVER_REFUSED, "not_allowed: no"), "not_allowed: no"),
        (refused(Reason.PAYLOAD_TOO_LARGE), "payload_too_large"),
    ]:
        sending = Sending(100)
        sending.core.message_ended(result, 2.5)
        sending.take()
        assert isinstance(sending.end, GivenUp)
        assert words in sending.end.text
        assert not sending.end.resumable


def test_sender_offers_again_when_the_receiver_forgot() -> None:
    """A restarted receiver does not know the transfer: it is offered again, to be resumed."""
    sending = Sending(1000)
    sending.answer(AnswerState.WANTED, (0, 1000))
    words = "unknown_transfer: offer the file again"
    for job in sending.jobs():
        sending.core.data_ended(job.job, refused(Reason.RECEIVER_REFUSED, words), 1.0)
    sending.take()
    offers = [c.message for c in sending.commands if isinstance(c, SendMessage)]
    assert [o.resume for o in offers if isinstance(o, Offer)] == [False, True]
    sending.answer(AnswerState.WANTED, (300, 1000))
    assert sending.core.delivered_bytes == 300
    assert sending.jobs()[4].start == 300


def test_sender_ignores_answers_to_earlier_questions() -> None:
    """A late answer, which may list what is there by now, does not send it all again."""
    sending = Sending(100)
    old = sending.question
    sending.answer(AnswerState.WANTED, (0, 100))
    sending.answer(AnswerState.WANTED, (0, 100))
    sending.core.data_ended(sending.jobs()[0].job, OK, 1.0)
    sending.core.hashed(b"d" * 32, 1.0)
    sending.take()
    assert sending.core.state is SenderState.FINISHING
    sending.core.answered(Answer(ID, old, AnswerState.WANTED, 0, missing=((0, 100),)), 3.1)
    assert sending.core.state is SenderState.FINISHING
    assert len(sending.jobs()) == 1


def test_answers_slower_than_the_questions_still_count() -> None:
    """Each answer is to an earlier question than the last: the transfer goes on all the same.

    Regression: with a way there and back over 10 s the sender only ever asked."""
    sending = Sending(100)
    first = sending.question
    for now in (3.0, 9.0):
        sending.core.handle_timeout(now)
        sending.take()
    assert sending.question == first + 2
    sending.core.answered(Answer(ID, first, AnswerState.WANTED, 0, missing=((0, 100),)), 12.0)
    assert sending.core.state is SenderState.SENDING


def test_sender_gives_up_only_when_nothing_moves() -> None:
    """Questions are repeated; after the stall time it ends, resumable once it was accepted."""
    sending = Sending(100)
    asked = 0
    while not sending.core.is_over:
        due = sending.core.next_timeout()
        assert due is not None
        sending.core.handle_timeout(due)
        asked += sum(isinstance(c, SendMessage) for c in sending.take())
    assert asked > 4
    assert isinstance(sending.end, GivenUp)
    assert not sending.end.resumable
    accepted = Sending(100)
    accepted.answer(AnswerState.WANTED, (0, 100))
    accepted.core.handle_timeout(61.0)
    accepted.take()
    assert isinstance(accepted.end, GivenUp)
    assert accepted.end.resumable


def test_resumed_content_that_does_not_match_is_sent_anew_once() -> None:
    """What the receiver had was something else: all of it again; a second mismatch is an error."""
    sending = Sending(100, resume=True)
    for _ in range(2):
        sending.answer(AnswerState.WANTED)
        sending.core.hashed(b"d" * 32, 1.0)
        sending.take()
        sending.answer(AnswerState.FAILED, text="digest_mismatch: other bytes")
    assert isinstance(sending.end, GivenUp)
    assert not sending.end.resumable
    offers = [c.message for c in sending.commands if isinstance(c, SendMessage)]
    assert [o.resume for o in offers if isinstance(o, Offer)] == [True, False]


def test_complete_at_once_is_believed_only_with_our_digest() -> None:
    """The receiver says it has the file: the digest decides."""
    for digest, ok in [(b"d" * 32, True), (b"x" * 32, False)]:
        sending = Sending(100, resume=True)
        sending.answer(AnswerState.COMPLETE, digest=digest, text="f")
        assert not sending.core.is_over
        sending.core.hashed(b"d" * 32, 5.0)
        sending.take()
        assert isinstance(sending.end, SentAll) == ok


def test_source_file_is_hashed_in_order_and_watched(tmp_path: Path) -> None:
    """Reads in order are hashed on the way, gaps are hashed later, a change is found out."""
    data = random.Random(8).randbytes(3_000_000)
    path = tmp_path / "f"
    path.write_bytes(data)
    source = SourceFile(path)
    buffer = memoryview(bytearray(1_000_000))
    source.read(0, buffer)
    source.read(2_000_000, buffer)
    assert source.hashed_bytes == 1_000_000
    source.hash_towards(3_000_000)
    assert source.digest() == hashlib.sha256(data).digest()
    with path.open("r+b") as stream:
        stream.truncate(10)
    with pytest.raises(TransferError, match="was changed"):
        source.digest()
    with pytest.raises(TransferError, match="became shorter"):
        source.read(500, buffer)
    source.close()


def test_what_is_not_a_file_is_not_sent(tmp_path: Path) -> None:
    """Missing, a folder, a pipe: said in words, without hanging."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for name, words in [("none", "No such file"), (".", "folder; pack it"), ("pipe", "not a file")]:
        with pytest.raises(TransferError, match=words):
            SourceFile(tmp_path / name)
