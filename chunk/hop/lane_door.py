"""Where memory is shared with the neighbours on this machine: a Unix socket beside the UDP port.

A service that has a session says the token of the session there, and gets descriptors; from
then on bodies may go through that memory. Nobody else gets anything, and nothing waits for it:
until then, and where there is no such socket, bodies go in datagrams.

Source: docs/protocol/hop.md, "Lanes"; docs/decisions/0020.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.handshake import LANE_TOKEN_BYTES
from packetcloud.chunk.hop.lane import LANE_BYTES
from packetcloud.chunk.hop.lane_memory import Bell, Ear, close_all, make_lane, map_lane
from packetcloud.chunk.hop.lane_place import door_path
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.runtime_folder import make_private

GREETING = b"PCL1"
MAPPED = b"mapped"
MAX_REPLY_BYTES = 16 << 10
OWN_MODE, SHOWN_MODE = 0o700, 0o755
"""Of the folder of a door: for programs of this user; also for containers."""
YOUNG_S = 60.0
"""A router may be beginning in a folder that was changed since."""
SWEPT_COUNT = 1024
"""Folders that are looked at when a door opens."""
GUESTS_COUNT = 16
"""Connections that are not done yet; one more ends the oldest."""
GUEST_TIMEOUT_S = 5.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Between the tries of a service."""
ACCEPT_COUNT = 16
"""Connections taken at once,"""
REST_S = 0.02
"""and then none for so long: whoever connects without end gets little of the router's time."""

_log = logging.getLogger("packetcloud.hop")


class Lanes:
    """What a node does about shared memory: a router opens its door, a service seeks one.

    Args:
        folder: where routers and services of this machine meet.
        is_shown: containers have the folder of our door, by a mount: it stays when we end.
    """

    def __init__(self, reactor: Any, folder: Path, *, is_shown: bool = False) -> None:
        self.folder = folder
        self._is_shown = is_shown
        self._reactor = reactor
        self._processors = frozenset(os.sched_getaffinity(0))
        self.door: LaneDoor | None = None
        self._seeker: LaneSeeker | None = None

    @property
    def shared(self) -> Path | None:
        """The folder of our own door; None: there is none."""
        return self.door.path.parent if self.door is not None else None

    def open_door(self, core: HopCore) -> None:
        """Share memory with services from now on, if that can be; else the log says why not."""
        path = door_path(self.folder, core.identity.guid)
        try:
            self.door = LaneDoor(self._reactor, path, core, is_shown=self._is_shown)
        except OSError as error:
            why = error.strerror or error
            _log.warning("hop: no memory is shared with services: %s: %s", path, why)

    def seek(self, session: Session, heard: Callable[[Ear], None]) -> None:
        """Ask the router of a session for memory to share; `heard` gets an ear for its bell."""
        path = door_path(self.folder, session.guid)
        if self._seeker is not None:
            self._seeker.close()

        def ended(found: str | Ear) -> None:
            if isinstance(found, str):
                _log.info("hop: bodies go in datagrams: %s: %s", path, found)
            else:
                stay_off(found.router_processors, self._processors)
                heard(found)

        self._seeker = LaneSeeker(self._reactor, path, session, ended)

    def close(self) -> None:
        for part in (self.door, self._seeker):
            if part is not None:
                part.close()
        self.door = self._seeker = None


@implementer(IReadDescriptor)
class _Watched(ABC):
    """A socket that the reactor watches."""

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        self._reactor = reactor
        self._sock = sock
        reactor.addReader(self)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._reactor.removeReader(self)
            self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "lane"

    def connectionLost(self, reason: Any) -> None:  # noqa: B027  # who made it closes it
        """Called by the reactor when it drops the descriptor."""

    @abstractmethod
    def doRead(self) -> None:
        """Something has come."""


