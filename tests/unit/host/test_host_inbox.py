"""The receiving end of a file transfer: what comes in, and the folder that it lies in."""

from __future__ import annotations

import errno
import hashlib
import random
from pathlib import Path

import pytest

from packetcloud.host.errors import HostError
from packetcloud.host.file_format import (
    MAX_RANGES_COUNT,
    AnswerState,
    decode_message,
)
from packetcloud.host.inbox_folder import CompletedFile, FolderError, InboxFolder
from packetcloud.host.incoming import MAX_PIECES_COUNT, DataVerdict, Incoming, Question
from packetcloud.host.part_file import (
    PartFile,
    PartLabel,
    read_journal,
)
from packetcloud.host.ranges import RangeSet
from tests.unit.host.file_ids import ID, KEY, SOURCE


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
