"""The router's end of its keeper: begins it, asks it, begins it anew when it dies.

While no keeper runs, requests fail and the table in force stays. Nothing here waits for the keeper
on the router's loop but `open`, before the router listens.
Source: docs/decisions/0012.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.router.errors import RuleStoreError, RulesUnavailableError

PROGRAM = "packetcloud.router.rules.keeper_process"
MAX_REQUESTS_COUNT = 64
"""Questions and changes at a time; one more is told to try again."""
MAX_LINE_BYTES = 1 << 19
"""Of one answer: it is read on the loop. A full page has less than half of it."""
RESTART_S = (0.2, 10.0)
"""Wait so long after a death, then twice as long, up to the latter."""
STEADY_S = 60.0
"""A keeper that ran for so long is begun anew without delay."""
OPEN_LIMIT_S = 900.0
"""For the first answer: tables of ten million rules are built anew in some minutes."""
_log = logging.getLogger("packetcloud.router")

Message = dict[str, Any]


class KeeperLink:
    """One keeper after the other, for one folder.

    Args:
        seconds: a monotonic clock.
        greeting: returns what each keeper is asked first.
        opened: called on the loop with the answer to that, of every keeper but the first.
    """

    def __init__(
        self,
        folder: Path,
        seconds: Callable[[], float],
        greeting: Callable[[], Message],
        opened: Callable[[Message], None],
        program: tuple[str, ...] = (sys.executable, "-m", PROGRAM),
    ) -> None:
        self.restarts_count = 0
        self.refused_count = 0
        self._folder = folder
        self._seconds = seconds
        self._greeting = greeting
        self._opened = opened
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 1
        self._backoff_s = RESTART_S[0]
        self._began_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_up(self) -> bool:
        return self._writer is not None

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def open(self) -> Message:
        """Begin the first keeper and return its answer to the greeting. Blocks.

        Raises:
            RuleStoreError: the rules cannot be had; the router must not take chunks.
        """
        self._begin()
        assert self._socket is not None, "begun a moment ago"
        self._socket.settimeout(OPEN_LIMIT_S)
        try:
            self._socket.sendall(_line({"id": 0} | self._greeting()))
            with self._socket.makefile("rb") as lines:
                line = lines.readline()
        except ConnectionError:
            line = b""
        except OSError as error:
            self.kill()
            raise RuleStoreError(f"the keeper of the rules does not answer: {error}") from None
        if not line:
            self.kill()
            raise RuleStoreError(
                "the keeper of the rules ended before it answered; its log says why"
            )
        try:
            return _result(json.loads(line))
        except RulesUnavailableError as error:
            self.kill()
            raise RuleStoreError(str(error)) from None

    def start(self) -> None:
        """Take requests, and look after the keeper from here on; call it on the loop."""
        self._task = asyncio.get_event_loop().create_task(self._look_after())

    async def request(self, message: Message) -> Message:
        """Ask the keeper.

        Raises:
            RulesUnavailableError: it cannot answer now.
        """
        if self._writer is None:
            raise RulesUnavailableError("the keeper of the rules is not running; try again")
        if len(self._waiting) >= MAX_REQUESTS_COUNT:
            self.refused_count += 1
            raise RulesUnavailableError("too many requests about rules at a time; try again")
        number = self._next_id
        self._next_id += 1
        answer: asyncio.Future[Message] = asyncio.get_event_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(_line({"id": number} | message))
            return _result(await answer)
        finally:
            self._waiting.pop(number, None)

    async def stop(self) -> None:
        """End the keeper. What it is doing is done whole, or not at all."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._end()
        if process is not None:
            await asyncio.to_thread(process.wait)

    def kill(self) -> None:
        """End the process at once, and wait for that."""
        process = self._end()
        if process is not None:
            process.wait()

    def _end(self) -> subprocess.Popen[bytes] | None:
        """Kill the process and tell who waits for it; return it, to be waited for."""
        self._writer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(
                    RulesUnavailableError(
                        "the keeper of the rules ended meanwhile; ask which rules are in force"
                    )
                )
        return process

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [*self._program, str(theirs.fileno()), str(self._folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
            )
        self._socket = ours
        self._began_at = self._seconds()

    async def _look_after(self) -> None:
        is_first = True
        while not self._is_stopping:
            try:
                if not is_first:
                    self._begin()
                await self._talk(is_first)
            except OSError as error:
                _log.error("the keeper of the rules cannot be run: %s", error.strerror or error)
            is_first = False
            process = self._end()
            if process is not None:
                # In a thread: the end of a process with much memory takes the kernel a while.
                await asyncio.to_thread(process.wait)
            if self._seconds() - self._began_at >= STEADY_S:
                self._backoff_s = RESTART_S[0]
            _log.warning(
                "the keeper of the rules ended; the rules in force stay; next try in %.1f s",
                self._backoff_s,
            )
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, RESTART_S[1])
            self.restarts_count += 1

    async def _talk(self, is_first: bool) -> None:
        """Read answers until the keeper ends."""
        assert self._socket is not None, "begun before"
        self._socket.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._socket, limit=2 * MAX_LINE_BYTES)
        try:
            if is_first:
                self._writer = writer
            else:
                writer.write(_line({"id": 0} | self._greeting()))
            while line := await reader.readline():
                message = json.loads(line)
                if message["id"] == 0:
                    self._greeted(message, writer)
                    continue
                answer = self._waiting.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(message)
        except (ConnectionError, ValueError) as error:
            _log.error("the keeper of the rules: %s", error)
        finally:
            self._writer = None
            writer.close()

    def _greeted(self, message: Message, writer: asyncio.StreamWriter) -> None:
        try:
            result = _result(message)
        except RulesUnavailableError as error:
            _log.error("the keeper of the rules cannot begin: %s", error)
            writer.close()
            return
        self._writer = writer
        self._opened(result)


def _line(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _result(message: Message) -> Message:
    if "result" in message:
        result: Message = message["result"]
        return result
    raise RulesUnavailableError(message["error"])
