"""Core of the supervisor: restarts the VIs of one service, and stops restarting what keeps dying.

`handle(event, now)` returns commands; `next_timeout` says when to send a `Tick`. A VI is

    STARTING -> RUNNING -> (dies) -> BACKING_OFF -> STARTING ...
                                  -> QUARANTINED   after too many crashes in a window
    any -> STOPPING -> STOPPED

Which deaths count as crashes: see `_is_crash`. Source: docs/how-to/write-a-service.md.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from packetcloud.services.backoff import Backoff
from packetcloud.services.launch import EXIT_CONFIG, EXIT_FINE, ExitCause

START_TIMEOUT_S = 30.0
"""A VI that is not ready by then hangs in its imports or its `start`."""
SHORTEST_HANG_S = 10.0
"""A VI beats every second; so long a silence is no busy machine. Longer deadlines make it longer,
see `RestartPolicy.hang_s`."""
STOP_TIMEOUT_S = 8.0
"""Longer than a runtime drains (5 s); then it is killed."""
_OUTSIDE_SIGNALS = frozenset(
    int(number)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
)


class ReplicaState(StrEnum):
    """What one VI is doing."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    QUARANTINED = "quarantined"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The manifest's `[supervision]`, and the service's deadline."""

    first_delay_s: float = 0.1
    longest_delay_s: float = 30.0
    stable_s: float = 30.0
    quarantine_crashes: int = 8
    quarantine_window_s: float = 60.0
    deadline_ms: int = 5000

    @property
    def hang_s(self) -> float:
        """Silence, or time with one task, after which a VI is killed."""
        return max(SHORTEST_HANG_S, 2 * self.deadline_ms / 1000)


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """The service in this VI started."""

    replica: int


