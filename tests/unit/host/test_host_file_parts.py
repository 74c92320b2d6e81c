"""The parts of a file transfer: ranges, messages, names, journals, and the two state machines."""

from __future__ import annotations

import errno
import hashlib
import itertools
import random
from pathlib import Path

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.reasons import Reason
from packetcloud.host.errors import HostError, TransferError
from packetcloud.host.file_format import (
    MAX_RANGES_COUNT,
    Answer,
    AnswerState,
    Data,
    Finish,
    Message,
    Offer,
    data_header,
    decode_message,
)
from packetcloud.host.file_names import MAX_STORED_BYTES, other_names, stored_name
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
from packetcloud.host.inbox_folder import CompletedFile, FolderError, InboxFolder
from packetcloud.host.incoming import MAX_PIECES_COUNT, DataVerdict, Incoming, Question
from packetcloud.host.part_file import (
    DigestMismatchError,
    PartFile,
    PartLabel,
    read_journal,
)
from packetcloud.host.ranges import RangeSet
from packetcloud.host.results import SendOutcome, SendResult
from packetcloud.host.source_file import SourceFile

ID, KEY, SOURCE = b"i" * 16, b"k" * 16, b"s" * 20
OK = SendResult(SendOutcome.DELIVERED)


def refused(reason: int, detail: str = "") -> SendResult:
    return SendResult(SendOutcome.REFUSED, reason, detail)


# ranges


def test_ranges_agree_with_a_set_of_bytes() -> None:
    """Against the obvious model, over random ranges."""
    rng = random.Random(1)
    for _ in range(200):
        ranges, model = RangeSet(), set[int]()
        for _ in range(rng.randrange(12)):
            start = rng.randrange(60)
            end = rng.randrange(start, 61)
            ranges.add(start, end)
            model |= set(range(start, end))
        assert {i for start, end in ranges for i in range(start, end)} == model
        pairs = list(ranges)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(pairs))
        assert ranges.total_bytes == len(model)
        missing = {i for start, end in ranges.missing(60) for i in range(start, end)}
        assert missing == set(range(60)) - model
        start, end = sorted(rng.sample(range(61), 2))
        assert ranges.covers(start, end) == (set(range(start, end)) <= model)
        first = next((i for i in range(62) if i not in model), 0)
        assert ranges.end_of_first() == first


def test_take_first_hands_out_everything_once() -> None:
    """All bytes, in order, no piece over the length asked for."""
    ranges = RangeSet([(0, 10), (20, 23)])
    pieces = []
    while (piece := ranges.take_first(4)) is not None:
        pieces.append(piece)
    assert pieces == [(0, 4), (4, 8), (8, 10), (20, 23)]


# messages

