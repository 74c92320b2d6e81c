"""The controller's end of the control links: VIs call, prove who they are, and are spoken to.

What a VI says is a report or the state that it was asked for; it is read no faster than the caps
below allow, and a VI that breaks the protocol loses its connection, never more.
Source: docs/protocol/control-link.md.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.cloudlet.callers import Callers
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.services.control_frames import (
    PROTOCOL_VERSION,
    FrameReader,
    encode_json,
    encode_state,
)
from packetcloud.services.state_transfer import StateIntake, announcement

HELLO_LIMIT_S = 5.0
MAX_STRANGERS_COUNT = 256
"""Connections that have not said who they are; VIs of one cloudlet that all call at once."""
MAX_BEHIND_BYTES = 1 << 20
"""What a VI may leave unread before its connection is closed; a state waits for the reader."""
MAX_STATES_BYTES = 256 << 20
"""States on their way at one time, announced or here: four of the largest."""
MAX_REPORTS_PER_S_COUNT = 50
"""Reports that are read from one VI within a second; an orderly one sends two."""
MAX_STATUS_VALUES_COUNT = 256
"""Keys and values in one status, at every depth; the runtime sends some sixty."""
MAX_LOGGED_COUNT = 60
"""Lines about connections that were closed, within `LOG_WINDOW_S`; the metric counts all."""
LOG_WINDOW_S = 60.0
MAX_TEXT_LENGTH = 500
"""Of what a VI says, in letters, that gets into logs, statuses and the database."""
REFUSAL_REASONS = ("strangers", "silent", "hello", "protocol", "behind")
"""Why a connection is closed: too many strangers, no `hello` in time, a wrong one, a frame that may
not be, or one that does not read."""
_READ_BYTES = 64 << 10
_log = logging.getLogger("packetcloud.cloudlet.links")


@dataclass(frozen=True, slots=True)
class Caller:
    """What a VI must prove, and from where it calls."""

    number: int
    token: str
    address: str


class Link:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.number: int | None = None
        """None: it has not said who it is."""
        self.intake: StateIntake | None = None
        self.status: dict[str, Any] = {}
        """The last one that it sent and that may be."""
        self.is_exporting = False
        """Its state was asked for, and is neither here nor refused."""
        self.is_importing = False
        self.is_ready = False
        """Its service runs: what is said now is heard by its link, not by its launch."""
        self.takes_files = False
        self._writer = writer
        self._window_ends_at = 0.0
        self.reports_count = 0
        """Reports that were heard within this second."""
        self.held_up_count = 0
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def peer(self) -> str:
        """The address that it calls from."""
        return str(self._writer.get_extra_info("peername")[0])

    @property
    def behind_bytes(self) -> int:
        """How much it has not read yet, beyond what the kernel holds."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, frame: bytes) -> bool:
        """Send without waiting; False: it reads too slowly, and loses the connection."""
        if self.behind_bytes + len(frame) > MAX_BEHIND_BYTES:
            self.close()
            return False
        self._writer.write(frame)
        return True

    async def send_state(self, state: bytes) -> None:
        """Send an import as fast as it is read."""
        self._writer.write(encode_json({"do": "import", **announcement(state)}))
        for frame in encode_state(state):
            self._writer.write(frame)
            await self._writer.drain()

    def pause_s(self, now: float) -> float:
        """Return how long the next report is to wait; 0: it may be heard, and counts."""
        if now >= self._window_ends_at:
            self._window_ends_at, self.reports_count = now + 1.0, 0
        if self.reports_count == MAX_REPORTS_PER_S_COUNT:
            self.held_up_count += 1
            return self._window_ends_at - now
        self.reports_count += 1
        return 0.0

    def close(self) -> None:
        self._writer.transport.abort()


