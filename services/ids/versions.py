"""Shell: the rule file, read and compiled again in a thread when it changes.

Rules are switched between two chunks. A file that is not taken leaves those in force as they are.
The thread gives way after each rule that it reads, and the engine compiles without the
interpreter's lock, so chunks go on meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import WatchedFile
from packetcloud.services.ids.errors import EngineError, RuleFileError, UnreadableFileError
from packetcloud.services.ids.guid_sets import Lists
from packetcloud.services.ids.reader import MAX_FILE_BYTES, RuleFile, read_rules
from packetcloud.services.ids.ruleset import RuleSet, compile_rules

LOOK_INTERVAL_S = 1.0
_LOGGED_REFUSALS_COUNT = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """How rule files are read."""

    lists: Lists
    widens: bool
    skips: bool
    """A file with lines that are refused is taken without them."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the rules, compiled."""

    ruleset: RuleSet
    digest: str
    """Of the file: sixteen hexadecimal digits."""
    refused_count: int

    @property
    def rules_count(self) -> int:
        return len(self.ruleset.entries)


def load_version(path: Path, how: Reading, log: logging.Logger, *, yields: bool = False) -> Version:
    """Read and compile a rule file.

    Raises:
        ServiceConfigError: missing, unreadable, nothing left, or lines refused and not skipped.
    """
    data = read_file(path)
    pause = _give_way if yields else _go_on
    file = read_rules(data, how.lists, widens=how.widens, pause=pause)
    try:
        ruleset, refused = compile_rules(file, pause)
    except EngineError as error:
        raise RuleFileError(f"{path}: {error}") from None
    file = RuleFile(file.rules, (*file.refusals, *refused), file.notes)
    if file.refusals and not how.skips:
        raise RuleFileError(
            f"{path}, {file.problem()}; see: packetcloud service ids check {path}; "
            "on_refused=skip goes on without them"
        )
    if not ruleset.entries:
        raise RuleFileError(f"{path} has no rule{f': {file.problem()}' if file.refusals else ''}")
    for refusal in file.refusals[:_LOGGED_REFUSALS_COUNT]:
        log.warning("%s, %s: skipped", path, refusal)
    if len(file.refusals) > _LOGGED_REFUSALS_COUNT:
        log.warning("%s: %d lines skipped in all", path, len(file.refusals))
    return Version(ruleset, hashlib.sha256(data).hexdigest()[:16], len(file.refusals))


def read_file(path: Path) -> bytes:
    """Return what is in a rule file.

    Raises:
        RuleFileError: missing or too large; UnreadableFileError: it cannot be read just now.
    """
    try:
        if not path.is_file():  # a pipe would wait for somebody who writes
            raise RuleFileError(f"no rule file {path}")
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(f"cannot read rule file {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise RuleFileError(f"{path} is over {MAX_FILE_BYTES >> 20} MiB")
    return data


class Watcher:
    """Looks at the file once a second, and keeps a newer version ready.

    Args:
        version: the one that is in force.
    """

    def __init__(self, path: Path, how: Reading, log: logging.Logger) -> None:
        self._file = WatchedFile(path)
        self._how = how
        self._log = log
        self._ready: deque[Version] = deque(maxlen=1)
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ids-rules", daemon=True)
        self.failed_count = 0
        """Files that were not taken."""
        self.last_problem = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a compilation that runs is not waited for."""
        self._is_ended.set()
        self._thread.join(LOOK_INTERVAL_S)

    def take(self) -> Version | None:
        """Return a newer version, once."""
        # One step: the other thread may put a still newer one there at any moment.
        return self._ready.popleft() if self._ready else None

    def look(self) -> bool:
        """Read the file if it changed; tell whether a newer version is ready."""
        if not self._file.is_to_be_read():
            return False
        try:
            version = load_version(self._file.path, self._how, self._log, yields=True)
        except Exception as error:  # whatever it is: who ended here would never look again
            self._not_taken(error)
            return False
        self._file.taken()
        self.last_problem = ""
        self._log.info(
            "rules %s: %d in force with the next chunk", version.digest, version.rules_count
        )
        self._ready.append(version)
        return True

    def _not_taken(self, error: Exception) -> None:
        # What is refused stays so until the file changes; what could not be read is tried again.
        is_for_good = not isinstance(error, UnreadableFileError | OSError | MemoryError)
        if not self._file.failed(str(error), is_for_good=is_for_good):
            return
        self.failed_count += 1
        self.last_problem = str(error)
        is_fault = not isinstance(error, ServiceConfigError)
        self._log.error("rules read before stay in force: %s", error, exc_info=is_fault)

    def _watch(self) -> None:
        while not self._is_ended.wait(LOOK_INTERVAL_S):
            self.look()


def _give_way() -> None:
    """Let the thread that inspects chunks run, if it wants to."""
    time.sleep(0)


def _go_on() -> None:
    pass