MESSAGES: list[Message] = [
    Offer(ID, 1, KEY, 0, "name"),
    Offer(ID, 7, KEY, (1 << 40) + 5, "übel \udcff.bin", resume=True),
    Finish(ID, 3, 77, b"d" * 32),
    Answer(ID, 3, AnswerState.WANTED, 5, missing=((0, 5), (7, 1 << 41))),
    Answer(ID, 3, AnswerState.COMPLETE, 5, b"d" * 32, "name-1"),
    Answer(ID, 0, AnswerState.FAILED, text="disk_full: none"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive_encoding(message: Message) -> None:
    """What is encoded is decoded, and every truncation is a ProtocolError."""
    assert not isinstance(message, Data)
    data = message.to_bytes()
    assert decode_message(memoryview(data)) == message
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            decode_message(memoryview(data[:length]))


def test_data_message() -> None:
    """The header is laid before the bytes; an empty piece is no message."""
    payload = data_header(ID, 1 << 33) + b"abc"
    message = decode_message(memoryview(payload))
    assert isinstance(message, Data)
    assert (message.offset, bytes(message.data)) == (1 << 33, b"abc")
    with pytest.raises(ProtocolError):
        decode_message(memoryview(data_header(ID, 0)))


def test_any_bytes_give_a_message_or_one_error() -> None:
    """Random bytes and bit flips: a value or ProtocolError, nothing else; flips never crash."""
    rng = random.Random(2)
    seeds = [m.to_bytes() for m in MESSAGES if not isinstance(m, Data)]
    seeds.append(data_header(ID, 5) + b"abc")
    for round_number in range(20_000):
        data = bytearray(rng.choice(seeds))
        if round_number % 3 == 0:
            data = bytearray(rng.randbytes(rng.randrange(120)))
        else:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            message = decode_message(memoryview(data))
        except ProtocolError:
            continue
        if not isinstance(message, Data):
            assert message.to_bytes() == bytes(data)


# names


@pytest.mark.parametrize(
    ("offered", "stored"),
    [
        ("report.txt", "report.txt"),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("/", "file"),
        ("a/..", "file"),
        (".bashrc", "_bashrc"),
        (".report.txt.abc.part", "_report.txt.abc.part"),
        ("...x", "_x"),
        ("a\x00b\nc\x1b[31m", "abc[31m"),
        ("inv\u202eexe.txt", "invexe.txt"),
        ("  spaced  ", "spaced"),
        ("bad\udcffbyte", "bad_byte"),
        ("ü.txt", "ü.txt"),
        ("folder/", "folder"),
    ],
)
def test_stored_names_are_harmless(offered: str, stored: str) -> None:
    """No path, no hidden file, no control character; and a stored name stays as it is."""
    assert stored_name(offered) == stored
    assert stored_name(stored) == stored


def test_stored_names_of_anything() -> None:
    """Random text: a single, short, visible name every time, and stable."""
    rng = random.Random(3)
    alphabet = "ab./\\\x00\u202e\udcff é漢" + "\u0301"
    for _ in range(3000):
        name = stored_name("".join(rng.choice(alphabet) for _ in range(rng.randrange(300))))
        assert name
        assert "/" not in name
        assert "\x00" not in name
        assert not name.startswith(".")
        assert len(name.encode()) <= MAX_STORED_BYTES
        assert stored_name(name) == name


def test_long_names_keep_their_suffix() -> None:
    """A name too long for the disk loses its middle."""
    name = stored_name("ä" * 300 + ".tar")
    assert name.endswith(".tar")
    assert len(name.encode()) <= MAX_STORED_BYTES


def test_other_names_count_up_before_the_suffix() -> None:
    """A taken name gets a number, in front of its suffix."""
    names = other_names("a.txt")
    assert [next(names) for _ in range(3)] == ["a.txt", "a-1.txt", "a-2.txt"]
    names = other_names("Makefile")
    assert [next(names) for _ in range(2)] == ["Makefile", "Makefile-1"]


# the sender's machine


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


# the receiver's machine


def test_incoming_reserves_and_answers() -> None:
    """Pieces are wanted once, answers list what is missing, the last question counts."""
    incoming = Incoming(SOURCE, KEY, "f", 1000, 0.0)
    incoming.asked(ID, 1, 0.0)
    incoming.asked(ID, 2, 0.0)
    incoming.opened(RangeSet([(0, 300)]))
    (answer,) = incoming.answers(AnswerState.WANTED)
    assert (answer.question, answer.have_bytes) == (2, 300)
    assert answer.missing == ((300, 1000),)
    assert incoming.data(0, 300, 1.0) is DataVerdict.HAVE
    assert incoming.data(900, 1001, 1.0) is DataVerdict.BAD
    assert incoming.data(300, 1000, 1.0) is DataVerdict.WRITE
    assert not incoming.is_whole
    incoming.wrote([(300, 1000)], 1.0)
    assert incoming.is_whole


def test_incoming_caps_pieces_and_answers() -> None:
    """At the cap a piece that joins others is fine, a further separate one is not; a long list of
    missing ranges is cut."""
    incoming = Incoming(SOURCE, KEY, "f", 1 << 40, 0.0)
    incoming.opened(RangeSet((i * 10, i * 10 + 1) for i in range(MAX_PIECES_COUNT)))
    assert incoming.data(5, 6, 0.0) is DataVerdict.BAD
    incoming.asked(ID, 1, 0.0)
    (answer,) = incoming.answers(AnswerState.WANTED)
    assert len(answer.missing) == MAX_RANGES_COUNT
    assert decode_message(memoryview(answer.to_bytes())) == answer
    assert Question(ID, 1) == Question(ID, 1)


# the disk


def test_part_file_writes_in_any_order_and_checks(tmp_path: Path) -> None:
    """Pieces out of order give the file and its digest; a wrong digest leaves nothing behind."""
    data = random.Random(4).randbytes(3_000_000)
    label = PartLabel(SOURCE, KEY, "f.bin", len(data))
    pieces = [(i, memoryview(data)[i : i + 100_000]) for i in range(0, len(data), 100_000)]
    random.Random(5).shuffle(pieces)
    part = PartFile.create(tmp_path, label, "tag")
    ranges = RangeSet()
    for offset, piece in pieces:
        ranges.add(offset, offset + len(piece))
        part.write([(offset, piece)], ranges.end_of_first())
    assert part.finish(hashlib.sha256(data).digest(), overwrite=False) == "f.bin"
    assert (tmp_path / "f.bin").read_bytes() == data
    part.discard()
    wrong = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "g", 3), "tag")
    wrong.write([(0, memoryview(b"abc"))], 3)
    with pytest.raises(DigestMismatchError):
        wrong.finish(bytes(32), overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_finish_never_overwrites_unless_asked(tmp_path: Path) -> None:
    """A taken name is left alone and the new file gets the next one; `overwrite` replaces."""
    (tmp_path / "f").write_text("old")
    digest = hashlib.sha256(b"new").digest()
    for overwrite, name in [(False, "f-1"), (False, "f-2"), (True, "f")]:
        part = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "f", 3), "tag")
        part.write([(0, memoryview(b"new"))], 3)
        assert part.finish(digest, overwrite) == name
        part.discard()
        assert (tmp_path / name).read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "f-1", "f-2"]


