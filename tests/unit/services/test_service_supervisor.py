"""The supervisor's core: what is started again when, and what no longer is."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from packetcloud.services.launch import EXIT_CONFIG, EXIT_CRASH, EXIT_FINE, ExitCause
from packetcloud.services.supervisor import (
    SHORTEST_HANG_S,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
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

CRASH = ExitCause(code=EXIT_CRASH)
SEGFAULT = ExitCause(signal=signal.SIGSEGV)
KILLED = ExitCause(signal=signal.SIGKILL)
ATTACHED = {"attachment": "attached", "longest_in_hand_s": 0.0}


def supervisor(replicas: int = 1, **policy: Any) -> Supervisor:
    """Return a supervisor without jitter, its replicas launched at time 0."""
    made = Supervisor(RestartPolicy(**policy), replicas, lambda: 0.5)
    assert made.start(0.0) == [Launch(index) for index in range(replicas)]
    return made


def run(made: Supervisor, now: float, index: int = 0, *, attached: bool = True) -> None:
    """Let a launched replica become ready and attach."""
    assert made.handle(ReplicaReady(index), now) == []
    if attached:
        assert made.handle(ReplicaBeat(index, ATTACHED), now) == []


def crash(made: Supervisor, now: float, cause: ExitCause = CRASH) -> float:
    """Let a running replica crash; return when it is to start again."""
    assert made.handle(ReplicaExited(0, cause), now) == []
    assert made.replicas[0].state is ReplicaState.BACKING_OFF
    due = made.next_timeout()
    assert due is not None
    return due


def test_a_crashed_vi_starts_again_after_a_growing_delay() -> None:
    """0.1 s, 0.2 s, 0.4 s ... and not before."""
    made = supervisor(quarantine_crashes=0)
    now, delays = 0.0, []
    for _ in range(5):
        run(made, now)
        due = crash(made, now, SEGFAULT)
        delays.append(round(due - now, 3))
        assert made.handle(Tick(), due - 0.001) == []
        assert made.handle(Tick(), due) == [Launch(0)]
        now = due
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert made.replicas[0].restarts == 5


def test_a_stable_time_resets_the_delay() -> None:
    """A VI that ran for 30 s starts again with the first delay."""
    made = supervisor(quarantine_crashes=0)
    now = 0.0
    for _ in range(4):
        run(made, now)
        now = crash(made, now)
        made.handle(Tick(), now)
    run(made, now)
    assert round(crash(made, now + 30.0) - now - 30.0, 3) == 0.1


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
)
def test_a_vi_killed_from_outside_starts_again_at_once(number: signal.Signals) -> None:
    """100 kills in a row are no crashes: no delay and no quarantine."""
    made = supervisor()
    for step in range(100):
        run(made, step / 10)
        commands = made.handle(ReplicaExited(0, ExitCause(signal=number)), step / 10)
        assert commands == [Launch(0)]
    assert made.replicas[0].restarts == 100


@pytest.mark.parametrize("cause", [KILLED, ExitCause(code=EXIT_FINE), CRASH])
def test_a_vi_that_never_attached_crashed_whatever_ended_it(cause: ExitCause) -> None:
    """Killed for memory at its start, say: starting it at once again would only burn the CPU."""
    made = supervisor()
    run(made, 0.0, attached=False)
    crash(made, 0.0, cause)


def test_an_orderly_end_that_nobody_here_asked_for_is_no_crash() -> None:
    """An operator sent SIGTERM to the VI itself: it drained, and its successor starts at once."""
    made = supervisor()
    run(made, 0.0)
    assert made.handle(ReplicaExited(0, ExitCause(code=EXIT_FINE)), 1.0) == [Launch(0)]


def test_quarantine_after_eight_crashes_in_a_minute() -> None:
    """The eighth crash in the window ends the restarts; the status says so; nothing is due."""
    made = supervisor()
    now = 0.0
    for _ in range(7):
        run(made, now)
        now = crash(made, now)
        assert made.handle(Tick(), now) == [Launch(0)]
    run(made, now)
    assert made.handle(ReplicaExited(0, CRASH), now) == []
    assert made.replicas[0].state is ReplicaState.QUARANTINED
    assert made.next_timeout() is None
    assert made.handle(Tick(), now + 1000) == []


def test_crashes_spread_over_more_than_the_window_do_not_add_up() -> None:
    """A service that crashes now and then is started again for ever."""
    made = supervisor(quarantine_crashes=3, quarantine_window_s=60.0)
    for step in range(50):
        now = step * 30.0
        run(made, now)
        due = crash(made, now)
        assert made.handle(Tick(), due) == [Launch(0)]


def test_without_quarantine_the_list_of_crashes_does_not_grow() -> None:
    """`quarantine_crashes = 0` means never, and costs no memory either."""
    made = supervisor(quarantine_crashes=0, first_delay_s=0.0)
    for _ in range(100):
        run(made, 0.0)
        crash(made, 0.0)
        made.handle(Tick(), 0.0)
    assert len(made.replicas[0].crashes) == 1


def test_release_starts_what_is_in_quarantine_from_a_clean_slate() -> None:
    """SIGHUP: the next crash is the first one again."""
    made = supervisor(quarantine_crashes=1)
    run(made, 0.0)
    made.handle(ReplicaExited(0, CRASH), 0.0)
    assert made.replicas[0].state is ReplicaState.QUARANTINED
    assert made.handle(ReleaseRequested(), 5.0) == [Launch(0)]
    assert not made.replicas[0].crashes
    assert made.handle(ReleaseRequested(), 5.0) == []


def test_a_configuration_error_ends_the_service_at_its_first_start() -> None:
    """The same configuration would fail again: no restart, exit 2, and the VI's own words."""
    made = supervisor(replicas=2)
    made.handle(ReplicaFailed(0, "no key file /k"), 0.0)
    commands = made.handle(ReplicaExited(0, ExitCause(code=EXIT_CONFIG)), 0.0)
    assert commands == [Terminate(1)]
    assert made.handle(ReplicaExited(1, KILLED), 0.1) == [Finish(EXIT_CONFIG, "no key file /k")]


