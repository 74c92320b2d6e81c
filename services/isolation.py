"""Where a service runs: the interface of all back-ends, and the one with child processes.

`lxd` (unprivileged containers) is the cloudlet's. `process` is for trying things out on one
machine: limits and a clean end, but no boundary against hostile code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from packetcloud.services.launch import ExitCause, LaunchSpec

STANDBY_DELAY_S = 1.0
"""A process is made ready so long after the last start, when the machine has settled."""
MAX_REPORT_BYTES = 64 << 10
"""Longest line that a child may report; a longer one is thrown away."""
_PASSED_ENVIRONMENT = (
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "TMPDIR", "TZ"),
    *("LANG", "LC_ALL", "LC_CTYPE"),
)
"""All that a service gets of our environment: nothing that may hold a secret."""
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""A VI has one core; idle thread pools only cost address space and start time."""


class InstanceWatcher(Protocol):
    """Who started an instance hears of it, on the reactor's thread."""

    def reported(self, message: dict[str, Any]) -> None: ...
    def exited(self, cause: ExitCause) -> None: ...


class Instance(Protocol):
    """One running VI."""

    pid: int

    def terminate(self) -> None:
        """Ask it to finish its tasks and end."""

    def kill(self) -> None:
        """End it and everything it started, now."""


class Isolation(Protocol):
    """A back-end: starts VIs."""

    name: str
    notice: str
    """What an operator must know about it; said at every start."""

    def start(self, spec: LaunchSpec, watcher: InstanceWatcher) -> Instance: ...

    def close(self) -> None:
        """Put away what is kept ready; running instances are the caller's to end."""


class ProcessIsolation:
    """VIs as child processes: own session, limits, clean environment, no inherited descriptors.

    Args:
        reactor: Twisted's; its `addReader` tells of exits (pidfd) without a signal handler.
        keep_ready: keep one process that has imported everything, so that a VI that was killed is
            replaced in some 50 ms instead of the 0.4 s that an interpreter takes to get there.
    """

    name = "process"
    notice = (
        "isolation 'process': limits on memory and open files, but no boundary against hostile "
        "code; run services of others under LXD"
    )

    def __init__(self, reactor: Any, *, keep_ready: bool = True) -> None:
        self._reactor = reactor
        self._keep_ready = keep_ready
        self._ready: _Child | None = None
        self._timer: Any = None

    def start(self, spec: LaunchSpec, watcher: InstanceWatcher) -> Instance:
        child = self._ready or _Child(self._reactor)
        self._ready = None
        child.begin(spec, watcher)
        if self._keep_ready:
            self._make_ready_later()
        return child

    def close(self) -> None:
        self._keep_ready = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._ready is not None:
            self._ready.kill()
            self._ready = None

    def _make_ready_later(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(STANDBY_DELAY_S)
        else:
            self._timer = self._reactor.callLater(STANDBY_DELAY_S, self._make_ready)

    def _make_ready(self) -> None:
        if self._ready is None and self._keep_ready:
            self._ready = _Child(self._reactor, on_idle_exit=self._ready_is_gone)

    def _ready_is_gone(self) -> None:
        self._ready = None  # the next start makes its own; no loop if the cause is lasting


class _Child:
    """One child process, from the interpreter's start to its reaping."""

    def __init__(self, reactor: Any, on_idle_exit: Callable[[], None] | None = None) -> None:
        self._reactor = reactor
        self._on_idle_exit = on_idle_exit
        self._watcher: InstanceWatcher | None = None
        passed = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
        self._process = subprocess.Popen(
            # -P: the current folder must not decide what is imported.
            [sys.executable, "-P", "-m", "packetcloud.services.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=passed | _ONE_CORE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = self._process.stdin
        self._exit = _Readable(reactor, os.pidfd_open(self.pid), "exit", self._ended)
        output = self._process.stdout.fileno()
        os.set_blocking(output, False)
        self._reports = _Readable(reactor, output, "reports", self._read_reports)
        self._unread = bytearray()
        self.reports_dropped_count = 0
        """Reports that were too long to be one."""

    def begin(self, spec: LaunchSpec, watcher: InstanceWatcher) -> None:
        """Give the process its service; it starts as soon as its imports are done."""
        self._watcher = watcher
        with suppress(BrokenPipeError):  # it is dead: the watcher hears of that in a moment
            self._input.write(spec.to_json().encode() + b"\n")
            self._input.flush()

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        # The group outlives its leader until we reap it, so its number cannot mean others yet.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _ended(self) -> None:
        self._read_reports()
        self.kill()  # what the service left behind in its group
        status = self._process.wait()
        self._exit.close(close_descriptor=True)
        self._reports.close()
        with suppress(BrokenPipeError):
            self._input.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        cause = ExitCause(signal=-status) if status < 0 else ExitCause(code=status)
        if self._watcher is not None:
            self._watcher.exited(cause)
        elif self._on_idle_exit is not None:
            self._on_idle_exit()

    def _read_reports(self) -> None:
        """Take in what the pipe holds: one piece, for a service may write without end."""
        if not self._reports.is_open:
            return
        try:
            data = os.read(self._reports.descriptor, MAX_REPORT_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._reports.close()
        self._unread += data
        *lines, rest = bytes(self._unread).split(b"\n")
        if len(rest) > MAX_REPORT_BYTES:
            self.reports_dropped_count += 1
            rest = b""
        self._unread = bytearray(rest)
        for line in lines:
            self._report(line)

    def _report(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # a service found the pipe and wrote into it; its own reports suffer, no more
        if isinstance(message, dict) and self._watcher is not None:
            self._watcher.reported(message)


class _Readable:
    """Calls a function whenever a descriptor is readable (Twisted's IReadDescriptor)."""

    def __init__(self, reactor: Any, descriptor: int, name: str, call: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._reactor = reactor
        self._name = name
        self._call = call
        self.is_open = True
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.descriptor

    def logPrefix(self) -> str:
        return self._name

    def doRead(self) -> None:
        self._call()

    def connectionLost(self, reason: object) -> None:
        return

    def close(self, *, close_descriptor: bool = False) -> None:
        """Watch no longer; may be called twice."""
        if not self.is_open:
            return
        self.is_open = False
        self._reactor.removeReader(self)
        if close_descriptor:
            os.close(self.descriptor)