def test_journal_survives_damage(tmp_path: Path) -> None:
    """Any truncation or flip: the ranges read are among the true ones, or the file is refused."""
    part = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "f", 1000), "tag")
    for end in range(100, 1000, 100):
        part.sync(RangeSet([(0, end)]))
    part.close()
    good = part.journal_path.read_bytes()
    rng = random.Random(6)
    for _ in range(400):
        data = bytearray(good)
        if rng.random() < 0.4:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        part.journal_path.write_bytes(data)
        try:
            label, ranges, digest = read_journal(part.journal_path)
        except HostError:
            continue
        assert label.size_bytes == 1000
        assert RangeSet([(0, 900)]).covers(*next(iter(ranges), (0, 0)))
        assert digest is None


def test_journal_with_a_dangerous_name_is_refused(tmp_path: Path) -> None:
    """A journal is no way to write outside the folder."""
    label = PartLabel(SOURCE, KEY, "f", 10)
    part = PartFile.create(tmp_path, label, "tag")
    part.close()
    object.__setattr__(label, "name", "../evil")
    text = part.journal_path.read_bytes().split(b" ", 1)[1].replace(b'"f"', b'"../evil"')
    import zlib

    part.journal_path.write_bytes(b"%08x %s" % (zlib.crc32(text.rstrip(b"\n")), text))
    with pytest.raises(HostError):
        read_journal(part.journal_path)


def test_adopting_goes_on_where_the_journal_ends(tmp_path: Path) -> None:
    """A new process adopts the part, is told what is safe, and finishes it rightly."""
    data = random.Random(7).randbytes(500_000)
    label = PartLabel(SOURCE, KEY, "f", len(data))
    part = PartFile.create(tmp_path, label, "tag")
    part.write([(0, memoryview(data)[:200_000])], 200_000)
    part.sync(RangeSet([(0, 200_000)]))
    part.write([(200_000, memoryview(data)[200_000:300_000])], 300_000)
    part.close()
    with part.journal_path.open("ab") as stream:
        stream.write(b"12345678 {torn")
    again = PartFile.adopt(part.journal_path)
    assert list(again.restored) == [(0, 200_000)]
    again.write([(200_000, memoryview(data)[200_000:])], len(data))
    again.sync(RangeSet([(0, len(data))]))
    assert read_journal(part.journal_path)[1] == RangeSet([(0, len(data))])
    assert again.finish(hashlib.sha256(data).digest(), overwrite=False) == "f"