class ControlServer:
    """Listens for VIs.

    Args:
        find: returns what the VI of this name must prove; None: there is no such VI.
        tell: takes what was heard.
    """

    def __init__(
        self, find: Callable[[str], Caller | None], tell: Callable[[saw.Event], None]
    ) -> None:
        self.refused: Counter[str] = Counter()
        """Connections that were closed, by reason."""
        self.callers = Callers()
        self.unlogged_count = 0
        """How many of these are not in the log, since it had enough of them."""
        self._logging_ends_at = -math.inf
        self._logged_count = 0
        self._held_up_count = 0
        self._states: dict[int, bytes] = {}
        """By the number of the VI that exported them."""
        self._announced: dict[int, int] = {}
        """Bytes of each state that is here or on its way, by the same."""
        self._find = find
        self._tell = tell
        self._links: dict[int, Link] = {}
        self._strangers: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def strangers_count(self) -> int:
        """How many connections have not said who they are."""
        return len(self._strangers)

    @property
    def logged_count(self) -> int:
        """How many lines about closed links this window's log has."""
        is_over = asyncio.get_running_loop().time() >= self._logging_ends_at
        return 0 if is_over else self._logged_count

    @property
    def held_up_count(self) -> int:
        """How often a VI reported faster than it is read."""
        return self._held_up_count + sum(link.held_up_count for link in self._links.values())

    @property
    def states_bytes(self) -> int:
        """How much of states is here or announced."""
        return sum(self._announced.values())

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Take the port, without answering there yet; returns the address.

        Raises:
            CloudletConfigError: the address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(
                self._called, host, port, limit=_READ_BYTES, start_serving=False
            )
        except OSError as error:
            raise CloudletConfigError(
                f"control port {host}:{port} ([network] control_ipv4, [cloudlet] control_port): "
                f"{error.strerror}; allowed: an address of this machine on the control bridge, and "
                "a free port"
            ) from None
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def serve(self) -> None:
        """Begin to answer."""
        assert self._server is not None, "it is bound"
        await self._server.start_serving()

    async def close(self) -> None:
        """End every connection; VIs run on and call the next controller."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        for link in [*self._links.values(), *self._strangers]:
            link.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def say(self, number: int, message: Mapping[str, Any]) -> bool:
        """Tell a VI something; False: it has no link."""
        link = self._links.get(number)
        if link is None:
            return False
        self._send(link, dict(message))
        return True

    def give_files(self, number: int, files: Mapping[str, str]) -> bool:
        """Give a VI other contents of its files; False: it is too old for that.

        One without a link, or whose service does not run yet, gets them when it says so.
        """
        link = self._links.get(number)
        if link is None or not link.is_ready:
            return True
        if link.takes_files:
            self._send(link, {"do": "files", "files": dict(files)})
        return link.takes_files

    def ask_state(self, number: int) -> str:
        """Ask a VI for its state; returns why that cannot be, or nothing."""
        link = self._links.get(number)
        if link is None:
            return "it has no control link"
        link.is_exporting = True
        self._send(link, {"do": "export"})
        return ""

    def give_state(self, source: int, number: int) -> str:
        """Give the exported state of `source` to a VI; returns why that cannot be, or nothing."""
        link, state = self._links.get(number), self._states.get(source)
        if link is None:
            return "it has no control link"
        if state is None:
            return f"the state of VI {source} is not here"
        link.is_importing = True
        self._spawn(self._give(link, state))
        return ""

    def drop_state(self, source: int) -> None:
        """Forget the state of a VI, also while it comes."""
        self._states.pop(source, None)
        self._announced.pop(source, None)
        link = self._links.get(source)
        if link is not None and (link.is_exporting or link.intake is not None):
            link.close()  # what is on its way cannot be told from the next one; it calls again

    def _send(self, link: Link, message: dict[str, Any]) -> None:
        if not link.send(encode_json(message)):
            self.refused["behind"] += 1

    def _warn(self, text: str) -> None:
        """Log what a VI did, unless there was much of that: whoever calls again at once, and says
        something wrong, would fill the disk on which the controller and others write."""
        now = asyncio.get_running_loop().time()
        if now >= self._logging_ends_at:
            self._logging_ends_at, self._logged_count = now + LOG_WINDOW_S, 0
        if self._logged_count == MAX_LOGGED_COUNT:
            self.unlogged_count += 1
            return
        self._logged_count += 1
        _log.warning("%s", text)
        if self._logged_count == MAX_LOGGED_COUNT:
            _log.warning("control links: no more of these within %g s are logged", LOG_WINDOW_S)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _give(link: Link, state: bytes) -> None:
        try:
            await link.send_state(state)
        except ConnectionError:
            return  # its end is heard of by the reader

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        if self._is_closed:  # it was accepted in the same moment
            link.close()
            return
        if len(self._strangers) >= MAX_STRANGERS_COUNT:
            self.refused["strangers"] += 1
            link.close()
            return
        peer = link.peer
        if not self.callers.come(peer, asyncio.get_running_loop().time()):
            self.refused["strangers"] += 1
            link.close()
            return
        self._strangers.add(link)
        try:
            await self._attend(link, reader)
        except TimeoutError:
            self.refused["silent"] += 1
            self._warn(f"control link from {peer}: no `hello` within {HELLO_LIMIT_S:g} s")
        except ProtocolError as error:
            self.refused["protocol" if link.number is not None else "hello"] += 1
            who = "" if link.number is None else f" of VI {link.number}"
            self._warn(f"control link{who} from {peer}: {_clean(str(error))}")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # an end like any other
        finally:
            self._no_stranger(link, peer)
            link.close()
            self._ended(link)

    async def _attend(self, link: Link, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        loop, peer = asyncio.get_running_loop(), link.peer
        while (pause_s := self.callers.pause_s(peer, loop.time())) > 0:
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(HELLO_LIMIT_S):
            heard = await self._read(reader, frames)
            while not heard:
                heard = await self._read(reader, frames)
        self._introduce(link, heard.pop(0))
        self._no_stranger(link, peer)
        while True:
            for frame in heard:
                while isinstance(frame, dict) and (pause_s := link.pause_s(loop.time())) > 0:
                    await asyncio.sleep(pause_s)
                self._heard(link, frame)
            heard = await self._read(reader, frames)

    def _no_stranger(self, link: Link, peer: str) -> None:
        if link in self._strangers:
            self._strangers.remove(link)
            self.callers.known(peer)

    @staticmethod
    async def _read(
        reader: asyncio.StreamReader, frames: FrameReader
    ) -> list[dict[str, Any] | bytes]:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError
        return frames.feed(data)

    def _introduce(self, link: Link, frame: dict[str, Any] | bytes) -> None:
        match frame:
            case {
                "event": "hello",
                "protocol": int(version),
                "vi": str(name),
                "token": str(token),
                "is_launched": bool(is_launched),
            }:
                takes_files = isinstance(frame, dict) and frame.get("takes_files") is True
            case _:
                raise ProtocolError("its first frame is no `hello`")
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"it speaks version {version}, this controller {PROTOCOL_VERSION}; build its image "
                "again"
            )
        caller = self._find(name)
        right = "" if caller is None else caller.token
        is_right = hmac.compare_digest(_bytes(token), _bytes(right))
        if caller is None or not is_right:
            raise ProtocolError(f"it is not {name[:64]!r}")
        if link.peer != caller.address:
            raise ProtocolError(f"{name} calls from {link.peer}, its address is {caller.address}")
        older = self._links.get(caller.number)
        link.number = caller.number
        link.is_ready = is_launched
        link.takes_files = takes_files
        self._links[caller.number] = link
        if older is not None:
            older.close()
            self._transfer_ended(older)
        self._tell(saw.LinkUp(caller.number, is_launched))

    def _ended(self, link: Link) -> None:
        number = link.number
        if number is None or self._links.get(number) is not link:
            return
        del self._links[number]
        self._held_up_count += link.held_up_count
        self._transfer_ended(link)
        self._tell(saw.LinkDown(number))

    def _transfer_ended(self, link: Link) -> None:
        """Say of a state that was on its way over a link that it will not arrive."""
        assert link.number is not None, "it has said who it is"
        text = "its control link ended"
        if link.is_exporting:
            link.is_exporting = False
            self._announced.pop(link.number, None)
            self._tell(saw.StateExported(link.number, False, text))
        if link.is_importing:
            link.is_importing = False
            self._tell(saw.StateImported(link.number, False, text))

    def _heard(self, link: Link, frame: dict[str, Any] | bytes) -> None:
        number = link.number
        if number is None or self._links.get(number) is not link:
            raise ConnectionResetError  # a newer connection of the same VI is there
        if isinstance(frame, bytes):
            if link.intake is None:
                raise ProtocolError("a piece of a state that nobody announced")
            link.intake.add(frame)
            self._check_intake(link, link.intake, number)
            return
        match frame:
            case {"event": "status", "status": dict(status)}:
                if status != link.status:  # an idle VI says the same again
                    _check_status(status)
                    link.status = status
                self._tell(saw.ViStatus(number, status))
            case {"event": "ready"}:
                link.is_ready = True
                self._tell(saw.ViReady(number))
            case {"event": "error", "text": str(text)}:
                is_config = frame.get("is_config") is True
                self._tell(saw.ViFailed(number, _clean(text), is_config))
            case {"event": "exported"} if link.is_exporting and link.intake is None:
                self._announce(link, number, frame)
            case {"event": "failed", "what": "export", "text": str(text)} if link.is_exporting:
                link.is_exporting = False
                self._tell(saw.StateExported(number, False, _clean(text)))
            case {"event": "imported"} if link.is_importing:
                link.is_importing = False
                self._tell(saw.StateImported(number, True))
            case {"event": "failed", "what": "import", "text": str(text)} if link.is_importing:
                link.is_importing = False
                self._tell(saw.StateImported(number, False, _clean(text)))
            case {"event": "exported" | "imported" | "failed"}:
                raise ProtocolError("an answer to what nobody asked")
            case _:
                pass  # "stopped", or what a newer VI says besides

    def _announce(self, link: Link, number: int, frame: dict[str, Any]) -> None:
        intake = StateIntake(frame)
        size = frame["bytes"]
        if self.states_bytes + size > MAX_STATES_BYTES:
            raise ProtocolError(
                f"its state of {size} bytes comes while others of {self.states_bytes} are on their "
                f"way; allowed together: {MAX_STATES_BYTES}"
            )
        self._announced[number] = size
        link.intake = intake
        self._check_intake(link, intake, number)

    def _check_intake(self, link: Link, intake: StateIntake, number: int) -> None:
        if not intake.is_complete:
            return
        state = intake.state()
        link.intake = None
        link.is_exporting = False
        self._states[number] = state
        self._tell(saw.StateExported(number, True))


def _check_status(status: dict[str, Any]) -> None:
    """Refuse a status that is larger than any runtime sends: it is kept and shown.

    Raises:
        ProtocolError: it has too many values, or one that is too long.
    """
    left: list[object] = [status]
    count = 0
    while left:
        value = left.pop()
        count += 1
        if count > MAX_STATUS_VALUES_COUNT:
            raise ProtocolError(f"a status of over {MAX_STATUS_VALUES_COUNT} values")
        match value:
            case dict():
                left += [*value.keys(), *value.values()]
            case list():
                left += value
            case str() if len(value) > MAX_TEXT_LENGTH:
                raise ProtocolError(f"a status with a text of {len(value)} letters")
            case str() if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ProtocolError("a status with a text that is not UTF-8")
            case float() if not math.isfinite(value):
                raise ProtocolError(f"a status with the number {value}")
            case int() if abs(value) >> 64:
                raise ProtocolError("a status with a number of over 64 bits")


def _clean(text: str) -> str:
    """Return the beginning of what a VI says, on one line: it gets into the log."""
    return "".join(one if one.isprintable() else " " for one in text[:MAX_TEXT_LENGTH])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