@dataclass(frozen=True, slots=True)
class ReplicaBeat:
    """A VI reported its status."""

    replica: int
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A VI said why it is about to end."""

    replica: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplicaExited:
    """A VI ended."""

    replica: int
    cause: ExitCause


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `next_timeout` named has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """End everything in good order."""


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """An operator mended something: try what is in quarantine again."""


Event = (
    ReplicaReady
    | ReplicaBeat
    | ReplicaFailed
    | ReplicaExited
    | Tick
    | StopRequested
    | ReleaseRequested
)


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a VI for this replica."""

    replica: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the VI to finish its tasks and end."""

    replica: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the VI now."""

    replica: int
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing runs any more: end with this exit code; the text is for the operator."""

    exit_code: int
    text: str = ""


Command = Launch | Terminate | Kill | Finish


@dataclass(slots=True)
class Replica:
    """What the supervisor knows of one VI and of those that were here before it."""

    backoff: Backoff
    state: ReplicaState = ReplicaState.STARTING
    due_at: float = 0.0
    """When the present state has lasted too long (BACKING_OFF: when to start again)."""
    ready_at: float | None = None
    restarts: int = 0
    was_attached: bool = False
    was_killed_by_us: bool = False
    last_exit: str = ""
    last_error: str = ""
    crashes: deque[float] = field(default_factory=deque)
    status: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """Keeps `replica_count` VIs of one service running.

    Args:
        random: uniform in 0..1, for the jitter.
    """

    def __init__(
        self, policy: RestartPolicy, replica_count: int, random: Callable[[], float]
    ) -> None:
        self.policy = policy
        self.replicas = [
            Replica(Backoff(policy.first_delay_s, policy.longest_delay_s))
            for _ in range(replica_count)
        ]
        self._random = random
        self._is_stopping = False
        self._is_finished = False
        self._was_ever_ready = False
        self._fatal = ""

    def start(self, now: float) -> list[Command]:
        """Launch every replica; call once."""
        return [self._launch(index, now) for index in range(len(self.replicas))]

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take note of `event` and return what is to be done."""
        if self._is_finished:
            return []
        match event:
            case ReplicaReady(index):
                self._ready(self.replicas[index], now)
                return []
            case ReplicaBeat(index, status):
                return self._beat(index, status, now)
            case ReplicaFailed(index, text):
                self.replicas[index].last_error = text
                return []
            case ReplicaExited(index, cause):
                return self._exited(index, cause, now)
            case Tick():
                return self._tick(now)
            case StopRequested():
                return self._stop(now)
            case ReleaseRequested():
                return self._release(now)

    def next_timeout(self) -> float | None:
        """Return when `Tick` is due, None if never."""
        idle = (ReplicaState.QUARANTINED, ReplicaState.STOPPED)
        return min((r.due_at for r in self.replicas if r.state not in idle), default=None)

    def _launch(self, index: int, now: float) -> Command:
        replica = self.replicas[index]
        replica.state = ReplicaState.STARTING
        replica.due_at = now + START_TIMEOUT_S
        replica.ready_at = None
        replica.was_attached = replica.was_killed_by_us = False
        replica.status = {}
        return Launch(index)

    def _ready(self, replica: Replica, now: float) -> None:
        if replica.state is ReplicaState.STARTING:
            self._was_ever_ready = True
            replica.state = ReplicaState.RUNNING
            replica.ready_at = now
            replica.due_at = now + self.policy.hang_s
            replica.last_error = ""

    def _beat(self, index: int, status: dict[str, Any], now: float) -> list[Command]:
        replica = self.replicas[index]
        replica.status = status
        if replica.state is not ReplicaState.RUNNING:
            return []
        replica.due_at = now + self.policy.hang_s
        replica.was_attached |= status.get("attachment") == "attached"
        in_hand_s = status.get("longest_in_hand_s", 0)
        if isinstance(in_hand_s, int | float) and in_hand_s > self.policy.hang_s:
            return [self._kill(index, now, f"one task for {in_hand_s:.0f} s")]
        return []

    def _exited(self, index: int, cause: ExitCause, now: float) -> list[Command]:
        replica = self.replicas[index]
        replica.last_exit = str(cause)
        if self._is_stopping:
            replica.state = ReplicaState.STOPPED
            return self._finish_if_all_stopped()
        if cause.code == EXIT_CONFIG and not self._was_ever_ready:
            self._fatal = replica.last_error or "the service cannot start as it is configured"
            replica.state = ReplicaState.STOPPED
            return self._stop(now)
        replica.restarts += 1
        if replica.ready_at is not None and now - replica.ready_at >= self.policy.stable_s:
            replica.backoff.reset()
        if not self._is_crash(replica, cause):
            return [self._launch(index, now)]
        if self._counts_to_quarantine(replica, now):
            replica.state = ReplicaState.QUARANTINED
            return []
        replica.state = ReplicaState.BACKING_OFF
        replica.due_at = now + replica.backoff.next_delay_s(self._random())
        return []

    def _is_crash(self, replica: Replica, cause: ExitCause) -> bool:
        """Tell the service's own fault from an end that came from outside.

        An orderly end (exit code 0), or a signal that nothing gives itself (KILL, TERM, ...) to a
        VI that had worked, is an operator or the machine: it starts again at once. A VI that we
        killed because it hung, one that never got attached, and every other end is a crash.
        """
        if replica.was_killed_by_us or not replica.was_attached:
            return True
        return cause.code != EXIT_FINE and cause.signal not in _OUTSIDE_SIGNALS

    def _counts_to_quarantine(self, replica: Replica, now: float) -> bool:
        replica.crashes.append(now)
        while replica.crashes[0] <= now - self.policy.quarantine_window_s:
            replica.crashes.popleft()
        limit = self.policy.quarantine_crashes
        # With limit 0 (never) the window alone would let the list grow: a crash per first_delay_s.
        while len(replica.crashes) > max(limit, 1):
            replica.crashes.popleft()
        return bool(limit) and len(replica.crashes) >= limit

    def _tick(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for index, replica in enumerate(self.replicas):
            if now < replica.due_at:
                continue
            match replica.state:
                case ReplicaState.BACKING_OFF:
                    commands.append(self._launch(index, now))
                case ReplicaState.STARTING:
                    commands.append(self._kill(index, now, f"not ready in {START_TIMEOUT_S:g} s"))
                case ReplicaState.RUNNING:
                    commands.append(
                        self._kill(index, now, f"no sign of life for {self.policy.hang_s:g} s")
                    )
                case ReplicaState.STOPPING:
                    commands.append(self._kill(index, now, "did not end when asked"))
                case _:
                    pass
        return commands

    def _kill(self, index: int, now: float, why: str) -> Command:
        replica = self.replicas[index]
        replica.was_killed_by_us = True
        replica.last_error = why
        replica.due_at = now + STOP_TIMEOUT_S  # killed once more if even that is not heard
        return Kill(index, why)

    def _stop(self, now: float) -> list[Command]:
        if self._is_stopping:
            return []
        self._is_stopping = True
        commands: list[Command] = []
        for index, replica in enumerate(self.replicas):
            if replica.state in (ReplicaState.STARTING, ReplicaState.RUNNING):
                replica.state = ReplicaState.STOPPING
                replica.due_at = now + STOP_TIMEOUT_S
                commands.append(Terminate(index))
            else:
                replica.state = ReplicaState.STOPPED
        return commands + self._finish_if_all_stopped()

    def _finish_if_all_stopped(self) -> list[Command]:
        if any(replica.state is not ReplicaState.STOPPED for replica in self.replicas):
            return []
        self._is_finished = True
        return [Finish(EXIT_CONFIG, self._fatal) if self._fatal else Finish(EXIT_FINE)]

    def _release(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for index, replica in enumerate(self.replicas):
            if replica.state is ReplicaState.QUARANTINED and not self._is_stopping:
                replica.crashes.clear()
                replica.backoff.reset()
                commands.append(self._launch(index, now))
        return commands
