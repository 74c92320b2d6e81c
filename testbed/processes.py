"""Child processes of an experiment: start, read what they say, stop, count CPU and memory.

A child that takes part in a measurement prints one JSON object per line, its *events*, each with
the key `event`. Times in events are of CLOCK_MONOTONIC, which all processes of a machine share.
Every child leads a session of its own, so it is ended with its descendants and with nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.in_namespace import HERE, launcher

if TYPE_CHECKING:  # programs that a child runs import this, and need no netlink
    from packetcloud.testbed.namespaces import Namespace

STOP_GRACE_S = 5.0
"""How long a child may take to end after SIGTERM, before SIGKILL."""
LAST_WORDS_BYTES = 2000
FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.1
"""Between two looks at a condition that is waited for."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Event = dict[str, Any]


class Child:
    """One running process. Start it through `Children.start`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        namespace: Namespace | None,
        log: Path,
        environment: Mapping[str, str] | None,
        takes_orders: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._events: queue.Queue[Event] = queue.Queue()
        self._cpu_s = 0.0
        self._rss_bytes = 0
        self._is_asked = False
        with log.open("wb") as errors:
            # The kernel ends the child when the *thread* that started it ends (PR_SET_PDEATHSIG):
            # start children on the main thread.
            self._process = subprocess.Popen(
                [*launcher(namespace.name if namespace else HERE), *self._command],
                stdin=subprocess.PIPE if takes_orders else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._reader = threading.Thread(target=self._read, name=f"read-{name}", daemon=True)
        self._reader.start()
        self.output: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def tell(self, **order: object) -> None:
        """Write one JSON object to the standard input of a child that takes orders.

        Raises:
            ChildError: it has ended.
        """
        stream = self._process.stdin
        assert stream is not None
        try:
            stream.write(json.dumps(order).encode() + b"\n")
            stream.flush()
        except OSError as error:
            raise ChildError(f"{self.name} takes no orders: {self.last_words()}") from error

    def wait_event(self, kind: str, timeout_s: float) -> Event:
        """Return the next event of `kind`; events of other kinds before it are dropped.

        Raises:
            ChildError: the child ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                if not self._reader.is_alive() and self._events.empty():
                    code = self._process.wait()
                    raise ChildError(f"{self.name} ended ({code}): {self.last_words()}") from None
                if time.monotonic() > deadline:
                    raise ChildError(
                        f"{self.name} did not say {kind!r} in {timeout_s:g} s: {self.last_words()}"
                    ) from None
                continue
            if event.get("event") == "error":
                raise ChildError(f"{self.name}: {event.get('text')}")
            if event.get("event") == kind:
                return event

    def taken_events(self) -> list[Event]:
        """Return all events that have come and that nobody has waited for, in order."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    def wait_exit(self, timeout_s: float) -> str:
        """Wait until the child ends by itself; return what it printed.

        Raises:
            ChildError: it failed, or the time is over.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildError(f"{self.name} did not end in {timeout_s:g} s") from None
        self._reader.join(STOP_GRACE_S)
        if code != 0:
            raise ChildError(f"{self.name} failed ({code}): {self.last_words()}")
        return "".join(self.output)

    def wait_document(self, timeout_s: float) -> Any:
        """Return the JSON document that the child prints, as soon as it is whole.

        Raises:
            ChildError: the child ended without one, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            has_ended = not self._reader.is_alive()
            with contextlib.suppress(ValueError):
                return json.loads("".join(self.output))
            if has_ended or time.monotonic() > deadline:
                what = f"ended ({self._process.poll()})" if has_ended else "said nothing"
                raise ChildError(f"{self.name} {what}: {self.last_words()}")
            time.sleep(0.02)

    def poll_exit(self) -> int | None:
        """Return the exit code, None while the child runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the child, if it still runs."""
        if self.is_running:
            self._process.send_signal(number)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once."""
        if not self._is_asked:
            self._is_asked = True
            self.cpu_seconds()
            self.signal(signal.SIGTERM)

    def stop(self, grace_s: float = STOP_GRACE_S) -> int:
        """End the child and its descendants; return its exit code. A second call does nothing."""
        if self.is_running:
            # The leader alone: a supervisor ends its own children in order. Twice is once too
            # often for a router that drains, so nobody is asked again.
            self.ask_to_stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        # Also when the leader ended by itself: a relay may have left children in its session.
        self._signal_group(signal.SIGKILL)
        code = self._process.wait()
        self._reader.join(STOP_GRACE_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return code

    def family(self) -> list[int]:
        """Return the child and its living descendants; empty once it ended."""
        return _family(self.pid) if self.is_running else []

    def cpu_seconds(self) -> float:
        """CPU seconds of the child and its descendants so far; the last figure once it ended."""
        used = sum(map(_cpu_seconds, self.family()))
        self._cpu_s = max(self._cpu_s, used)
        return self._cpu_s

    def rss_bytes(self) -> int:
        """Resident memory of the child and its descendants; the last figure once it ended."""
        if self.is_running:
            self._rss_bytes = sum(_rss_bytes(pid) for pid in _family(self.pid)) or self._rss_bytes
        return self._rss_bytes

    def last_words(self) -> str:
        """The end of what the child wrote to standard error, on one line."""
        try:
            data = self.log.read_bytes()[-LAST_WORDS_BYTES:]
        except OSError:
            data = b""
        text = data.decode("utf-8", "replace") or "".join(self.output)[-LAST_WORDS_BYTES:]
        return " | ".join(line.strip() for line in text.splitlines() if line.strip()) or "(nothing)"

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for line in stream:
            text = line.decode("utf-8", "replace")
            if text.startswith('{"event"'):
                with contextlib.suppress(ValueError):
                    self._events.put(json.loads(text))
                    continue
            self.output.append(text)

    def _signal_group(self, number: int) -> None:
        # The launcher may not have made its session yet: then the group is not there, the child is.
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class Children:
    """The processes of one experiment and their scratch folder; use it in a `with` statement."""

    def __init__(self, directory: Path | None = None) -> None:
        """Keep logs and scratch files in `directory`; None: in one that is removed at the end."""
        self._scratch = (
            tempfile.TemporaryDirectory(prefix="packetcloud-testbed-")
            if directory is None
            else None
        )
        self.directory = directory or Path(self._scratch.name if self._scratch else "")
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        name: str,
        command: Sequence[str],
        namespace: Namespace | None = None,
        environment: Mapping[str, str] | None = None,
        takes_orders: bool = False,
    ) -> Child:
        """Start a child; one that takes orders has a standard input, for `Child.tell`."""
        log = self.directory / f"{len(self._children)}-{name.replace('/', '-')}.log"
        child = Child(name, command, namespace, log, environment, takes_orders)
        self._children.append(child)
        return child

    def close(self) -> None:
        """End every child: all are asked first, last started first, then waited for."""
        for child in reversed(self._children):
            child.ask_to_stop()
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        if self._scratch is not None:
            self._scratch.cleanup()


def python_command(module: str, *arguments: object) -> list[str]:
    """The command line that runs one of our modules as a process."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def packetcloud_command(*arguments: object) -> list[str]:
    """The command line of `packetcloud ARGUMENTS`, run from where this package is."""
    return python_command("packetcloud.cli", *arguments)


def emit_event(kind: str, **fields: object) -> None:
    """Print an event; called in a child. Nobody there to read it: the child has no purpose left."""
    try:
        print(json.dumps({"event": kind, **fields}), flush=True)
    except BrokenPipeError:
        os._exit(1)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition of another process; it is seen 20 ms late, or 3 % of what it took.

    Who looks costs what is waited for its processor: the longer it takes, the more seldom.

    Raises:
        ChildError: it did not come true in time.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise ChildError(f"{what}: not within {timeout_s:g} s")
        time.sleep(min(max(FIRST_LOOK_S, 0.03 * waited_s), LAST_LOOK_S))


def _family(pid: int) -> list[int]:
    """Return `pid` and its living descendants."""
    found = [pid]
    for member in found:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{member}/task/{member}/children").read_text()
            found.extend(int(word) for word in text.split())
    return found


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, and of its children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(word) for word in fields[11:15]) * TICK_S


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