def test_folder_takes_one_receiver(tmp_path: Path) -> None:
    """A second receiver on the folder is told so; after the first closed, it may."""
    first, second = InboxFolder(tmp_path), InboxFolder(tmp_path)
    first.open()
    with pytest.raises(HostError, match="another receiver"):
        second.open()
    first.close()
    second.open()


def test_folder_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """A file larger than the free space is refused before a byte is sent."""
    folder = InboxFolder(tmp_path, free_bytes=lambda _: 100 << 20)
    folder.open()
    with pytest.raises(FolderError, match=r"disk_full: .* bytes, and \d+ that stay free"):
        folder.begin(PartLabel(SOURCE, KEY, "f", 100 << 20), resume=False)
    folder.begin(PartLabel(SOURCE, KEY, "f", 50 << 20), resume=False)


def test_folder_resumes_only_the_same_content_of_the_same_source(tmp_path: Path) -> None:
    """Another source or another key gets a file of its own."""
    folder = InboxFolder(tmp_path)
    folder.open()
    part = folder.begin(PartLabel(SOURCE, KEY, "f", 10), resume=True)
    part.sync(RangeSet([(0, 5)]))
    folder.leave(part)
    folder.close()
    again = InboxFolder(tmp_path)
    again.open()
    for label in (PartLabel(b"o" * 20, KEY, "f", 10), PartLabel(SOURCE, b"o" * 16, "f", 10)):
        other = again.begin(label, resume=True)
        assert list(other.restored) == []
        other.discard()
    same = again.begin(PartLabel(SOURCE, KEY, "f", 10), resume=True)
    assert list(same.restored) == [(0, 5)]


def test_an_error_that_may_pass_keeps_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files for a moment must not cost what has arrived so far."""
    folder = InboxFolder(tmp_path)
    folder.open()
    label = PartLabel(SOURCE, KEY, "name", 1000)
    part = folder.begin(label, resume=True)
    part.sync(RangeSet([(0, 600)]))
    folder.leave(part)

    def fail(*_: object) -> PartFile:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "adopt", fail)
        with pytest.raises(FolderError):
            folder.begin(label, resume=True)
    again = folder.begin(label, resume=True)
    assert list(again.restored) == [(0, 600)]
    folder.leave(again)
    folder.close()


def test_crash_between_moving_and_noting_is_completed_at_the_next_start(tmp_path: Path) -> None:
    """The file is in its place but not in the list: the next receiver puts it there."""
    for overwrite in (False, True):
        place = tmp_path / str(overwrite)
        folder = InboxFolder(place)
        folder.open()
        part = folder.begin(PartLabel(SOURCE, KEY, "f", 3), resume=False)
        part.write([(0, memoryview(b"abc"))], 3)
        digest = hashlib.sha256(b"abc").digest()
        part.finish(digest, overwrite)
        part.close()
        folder.close()
        again = InboxFolder(place)
        again.open()
        done = again.completed(SOURCE, KEY)
        assert done is not None
        assert (done.name, done.digest) == ("f", digest)
        visible = sorted(p.name for p in place.iterdir() if p.name != ".packetcloud-received")
        assert visible == ["f"]


def test_completed_files_are_remembered_while_they_are_there(tmp_path: Path) -> None:
    """Known after a restart; forgotten when the user moved the file away."""
    folder = InboxFolder(tmp_path)
    folder.open()
    part = folder.begin(PartLabel(SOURCE, KEY, "f", 0), resume=False)
    digest = hashlib.sha256(b"").digest()
    name = part.finish(digest, overwrite=False)
    folder.complete(part, CompletedFile(SOURCE, ID, KEY, name, 0, digest))
    folder.close()
    again = InboxFolder(tmp_path)
    again.open()
    assert again.completed(SOURCE, ID) == again.completed(SOURCE, KEY)
    assert again.completed(SOURCE, ID) is not None
    (tmp_path / "f").unlink()
    assert again.completed(SOURCE, ID) is None


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
