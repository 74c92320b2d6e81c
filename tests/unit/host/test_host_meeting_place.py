"""Where programs of one key meet: a folder of the user's own, one holder, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from packetcloud.chunk.names import GUID
from packetcloud.host import meeting_place
from packetcloud.host.errors import MeetingPlaceError
from packetcloud.host.meeting_place import Place, claim, connect, folder_path

KEY, OTHER_KEY = GUID(bytes(19) + b"\x07"), GUID(bytes(19) + b"\x08")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs meet: deeper than the name of a socket may be long."""
    runtime = tmp_path / ("deep" * 30)
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "packetcloud"


def held(key: GUID = KEY) -> Place:
    """Have the place, which is free."""
    place = claim(key)
    assert place is not None
    return place


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_one_program_has_the_place(folder: Path) -> None:
    """Others find it there; another key has its own; the last one leaves nothing behind."""
    place = held()
    assert claim(KEY) is None
    with connect(KEY) as caller, place.sock.accept()[0] as callee:
        caller.send(b"word")
        assert callee.recv(9) == b"word"
    other = held(OTHER_KEY)
    assert folder.stat().st_mode & 0o777 == 0o700
    place.close()
    with pytest.raises(FileNotFoundError):
        connect(KEY)
    again = held()
    for one in (again, other, again):
        one.close()
    assert not names(folder)


def test_of_many_that_start_at_once_one_has_it(folder: Path) -> None:
    """The folder is not there yet, or has what others have left."""
    with ThreadPoolExecutor(8) as programs:
        for _ in range(20):
            claimed = list(programs.map(claim, [KEY] * 8))
            (place,) = [one for one in claimed if one is not None]
            place.close()
    assert not names(folder)


def test_a_program_that_was_killed_is_replaced(folder: Path) -> None:
    """Its socket and its lock lie there, and nobody has them."""
    with held():
        lock, sock = names(folder)
    (folder / lock).touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        before = os.open(folder, os.O_PATH)
        dead.bind(f"/proc/self/fd/{before}/{sock}")
        os.close(before)
    with pytest.raises(ConnectionRefusedError):
        connect(KEY)
    with held():
        connect(KEY).close()


def test_who_comes_as_the_holder_leaves_is_no_second_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that it gets is removed by then, and another program has a new one."""
    first = held()
    later: list[Place] = []

    real = fcntl.flock

    def lock(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.close()
        later.append(held())
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    assert claim(KEY) is None
    connect(KEY).close()
    later[0].close()


def test_other_networks_have_other_places(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that one program reaches, another one may not."""
    with held():
        (tmp_path / "net").touch()
        monkeypatch.setattr(meeting_place, "_NETWORK", tmp_path / "net")
        with held():
            pass


def foreign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    status = os.stat_result((0o40700, 1, 1, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: status)


def open_to_all(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o750)


def elsewhere(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder.parent / "own").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "own")


def no_folder(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.touch()


@pytest.mark.parametrize(
    ("squat", "why"),
    [
        (foreign, "belongs to another user"),
        (open_to_all, "open to other users, with mode 750; allowed: 700"),
        (elsewhere, "Not a directory"),
        (no_folder, "Not a directory"),
    ],
)
def test_a_folder_that_is_not_ours_alone_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    squat: Callable[[Path, pytest.MonkeyPatch], None],
    why: str,
) -> None:
    """One line says which and why, and nothing is made in it."""
    squat(folder, monkeypatch)
    with pytest.raises(MeetingPlaceError, match=why) as caught:
        claim(KEY)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises((MeetingPlaceError, NotADirectoryError)):
        connect(KEY)
    assert not folder.is_dir() or not names(folder)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's runtime folder; if there is none of this user's, in the temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    user = os.geteuid()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder_path() == tmp_path / "packetcloud"
    for runtime in ("", "relative", str(tmp_path / "absent")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        assert folder_path() == tmp_path / f"packetcloud-{user}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert folder_path() == tmp_path / f"packetcloud-{user + 1}"
