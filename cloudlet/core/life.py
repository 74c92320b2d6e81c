"""One VI from its creation to its end: what follows what, restarts, back-off, quarantine.

    PLACED -> CREATED -> BOOTING -> LAUNCHING -> RUNNING
    any of them, on a failure: FAILING -> BACKING_OFF -> CREATED ... or QUARANTINED
    any, when it is to leave: STOPPING -> DELETING -> GONE

At most one piece of work is under way with a container. What a node did not answer is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from packetcloud.cloudlet.core.commands import Command, DoWork, Note, SendLaunch, SendStop
from packetcloud.cloudlet.core.events import Outcome
from packetcloud.cloudlet.core.instances import Vi, ViState, Work
from packetcloud.cloudlet.core.values import CloudletSettings, RestartPolicy, ServiceWish

NEXT: dict[ViState, frozenset[ViState]] = {
    ViState.PLACED: frozenset(
        {ViState.CREATED, ViState.BACKING_OFF, ViState.QUARANTINED, ViState.DELETING}
    ),
    ViState.CREATED: frozenset(
        {ViState.BOOTING, ViState.PLACED, ViState.FAILING, ViState.STOPPING, ViState.DELETING}
    ),
    ViState.BOOTING: frozenset(
        {ViState.LAUNCHING, ViState.RUNNING, ViState.FAILING, ViState.PLACED, ViState.STOPPING}
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
_WORK = {
    ViState.PLACED: Work.CREATE,
    ViState.CREATED: Work.START,
    ViState.FAILING: Work.KILL,
    ViState.STOPPING: Work.STOP,
    ViState.DELETING: Work.DELETE,
}
"""What has to be done with the container in a state, to get to the next."""
_HAS_RUN = (ViState.BOOTING, ViState.LAUNCHING, ViState.RUNNING)


class Life:
    """Leads each VI through its states.

    Args:
        random: uniform in 0..1, for the jitter of back-off.
    """

    def __init__(self, settings: CloudletSettings, random: Callable[[], float]) -> None:
        self.settings = settings
        self._random = random

    def advance(self, vi: Vi, now: float) -> list[Command]:
        """Begin what the state of a VI asks for, if nothing is under way with it."""
        if vi.pending is not None:
            return []
        if vi.resize_to is not None and vi.state in _HAS_RUN:
            return self._begin(vi, Work.RESIZE, now)
        work = _WORK.get(vi.state)
        return [] if work is None else self._begin(vi, work, now)

    def work_done(
        self, vi: Vi, work: Work, outcome: Outcome, text: str, now: float
    ) -> list[Command]:
        """Go on after a node ended a piece of work."""
        if vi.pending is not work:
            return []  # a late answer to what was begun before the controller started again
        vi.pending = None
        vi.touched_at = now
        notes: list[Command] = []
        if work in (Work.CREATE, Work.START) and outcome in (Outcome.REFUSED, Outcome.NO_ROOM):
            notes.append(Note(f"{vi.service}/{vi.number}: cannot {work.value}: {text}", True))
        if outcome is Outcome.UNREACHABLE:
            vi.why = text
            vi.pending = work  # so that nothing else begins until it is repeated
            vi.due_at = now + self.settings.retry_s
            return []
        match work:
            case Work.CREATE if vi.state is ViState.PLACED:
                self._created(vi, outcome, text, now)
            case Work.START if vi.state is ViState.CREATED:
                if self._started(vi, outcome, text, now) and vi.has_link and not vi.is_leaving:
                    return self.link_up(vi, vi.was_launched, now)  # it called before the answer
            case Work.KILL if vi.state is ViState.FAILING:
                self._wait_or_quarantine(vi, now)
            case Work.STOP if vi.state is ViState.STOPPING:
                self._become(vi, ViState.DELETING)
            case Work.DELETE if vi.state is ViState.DELETING:
                if outcome is Outcome.REFUSED:
                    vi.why, vi.pending = text, work
                    vi.due_at = now + self.settings.retry_s
                    return []
                self._become(vi, ViState.GONE)
            case Work.RESIZE:
                if outcome is Outcome.DONE and vi.resize_to is not None:
                    vi.vi_type = vi.resize_to
                vi.resize_to = None
                if outcome is Outcome.MISSING:
                    return self.failed(vi, "its container is gone", now)
            case _:
                pass  # the VI took another turn meanwhile; `advance` goes on from there
        if vi.is_leaving and vi.state not in (ViState.STOPPING, ViState.DELETING, ViState.GONE):
            return notes + self.leave(vi, now)
        return notes + self.advance(vi, now)

    def link_up(self, vi: Vi, is_launched: bool, now: float) -> list[Command]:
        """A VI called: give it its service, or take it over as it runs."""
        vi.has_link, vi.was_launched = True, is_launched
        if vi.state is ViState.STOPPING:
            return [SendStop(vi.number)]
        if is_launched:
            if vi.state in (ViState.BOOTING, ViState.LAUNCHING):
                self._run(vi, now)
            return []
        if vi.state is ViState.BOOTING:
            self._become(vi, ViState.LAUNCHING)
            vi.due_at = now + self.settings.launch_limit_s
            return [SendLaunch(vi.number)]
        if vi.state is ViState.LAUNCHING:
            return [SendLaunch(vi.number)]
        if vi.state is ViState.RUNNING:  # its container was started again behind our back
            return self.failed(vi, "it began anew by itself", now)
        return []

    def link_down(self, vi: Vi) -> None:
        """The link ended; who does not call again in time is taken for hung."""
        vi.has_link = False

    def ready(self, vi: Vi, now: float) -> list[Command]:
        """The service started."""
        if vi.state is ViState.LAUNCHING:
            self._run(vi, now)
        return []

    def alive(self, vi: Vi, now: float) -> None:
        """A sign of life came."""
        if vi.state is ViState.RUNNING:
            vi.due_at = now + self._hang_s(vi)

    def failed(self, vi: Vi, why: str, now: float, *, for_good: bool = False) -> list[Command]:
        """A VI ended, hangs, or does not start: kill what is left, and try again later."""
        if vi.state not in (*_HAS_RUN, ViState.CREATED, ViState.FAILING):
            return []
        if vi.state is not ViState.FAILING:
            vi.restarts += vi.state in _HAS_RUN
            self._count_crash(vi, now)
            self._become(vi, ViState.FAILING)
        vi.why = why
        vi.is_attached = vi.has_link = False
        vi.due_at = math.inf
        if for_good:
            vi.backoff_count = -1
        if vi.is_leaving:
            return self.leave(vi, now)
        return [Note(f"{vi.service}/{vi.number}: {why}", True), *self.advance(vi, now)]

    def missing(self, vi: Vi, now: float) -> list[Command]:
        """Its container is not on its node: make it anew, later if that happens often."""
        if vi.state in (ViState.STOPPING, ViState.DELETING):
            if vi.state is ViState.STOPPING:
                self._become(vi, ViState.DELETING)
            self._become(vi, ViState.GONE)
            return []
        if vi.pending is not None or vi.state not in (*_HAS_RUN, ViState.CREATED):
            return []
        vi.why = "its container is gone"
        vi.is_attached = vi.has_link = False
        vi.restarts += vi.state in _HAS_RUN
        self._count_crash(vi, now)
        self._become(vi, ViState.PLACED)
        vi.due_at = math.inf
        return [Note(f"{vi.service}/{vi.number}: {vi.why}", True), *self.advance(vi, now)]

    def leave(self, vi: Vi, now: float) -> list[Command]:
        """Remove a VI: an orderly end where it runs, then its container."""
        vi.is_leaving = True
        if vi.state in (ViState.STOPPING, ViState.DELETING, ViState.GONE):
            return self.advance(vi, now)
        if vi.pending is not None:
            return []  # `work_done` comes back here
        commands: list[Command] = []
        if vi.state in _HAS_RUN:
            if vi.has_link:
                commands.append(SendStop(vi.number))
            self._become(vi, ViState.STOPPING)
        else:
            self._become(vi, ViState.DELETING)
        vi.due_at = math.inf
        return commands + self.advance(vi, now)

    def quarantine(self, vi: Vi, why: str, now: float) -> list[Command]:
        """Stop a VI that misbehaved; only an operator lets it start again."""
        return self.failed(vi, why, now, for_good=True)

    def release(self, vi: Vi, now: float) -> list[Command]:
        """Start a VI again at an operator's wish, without what it is charged with."""
        vi.crashes.clear()
        vi.offences.clear()
        vi.backoff_count = 0
        vi.is_restricted = False
        if vi.state in (ViState.QUARANTINED, ViState.BACKING_OFF):
            self._become(vi, ViState.CREATED)
            vi.due_at = math.inf
            return self.advance(vi, now)
        if vi.state in _HAS_RUN:
            vi.restarts += 1
            self._become(vi, ViState.FAILING)
            vi.why = "restarted by an operator"
            vi.due_at = math.inf
            return self.advance(vi, now)
        return []

    def due(self, vi: Vi, now: float) -> list[Command]:
        """Act on a state that lasted too long, or repeat what a node did not answer."""
        vi.due_at = math.inf
        if vi.pending is not None:
            work, vi.pending = vi.pending, None
            return self._begin(vi, work, now)
        match vi.state:
            case ViState.BACKING_OFF:
                self._become(vi, ViState.CREATED)
                return self.advance(vi, now)
            case ViState.BOOTING:
                limit = self.settings.boot_limit_s
                return self.failed(vi, f"did not call within {limit:g} s", now)
            case ViState.LAUNCHING:
                limit = self.settings.launch_limit_s
                return self.failed(vi, f"not ready within {limit:g} s", now)
            case ViState.RUNNING:
                return self.failed(vi, f"no sign of life for {self._hang_s(vi):g} s", now)
            case _:
                return []

    def _begin(self, vi: Vi, work: Work, now: float) -> list[Command]:
        vi.pending = work
        vi.touched_at = now
        if work in (Work.START, Work.CREATE):
            vi.is_attached = vi.has_link = False
        vi_type = vi.vi_type
        if work is Work.RESIZE:
            vi_type = vi.resize_to or vi.vi_type
        limit_s = self.settings.stop_limit_s if work is Work.STOP else 0.0
        return [DoWork(vi.node, vi.number, work, vi_type, limit_s)]

    def _created(self, vi: Vi, outcome: Outcome, text: str, now: float) -> None:
        if outcome is Outcome.DONE:
            self._become(vi, ViState.CREATED)
            return
        vi.why = text
        self._count_crash(vi, now)
        self._wait_or_quarantine(vi, now)

    def _started(self, vi: Vi, outcome: Outcome, text: str, now: float) -> bool:
        if outcome is Outcome.DONE:
            self._become(vi, ViState.BOOTING)
            vi.due_at = now + self.settings.boot_limit_s
            return True
        if outcome is Outcome.MISSING:
            self._become(vi, ViState.PLACED)
        else:
            vi.why = text
            self._count_crash(vi, now)
            self._become(vi, ViState.FAILING)
        return False

    def _wait_or_quarantine(self, vi: Vi, now: float) -> None:
        policy = self._restart_policy(vi)
        limit = policy.quarantine_crashes
        if vi.backoff_count < 0 or (limit and len(vi.crashes) >= limit):
            self._become(vi, ViState.QUARANTINED)
            vi.due_at = math.inf
            return
        self._become(vi, ViState.BACKING_OFF)
        delay = min(policy.first_delay_s * 2.0**vi.backoff_count, policy.longest_delay_s)
        vi.backoff_count = min(vi.backoff_count + 1, 30)
        vi.due_at = now + delay * (0.5 + self._random() / 2)

    def _count_crash(self, vi: Vi, now: float) -> None:
        policy = self._restart_policy(vi)
        if vi.ready_at is not None and now - vi.ready_at >= policy.stable_s:
            vi.backoff_count = 0
        vi.ready_at = None
        vi.crashes.append(now)
        while vi.crashes[0] <= now - policy.quarantine_window_s:
            vi.crashes.popleft()
        while len(vi.crashes) > max(policy.quarantine_crashes, 1):
            vi.crashes.popleft()

    def _run(self, vi: Vi, now: float) -> None:
        self._become(vi, ViState.RUNNING)
        vi.ready_at = now
        vi.why = ""
        vi.due_at = now + self._hang_s(vi)

    def _become(self, vi: Vi, state: ViState) -> None:
        if state not in NEXT[vi.state]:
            raise AssertionError(f"VI {vi.number}: {vi.state.value} -> {state.value}")
        vi.state = state

    def _service(self, vi: Vi) -> ServiceWish | None:
        return self.settings.services.get(vi.service)

    def _restart_policy(self, vi: Vi) -> RestartPolicy:
        service = self._service(vi)
        return service.restart if service is not None else RestartPolicy()

    def _hang_s(self, vi: Vi) -> float:
        service = self._service(vi)
        return service.hang_s if service is not None else 10.0