class LaneDoor(_Watched):
    """The router's side: hands memory to services that have a session.

    Args:
        path: of the socket, as `door_path` has it; what is there is replaced.
        core: knows whose session a token is.
        is_shown: as of `Lanes`.

    Raises:
        OSError: nobody can listen there.
    """

    def __init__(self, reactor: Any, path: Path, core: HopCore, *, is_shown: bool = False) -> None:
        self.path = path
        self._core = core
        self._is_shown = is_shown
        self._rest: Any = None
        self._guests: dict[_Guest, None] = {}
        lanes = path.parent.parent
        make_private(lanes.parent, lanes)
        sweep_dead(lanes)
        path.parent.mkdir(exist_ok=True)
        # Whatever the umask is: a container comes in as somebody else.
        path.parent.chmod(SHOWN_MODE if is_shown else OWN_MODE)
        sock = _new_socket()
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            fresh.unlink(missing_ok=True)
            sock.bind(str(fresh))
            fresh.chmod(0o666)  # whoever may come in has to say a token
            sock.listen(GUESTS_COUNT)
            fresh.rename(path)
            self._inode = path.stat().st_ino
        except OSError:
            sock.close()
            fresh.unlink(missing_ok=True)
            raise
        super().__init__(reactor, sock)

    def doRead(self) -> None:
        """Let visitors in: few enough that it costs nobody his turn, and more after a rest."""
        for _ in range(ACCEPT_COUNT):
            try:
                connection, _ = self._sock.accept()
            except OSError:  # nobody is left, has gone again, or no descriptor is left
                break
            connection.setblocking(False)
            if len(self._guests) >= GUESTS_COUNT:
                next(iter(self._guests)).close()
                self._core.guests_turned_away += 1
            find = self._core.session_for_lane
            self._guests[_Guest(self._reactor, connection, find, self._left)] = None
        self._reactor.removeReader(self)
        self._rest = self._reactor.callLater(REST_S, self._reactor.addReader, self)

    def _left(self, guest: _Guest) -> None:
        self._guests.pop(guest, None)

    def close(self) -> None:
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        for guest in list(self._guests):
            guest.close()
        with suppress(OSError):  # another router of this key may have the place by now
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
                if not self._is_shown:
                    self.path.parent.rmdir()
        super().close()