def test_a_configuration_error_later_counts_as_a_crash() -> None:
    """Somebody damaged a file while the service ran: it may be mended."""
    made = supervisor()
    run(made, 0.0)
    crash(made, 10.0, ExitCause(code=EXIT_CONFIG))


def test_a_vi_that_falls_silent_is_killed_and_that_is_a_crash() -> None:
    """A `process` that never returns on the reactor's thread: no beats any more."""
    made = supervisor()
    run(made, 0.0)
    made.handle(ReplicaBeat(0, ATTACHED), 5.0)
    due = made.next_timeout()
    assert due == 5.0 + SHORTEST_HANG_S
    (command,) = made.handle(Tick(), due)
    assert isinstance(command, Kill)
    assert "no sign of life" in command.why
    crash(made, due, KILLED)


def test_a_vi_with_one_task_for_too_long_is_killed() -> None:
    """In a worker thread the beats go on while `process` hangs; the task's age tells."""
    made = supervisor()
    run(made, 0.0)
    hangs = ATTACHED | {"longest_in_hand_s": SHORTEST_HANG_S + 0.1}
    (command,) = made.handle(ReplicaBeat(0, hangs), 12.0)
    assert isinstance(command, Kill)
    crash(made, 12.0, KILLED)


def test_a_long_deadline_makes_patience_longer() -> None:
    """A service that may take a minute is not killed after ten seconds."""
    assert RestartPolicy(deadline_ms=60_000).hang_s == 120
    assert RestartPolicy(deadline_ms=100).hang_s == SHORTEST_HANG_S


def test_a_vi_that_does_not_get_ready_is_killed() -> None:
    """Its imports or its `start` hang."""
    made = supervisor()
    (command,) = made.handle(Tick(), START_TIMEOUT_S)
    assert isinstance(command, Kill)


def test_stopping_asks_first_and_kills_what_does_not_listen() -> None:
    """Finished when the last one ended, with exit code 0."""
    made = supervisor(replicas=3, quarantine_crashes=1)
    for index in range(3):
        run(made, 0.0, index)
    made.handle(ReplicaExited(2, CRASH), 0.0)  # in quarantine: nothing there to stop
    assert made.handle(StopRequested(), 1.0) == [Terminate(0), Terminate(1)]
    assert made.handle(StopRequested(), 1.0) == []
    assert made.handle(ReplicaExited(0, ExitCause(code=EXIT_FINE)), 1.5) == []
    (command,) = made.handle(Tick(), 1.0 + STOP_TIMEOUT_S)
    assert command == Kill(1, "did not end when asked")
    assert made.handle(ReplicaExited(1, KILLED), 9.1) == [Finish(EXIT_FINE)]
    assert made.handle(Tick(), 99.0) == []


def test_stopping_while_waiting_to_restart_finishes_at_once() -> None:
    """Nothing runs, so nothing is waited for."""
    made = supervisor()
    run(made, 0.0)
    crash(made, 0.0)
    assert made.handle(StopRequested(), 0.05) == [Finish(EXIT_FINE)]


def test_each_replica_has_its_own_history() -> None:
    """One replica in quarantine leaves the others running."""
    made = supervisor(replicas=2, quarantine_crashes=1)
    run(made, 0.0, 0)
    run(made, 0.0, 1)
    made.handle(ReplicaExited(0, CRASH), 1.0)
    assert [replica.state for replica in made.replicas] == [
        ReplicaState.QUARANTINED,
        ReplicaState.RUNNING,
    ]
    assert made.handle(ReplicaExited(1, KILLED), 1.0) == [Launch(1)]


def test_exit_causes_read_well() -> None:
    """What `service list` shows as the last end."""
    assert str(KILLED) == "killed by SIGKILL"
    assert str(CRASH) == "exit code 1"
