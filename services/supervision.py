"""Shell of the supervisor: VIs on an isolation back-end, signals, the status file."""

from __future__ import annotations

import dataclasses
import logging
import random
import signal
from collections.abc import Callable
from typing import Any

from packetcloud.services.event_loop import install_reactor, run_reactor
from packetcloud.services.isolation import Instance, Isolation
from packetcloud.services.launch import EXIT_CRASH, ExitCause, LaunchSpec
from packetcloud.services.state_dir import StatusFile
from packetcloud.services.supervisor import (
    Event,
    Finish,
    Kill,
    Launch,
    ReleaseRequested,
    ReplicaBeat,
    ReplicaExited,
    ReplicaFailed,
    ReplicaReady,
    ReplicaState,
    RestartPolicy,
    StopRequested,
    Supervisor,
    Terminate,
    Tick,
)

STATUS_INTERVAL_S = 1.0

_log = logging.getLogger("packetcloud.supervisor")


class Supervision:
    """Runs the VIs of one service on `isolation` until asked to stop.

    Args:
        facts: what does not change, for the status file: name, SID, router, ...
        finished: called once, with the exit code and a text for the operator.
    """

    def __init__(
        self,
        reactor: Any,
        isolation: Isolation,
        spec: LaunchSpec,
        policy: RestartPolicy,
        replica_count: int,
        status_file: StatusFile,
        facts: dict[str, Any],
        finished: Callable[[int, str], None],
    ) -> None:
        self.core = Supervisor(policy, replica_count, random.random)
        self._reactor = reactor
        self._isolation = isolation
        self._spec = spec
        self._status_file = status_file
        self._facts = facts
        self._finished = finished
        self._first_instance = random.getrandbits(32)
        self._instances: dict[int, Instance] = {}
        self._timer: Any = None
        self._status_timer: Any = None

    def start(self) -> None:
        _log.warning("%s", self._isolation.notice)
        self._do(self.core.start(self._reactor.seconds()))
        self._write_status()

    def handle(self, event: Event) -> None:
        """Hand an event to the core and do what it says."""
        before = [replica.state for replica in self.core.replicas]
        commands = self.core.handle(event, self._reactor.seconds())
        for index, (old, replica) in enumerate(zip(before, self.core.replicas, strict=True)):
            if old is not replica.state:
                self._log_change(index)
        self._do(commands)
        if any(isinstance(command, Finish) for command in commands):
            return
        if not isinstance(event, ReplicaBeat):
            self._write_status()

    def status(self) -> dict[str, Any]:
        """Return the content of the status file."""
        replicas = [
            {
                "replica": index,
                "state": replica.state.value,
                "pid": self._instances[index].pid if index in self._instances else None,
                "restarts": replica.restarts,
                "crashes_in_window": len(replica.crashes),
                "last_exit": replica.last_exit,
                "last_error": replica.last_error,
                **replica.status,
            }
            for index, replica in enumerate(self.core.replicas)
        ]
        return self._facts | {"isolation": self._isolation.name, "replicas": replicas}

    def _do(self, commands: list[Any]) -> None:
        for command in commands:
            match command:
                case Launch(index):
                    self._launch(index)
                case Terminate(index):
                    if index in self._instances:
                        self._instances[index].terminate()
                case Kill(index, why):
                    _log.error("%s/%d: killed: %s", self._spec.name, index, why)
                    if index in self._instances:
                        self._instances[index].kill()
                case Finish(exit_code, text):
                    self._finish(exit_code, text)
                    return
        self._set_timer()

    def _launch(self, index: int) -> None:
        watcher = _Watcher(self, index)
        try:
            self._instances[index] = self._isolation.start(self._spec_of(index), watcher)
        except OSError as error:  # no process or descriptor left: as if it had crashed at once
            _log.error("%s/%d: cannot be started: %s", self._spec.name, index, error)
            self._reactor.callLater(0, watcher.exited, ExitCause(code=EXIT_CRASH))

    def _spec_of(self, index: int) -> LaunchSpec:
        spec = self._spec
        state_file = spec.state_file
        if state_file and len(self.core.replicas) > 1:
            state_file = f"{state_file}.{index}"
        # The router lets a VI take the place of its predecessor: the same instance number.
        instance = (self._first_instance + index) & 0xFFFF_FFFF
        return dataclasses.replace(spec, instance=instance, state_file=state_file)

    def _set_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        due = self.core.next_timeout()
        if due is not None:
            delay = max(0.0, due - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay, self.handle, Tick())

    def _finish(self, exit_code: int, text: str) -> None:
        for timer in (self._timer, self._status_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._isolation.close()
        self._status_file.remove()
        self._finished(exit_code, text)

    def _write_status(self) -> None:
        if self._status_timer is not None and self._status_timer.active():
            self._status_timer.cancel()
        try:
            self._status_file.write(self.status())
        except OSError as error:  # a full disk must not end a service that works
            _log.warning("cannot write %s: %s", self._status_file.path, error.strerror)
        self._status_timer = self._reactor.callLater(STATUS_INTERVAL_S, self._write_status)

    def _log_change(self, index: int) -> None:
        replica = self.core.replicas[index]
        name = f"{self._spec.name}/{index}"
        match replica.state:
            case ReplicaState.QUARANTINED:
                _log.error(
                    "%s: quarantined after %d crashes in %g s (last: %s %s); mend it, then SIGHUP",
                    name,
                    len(replica.crashes),
                    self.core.policy.quarantine_window_s,
                    replica.last_exit,
                    replica.last_error,
                )
            case ReplicaState.BACKING_OFF | ReplicaState.STARTING:
                delay = max(0.0, replica.due_at - self._reactor.seconds())
                when = f"in {delay:.1f} s" if replica.state is ReplicaState.BACKING_OFF else "now"
                _log.warning(
                    "%s: %s %s; starts again %s", name, replica.last_exit, replica.last_error, when
                )
            case state:
                _log.info("%s: %s", name, state.value)


class _Watcher:
    """Turns what an instance reports into events of its replica."""

    def __init__(self, supervision: Supervision, replica: int) -> None:
        self._supervision = supervision
        self._replica = replica

    def reported(self, message: dict[str, Any]) -> None:
        match message:
            case {"event": "ready"}:
                self._supervision.handle(ReplicaReady(self._replica))
            case {"event": "status", "status": dict(status)}:
                self._supervision.handle(ReplicaBeat(self._replica, status))
            case {"event": "error", "text": str(text)}:
                self._supervision.handle(ReplicaFailed(self._replica, text))
            case _:
                pass  # "stopped", or what a newer child says besides

    def exited(self, cause: ExitCause) -> None:
        self._supervision._instances.pop(self._replica, None)
        self._supervision.handle(ReplicaExited(self._replica, cause))


def supervise(
    spec: LaunchSpec,
    policy: RestartPolicy,
    replica_count: int,
    status_file: StatusFile,
    facts: dict[str, Any],
    make_isolation: Callable[[Any], Isolation],
) -> tuple[int, str]:
    """Run a service under supervision in this process until a signal ends it.

    SIGTERM and SIGINT end it in good order, SIGHUP releases what is in quarantine.

    Returns: the exit code, and what the operator should know when it is not 0.
    """
    loop, reactor = install_reactor()
    result: list[tuple[int, str]] = []

    def finished(exit_code: int, text: str) -> None:
        result.append((exit_code, text))
        reactor.stop()

    supervision = Supervision(
        reactor,
        make_isolation(reactor),
        spec,
        policy,
        replica_count,
        status_file,
        facts,
        finished,
    )
    on_signal = {
        signal.SIGTERM: lambda: supervision.handle(StopRequested()),
        signal.SIGINT: lambda: supervision.handle(StopRequested()),
        signal.SIGHUP: lambda: supervision.handle(ReleaseRequested()),
    }
    run_reactor(loop, reactor, supervision.start, on_signal)
    return result[0]
