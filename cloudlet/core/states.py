"""What may follow each state of a VI, and what its container needs there."""

from __future__ import annotations

from packetcloud.cloudlet.core.instances import ViState, Work

NEXT: dict[ViState, frozenset[ViState]] = {
    ViState.PLACED: frozenset(
        {ViState.CREATED, ViState.BACKING_OFF, ViState.QUARANTINED, ViState.DELETING}
    ),
    ViState.CREATED: frozenset(
        {ViState.BOOTING, ViState.PLACED, ViState.FAILING, ViState.STOPPING, ViState.DELETING}
    ),
    ViState.BOOTING: frozenset(
        {
            ViState.WAITING,
            ViState.LAUNCHING,
            ViState.RUNNING,
            ViState.FAILING,
            ViState.PLACED,
            ViState.STOPPING,
        }
    ),
    ViState.WAITING: frozenset(
        {ViState.LAUNCHING, ViState.FAILING, ViState.PLACED, ViState.STOPPING}
    ),
    ViState.LAUNCHING: frozenset(
        {ViState.RUNNING, ViState.FAILING, ViState.PLACED, ViState.STOPPING}
    ),
    ViState.RUNNING: frozenset({ViState.FAILING, ViState.PLACED, ViState.STOPPING}),
    ViState.FAILING: frozenset(
        {ViState.BACKING_OFF, ViState.QUARANTINED, ViState.STOPPING, ViState.DELETING}
    ),
    ViState.BACKING_OFF: frozenset(
        {ViState.CREATED, ViState.PLACED, ViState.STOPPING, ViState.DELETING}
    ),
    ViState.QUARANTINED: frozenset(
        {ViState.CREATED, ViState.PLACED, ViState.STOPPING, ViState.DELETING}
    ),
    ViState.STOPPING: frozenset({ViState.DELETING}),
    ViState.DELETING: frozenset({ViState.GONE}),
    ViState.GONE: frozenset(),
}
"""What may follow each state."""
WORK = {
    ViState.PLACED: Work.CREATE,
    ViState.CREATED: Work.START,
    ViState.FAILING: Work.KILL,
    ViState.STOPPING: Work.STOP,
    ViState.DELETING: Work.DELETE,
}
"""What has to be done with the container in a state, to get to the next."""
HAS_RUN = (ViState.BOOTING, ViState.WAITING, ViState.LAUNCHING, ViState.RUNNING)
"""Its container is there and was started."""
