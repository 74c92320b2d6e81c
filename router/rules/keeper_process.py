"""The keeper as a program of its own: a child of the router, JSON lines over one socket.

    python -m packetcloud.router.rules.keeper_process FD FOLDER

It ends at once when the router closes its end or dies: whatever it was doing is done whole by the
store, or not at all. One thread makes changes, in the order in which they were asked for; another
answers questions in the meantime. Source: docs/decisions/0012.
"""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import queue
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import LocalMisuseError, PacketCloudError
from packetcloud.router.errors import RuleStoreError
from packetcloud.router.rules.catalogue import Catalogue
from packetcloud.router.rules.keeper import Keeper
from packetcloud.router.rules.keeper_link import MAX_LINE_BYTES
from packetcloud.router.rules.policy import RulePolicy

NICENESS = 10
"""Chunks come first."""
LOCK_FILE = "lock"
LOCK_LIMIT_S = 20.0
"""A killed router's keeper sees it within this time, whatever it is busy with."""
GC_THRESHOLD = 1_000_000
SWITCH_S = 0.0005
"""The thread that writes rules has the interpreter after so long: it needs it for a moment every
millisecond, and would wait longer than it works with Python's own 5 ms."""
_LOCK_CHECK_S = 0.02
_log = logging.getLogger("packetcloud.router.keeper")

Message = dict[str, Any]
Answers = Callable[[Message], Message]


class Worker:
    """A thread that answers messages one after the other.

    Args:
        answers: returns the answer to a message, without its id.
        send: takes a whole answer; called in that thread.
        afterwards: called when an answer is sent, for what nobody waits for.
    """

    def __init__(
        self,
        answers: Answers,
        send: Callable[[Message], None],
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        self._answers = answers
        self._send = send
        self._afterwards = afterwards
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, message: Message) -> None:
        self._messages.put(message)

    def _run(self) -> None:
        while True:
            message = self._messages.get()
            self._send({"id": message["id"]} | answer_to(message, self._answers))
            try:
                self._afterwards()
            except Exception:  # a fault of ours must not end the thread that answers
                _log.exception("fault of the keeper after an answer")


def answer_to(message: Message, answers: Answers) -> Message:
    """Return a result, or what kept the keeper from one."""
    try:
        return {"result": answers(message)}
    except PacketCloudError as error:
        return {"error": str(error)}
    except sqlite3.Error as error:
        return {"error": f"the folder of the rules: {error}; see to its disk"}
    except OSError as error:
        what = error.strerror or error
        named = f"{what}: {error.filename}" if error.filename else what
        return {"error": f"the folder of the rules: {named}; see to its disk"}
    except Exception as error:  # a fault of ours: who asked waits for an answer
        _log.exception("fault of the keeper")
        return {"error": f"fault of the keeper: {type(error).__name__}: {error}"}


def line_of(answer: Message) -> bytes:
    """Return the line of an answer; one that is too long for the router's loop says so instead."""
    line = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        text = f"the answer takes {len(line)} bytes, at most {MAX_LINE_BYTES}; ask for less"
        line = json.dumps({"id": answer["id"], "error": text}).encode() + b"\n"
    return line


def serve(
    link: socket.socket, change: Answers, ask: Answers, afterwards: Callable[[], None]
) -> None:
    """Hand each line to the thread it is for, until the other end is closed.

    Args:
        change, ask: answer messages that change something, and those that only ask.
        afterwards: called after the answer to a change.
    """
    is_writing = threading.Lock()

    def send(answer: Message) -> None:
        line = line_of(answer)
        with is_writing:
            link.sendall(line)

    changes = Worker(change, send, afterwards)
    questions = Worker(ask, send)
    with link.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            (questions if message["do"] == "ask" else changes).put(message)


def lock_folder(folder: Path) -> int:
    """Make this process the only keeper of the folder; return the descriptor that keeps it so.

    Raises:
        RuleStoreError: another keeper stays.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= end:
                raise RuleStoreError(
                    f"[rules] path = {str(folder)!r}: another router uses it; "
                    "allowed: a folder of this router alone"
                ) from None
            time.sleep(_LOCK_CHECK_S)


class KeeperProgram:
    """Answers the router's messages from one folder."""

    def __init__(self, folder: Path) -> None:
        self._keeper = Keeper(folder, time.time)
        self._catalogue = Catalogue(folder)

    def change(self, message: Message) -> Message:
        """Do what changes something, or may."""
        in_force = message["in_force"]
        match message["do"]:
            case "open":
                return self._keeper.open(RulePolicy.from_json(message["policy"]), in_force)
            case "configure":
                return self._keeper.configure(RulePolicy.from_json(message["policy"]), in_force)
            case "install":
                return self._keeper.install(
                    Path(message["file"]), is_dry_run=message["is_dry_run"], in_force=in_force
                )
            case "revoke":
                return self._keeper.revoke(Path(message["file"]), in_force=in_force)
            case "tidy":
                return self._keeper.tidy(in_force)
            case unknown:
                raise LocalMisuseError(f"the keeper knows no {unknown!r}")

    def rest(self) -> None:
        """Do what nobody waits for."""
        self._keeper.rest()

    def ask(self, message: Message) -> Message:
        """Answer a question."""
        return self._catalogue.answer(message)


def main(arguments: list[str]) -> None:
    """Serve the socket with the descriptor and the folder that are named."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.nice(NICENESS)
    os.umask(0o077)  # the secret of the tables is in these files, wherever somebody made the folder
    # A million rules at a time make no cycles, and walking them takes seconds.
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    sys.setswitchinterval(SWITCH_S)
    link = socket.socket(fileno=int(arguments[0]))
    folder = Path(arguments[1])
    program: list[KeeperProgram] = []

    def change(message: Message) -> Message:
        # Opened here, so that what is wrong with the folder is the answer to the first message.
        if not program:
            lock_folder(folder)
            program.append(KeeperProgram(folder))
        return program[0].change(message)

    def ask(message: Message) -> Message:
        return program[0].ask(message)

    def afterwards() -> None:
        if program:
            program[0].rest()

    serve(link, change, ask, afterwards)
    # The other end is gone. What a thread is doing lasts whole or not at all: nobody waits for it.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
