"""Stamps outlive the process where there is a file for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.stamp_file import SAVE_PAUSE_S, StampFile, StampFileError
from packetcloud.chunk.hop.stamps import Stamps
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID
from tests.unit.chunk.hop.hop_link import Upper

PEER = GUID(bytes(range(20)))


def test_what_changed_is_written_within_a_second(tmp_path: Path) -> None:
    """And what did not is not written again; the last change at the end."""
    clock, path, stamps = Clock(), tmp_path / "stamps", Stamps()
    file = StampFile(clock, path)
    assert file.read() is None
    file.keep(stamps)
    stamps.note(PEER, 3, 77)
    clock.advance(SAVE_PAUSE_S)
    assert Stamps(saved=file.read()).newest(PEER, 3) == 77
    path.unlink()
    clock.advance(10 * SAVE_PAUSE_S)
    assert not path.exists()
    stamps.note(PEER, 3, 78)
    file.close()
    assert Stamps(saved=file.read()).newest(PEER, 3) == 78
    assert not clock.getDelayedCalls() and [one.name for one in tmp_path.iterdir()] == ["stamps"]


def kept_in(folder: Path) -> tuple[Clock, Stamps, StampFile]:
    """Return stamps that are written to a folder when the clock has moved."""
    clock, stamps = Clock(), Stamps()
    file = StampFile(clock, folder / "stamps")
    file.keep(stamps)
    return clock, stamps, file


def test_a_folder_that_cannot_be_written_is_said_and_borne(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The node goes on; the next change is tried again."""
    folder = tmp_path / "folder"
    clock, stamps, file = kept_in(folder)
    stamps.take()
    clock.advance(SAVE_PAUSE_S)
    assert "cannot write" in caplog.text
    folder.mkdir()
    stamps.take()
    clock.advance(SAVE_PAUSE_S)
    assert file.read() == stamps.to_bytes()


def test_what_could_not_be_written_is_written_when_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without another change, which may be long in coming; the log has one line, not one each."""
    folder = tmp_path / "folder"
    clock, stamps, file = kept_in(folder)
    stamps.note(PEER, 3, 77)
    for _ in range(5):
        clock.advance(SAVE_PAUSE_S)
    assert caplog.text.count("cannot write") == 1
    folder.mkdir()
    clock.advance(SAVE_PAUSE_S)
    assert Stamps(saved=file.read()).newest(PEER, 3) == 77
    folder.rename(tmp_path / "away")
    stamps.note(PEER, 3, 78)
    clock.advance(SAVE_PAUSE_S)
    assert caplog.text.count("cannot write") == 2, "another failure is told anew"


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Nothing is thrown away behind the operator's back."""
    path = tmp_path / "stamps"
    path.write_text("something else")
    identity = Identity.generate()
    node = HopNode(Clock(), identity, Role.ROUTER, HopConfig(), Upper(), None, path)
    with pytest.raises(StampFileError, match="stamps: not a file of stamps"):
        node.listen("127.0.0.1")
    assert path.read_text() == "something else"
