"""Where programs of one key meet: a socket in a folder that is the user's alone.

Who has the lock beside the socket holds the place. The lock ends with its program, however that
ends; a socket without one is of a program that is no more, and is replaced. The folder is opened
once and looked at; all in it is reached through what was looked at, whatever has its name by then.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from packetcloud.chunk.names import GUID
from packetcloud.host.errors import MeetingPlaceError

BACKLOG_COUNT = 64
_NETWORK = Path("/proc/self/ns/net")
"""Programs of other network namespaces reach others: what one serves is not what another has."""


class Place:
    """The place of a key's holder, until it is closed: `sock` listens there."""

    def __init__(self, sock: socket.socket, ends: ExitStack) -> None:
        self.sock = sock
        self._ends = ends

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave it to another program. Harmless when repeated."""
        self._ends.close()


def claim(guid: GUID) -> Place | None:
    """Return the place of the key's holder; None: another program has it.

    Raises:
        MeetingPlaceError: the folder is not ours alone, or nothing can be made in it.
    """
    path = folder_path()
    try:
        with ExitStack() as ends:
            folder = _opened(path, ends)
            name = _name(guid)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(f"{name}.lock", flags, 0o600, dir_fd=folder)
            ends.callback(os.close, lock)
            if not _is_ours(lock):
                return None
            ends.callback(_remove, folder, f"{name}.lock")
            _remove(folder, f"{name}.sock")  # of a program that is no more
            sock = ends.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.bind(_within(folder, f"{name}.sock"))
            ends.callback(_remove, folder, f"{name}.sock")
            sock.listen(BACKLOG_COUNT)
            sock.setblocking(False)
            return Place(sock, ends.pop_all())
    except OSError as error:
        raise MeetingPlaceError(f"{path}: {error.strerror}") from error


def connect(guid: GUID) -> socket.socket:
    """Return a connection to the key's holder, which does not block.

    Raises:
        MeetingPlaceError: the folder is not ours alone.
        OSError: nobody takes connections there now.
    """
    with ExitStack() as ends:
        folder = _opened(folder_path(), ends)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(_within(folder, f"{_name(guid)}.sock"))  # at once, or its queue is full
        except OSError:
            sock.close()
            raise
        return sock


def folder_path() -> Path:
    """Return where programs of this user meet."""
    user = os.geteuid()
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    with suppress(OSError):
        if runtime.is_absolute() and runtime.stat().st_uid == user:
            return runtime / "packetcloud"
    return Path(tempfile.gettempdir(), f"packetcloud-{user}")


def _opened(path: Path, ends: ExitStack) -> int:
    """Return a descriptor of the folder, which is made if there is none."""
    with suppress(FileExistsError):
        path.mkdir(0o700)
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ends.callback(os.close, folder)
    status = os.fstat(folder)
    if status.st_uid != os.geteuid():
        raise MeetingPlaceError(f"{path} belongs to another user")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise MeetingPlaceError(f"{path} is open to other users, with mode {mode:o}; allowed: 700")
    return folder


def _name(guid: GUID) -> str:
    return f"{guid.hex}-{_NETWORK.stat().st_ino}"


def _within(folder: int, name: str) -> str:
    """Return how to name what is in the folder; short enough for a socket, however deep it lies."""
    return f"/proc/self/fd/{folder}/{name}"


def _is_ours(lock: int) -> bool:
    """Tell whether we have the lock now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(lock).st_nlink > 0  # else its holder has removed it since we opened it


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