class _Guest(_Watched):
    """One connection: a token comes, descriptors go, and that they are mapped comes."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        session_of: Callable[[bytes], Session | None],
        left: Callable[[_Guest], None],
    ) -> None:
        super().__init__(reactor, sock)
        self._session_of = session_of
        self._left = left
        self._session: Session | None = None
        self._bell: Bell | None = None
        self._timer = reactor.callLater(GUEST_TIMEOUT_S, self.close)

    def doRead(self) -> None:
        try:
            said = self._sock.recv(len(GREETING) + LANE_TOKEN_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if self._session is not None:
            if said == MAPPED and self._session.is_up and self._bell is not None:
                self._session.use_lane(self._bell.ring)
            self.close()
        elif not self._hand_over(said):
            self.close()

    def _hand_over(self, said: bytes) -> bool:
        if len(said) != len(GREETING) + LANE_TOKEN_BYTES or not said.startswith(GREETING):
            return False
        session = self._session_of(said[len(GREETING) :])
        if session is None:
            return False
        try:
            memory = make_lane(LANE_BYTES)
        except OSError as error:
            _log.warning("no memory to share with %s: %s", session.guid.short, error)
            return False
        try:
            socket.send_fds(self._sock, [GREETING + own_processors()], memory.descriptors)
        except OSError:
            return False
        finally:
            close_all(memory.descriptors)
        session.open_lane(memory.lane)
        self._session, self._bell = session, memory.bell
        return True

    def close(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        self._left(self)
        super().close()


class LaneSeeker:
    """The service's side: asks for the lane of one session until it has it, or it is in vain.

    Args:
        path: of the router's door, as `door_path` has it.
        ended: called once, with what came in the way; with an ear for the router's bell when
            bodies go through the lane.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        session: Session,
        ended: Callable[[str | Ear], None],
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._session = session
        self._ended = ended
        self._pauses_s = iter(PAUSES_S)
        self._call: _LaneCall | None = None
        self._timer: Any = None
        self._ask()

    def _ask(self) -> None:
        self._timer = None
        if not self._session.is_up:
            return
        try:
            self._call = _LaneCall(self._reactor, self._path, self._session, self._answered)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._ended(error.strerror or str(error))
        except OSError as error:
            self._answered(error.strerror or str(error))

    def _answered(self, found: str | Ear) -> None:
        """A door that is thronged may have room later."""
        self._call = None
        pause_s = next(self._pauses_s, None) if isinstance(found, str) else None
        if pause_s is not None:
            self._timer = self._reactor.callLater(pause_s, self._ask)
        else:
            self._ended(found)

    def close(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._call is not None:
            self._call.close()


class _LaneCall(_Watched):
    """One try.

    Args:
        ended: as for `LaneSeeker`.

    Raises:
        OSError: nobody listens there, or too many are at the door.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        session: Session,
        ended: Callable[[str | Ear], None],
    ) -> None:
        self._session = session
        self._ended = ended
        sock = _new_socket()
        try:
            sock.connect(str(path))
            sock.send(GREETING + session.lane_token)
        except OSError:
            sock.close()
            raise
        super().__init__(reactor, sock)
        self._timer = reactor.callLater(GUEST_TIMEOUT_S, self._end, "no answer")

    def doRead(self) -> None:
        try:
            said, descriptors, _, _ = socket.recv_fds(
                self._sock, MAX_REPLY_BYTES, 3, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        try:
            if not said.startswith(GREETING) or len(descriptors) != 3:
                self._end("it hands over nothing")
                return
            theirs, own, bell = descriptors
            lane, ear = map_lane(theirs, own), Ear(bell, said[len(GREETING) :])
            self._sock.send(MAPPED)
            self._session.open_lane(lane)
            self._session.use_lane()
            self._end(ear)
        except OSError as error:
            self._end(error.strerror or str(error))
        finally:
            close_all(descriptors)

    def _end(self, found: str | Ear) -> None:
        self.close()
        self._ended(found)

    def close(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        super().close()


def sweep_dead(lanes: Path) -> None:
    """Remove folders of routers that were killed; what containers may have stays.

    A router that comes back may find its own gone, and makes it anew.
    """
    for folder in islice(lanes.iterdir(), SWEPT_COUNT):
        with suppress(OSError):  # somebody else sweeps too, or a router begins there
            status = folder.stat()
            is_young = time.time() - status.st_mtime < YOUNG_S
            if (
                stat.S_IMODE(status.st_mode) != OWN_MODE
                or is_young
                or not _is_dead(folder / "door")
            ):
                continue
            (folder / "door").unlink(missing_ok=True)
            folder.rmdir()


def _is_dead(door: Path) -> bool:
    with _new_socket() as visitor:
        try:
            visitor.connect(str(door))
        except (FileNotFoundError, ConnectionRefusedError):
            return True
        except OSError:  # thronged
            return False
    return False


def own_processors() -> bytes:
    """Return the processors that we may run on: their numbers, as text."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0)))).encode()


def stay_off(processors: bytes, ours: AbstractSet[int]) -> None:
    """Leave a router that was bound to some processors alone there, if others are left to us.

    A system that wakes us puts us beside whoever woke us, even where another processor sleeps: the
    router would wait for us, and we for it. Whoever bound the router wants that no more than we do.

    Args:
        ours: where this thread may run.
    """
    try:
        theirs = {int(number) for number in processors.split(b",") if number}
    except ValueError:
        return  # another version's word
    left = ours - theirs or ours
    with suppress(OSError):  # somebody has bound us otherwise meanwhile
        if left != os.sched_getaffinity(0):
            os.sched_setaffinity(0, left)


def _new_socket() -> socket.socket:
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_UNIX, kind)
