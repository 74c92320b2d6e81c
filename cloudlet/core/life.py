"""One VI from its creation to its end: what follows what, restarts, back-off, quarantine.

    PLACED -> CREATED -> BOOTING -> LAUNCHING -> RUNNING
    a standby: BOOTING -> WAITING, until it is needed; then LAUNCHING
    any of them, on a failure: FAILING -> BACKING_OFF -> CREATED ... or QUARANTINED
    any, when it is to leave: STOPPING -> DELETING -> GONE

At most one piece of work is under way with a container. What a node did not answer is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from packetcloud.cloudlet.core.allotment import allotment_of
from packetcloud.cloudlet.core.commands import Command, DoWork, Note, SendLaunch, SendStop
from packetcloud.cloudlet.core.events import Outcome
from packetcloud.cloudlet.core.instances import Role, Vi, ViState, Work
from packetcloud.cloudlet.core.stages import LaunchTimes, Stage
from packetcloud.cloudlet.core.states import HAS_RUN, NEXT, WORK
from packetcloud.cloudlet.core.values import CloudletSettings, RestartPolicy, ServiceWish


class Life:
    """Leads each VI through its states.

    Args:
        random: uniform in 0..1, for the jitter of back-off.
        boot_cpus: what a VI may have for its start now.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        random: Callable[[], float],
        boot_cpus: Callable[[Vi], float],
    ) -> None:
        self.settings = settings
        self._random = random
        self._boot_cpus = boot_cpus

    def advance(self, vi: Vi, now: float) -> list[Command]:
        """Begin what the state of a VI asks for, if nothing is under way with it."""
        if vi.pending is not None:
            return []
        if vi.is_astray and self._needs_limits(vi):
            return self._begin(vi, Work.RESTORE, now)
        if self._needs_limits(vi) and (vi.resize_to is not None or self._is_misfit(vi)):
            return self._begin(vi, Work.RESIZE, now)
        if vi.state is ViState.WAITING and vi.role is not Role.STANDBY:
            return self._launch(vi, now)
        work = WORK.get(vi.state)
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
            return self._again_later(vi, work, now)
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
                    vi.why = text
                    return self._again_later(vi, work, now)
                self._become(vi, ViState.GONE)
            case Work.RESIZE:
                if outcome is Outcome.MISSING:
                    vi.resize_to = None
                    if vi.state is not ViState.CREATED:
                        return self.failed(vi, "its container is gone", now)
                    self._become(vi, ViState.PLACED)
                elif outcome is Outcome.DONE:
                    self._resized(vi)
                elif vi.resize_to is not None:
                    vi.resize_to = None
                elif self._needs_limits(vi):
                    return self._not_resized(vi, text, now)
            case Work.RESTORE:
                vi.is_astray = outcome not in (Outcome.DONE, Outcome.MISSING)
                if outcome is not Outcome.DONE:
                    why = f"its container cannot be put right: {text or 'it is gone'}"
                    return notes + self.failed(vi, why, now)  # and put right when it is stopped
                self._given(vi)
            case _:
                pass  # the VI took another turn meanwhile; `advance` goes on from there
        if vi.is_leaving and vi.state not in (ViState.STOPPING, ViState.DELETING, ViState.GONE):
            return notes + self.leave(vi, now)
        return notes + self.advance(vi, now)

    def link_up(self, vi: Vi, is_launched: bool, now: float) -> list[Command]:
        """A VI called: give it its service, or take it over as it runs."""
        vi.has_link, vi.was_launched, vi.heard_at = True, is_launched, now
        vi.reached(Stage.CALLED, now)
        if vi.state is ViState.STOPPING:
            return [SendStop(vi.number)]
        if is_launched and vi.role is Role.STANDBY:
            return self.failed(vi, "it runs a service that nobody gave it", now)
        if is_launched:
            if vi.state in (ViState.BOOTING, ViState.LAUNCHING):
                self._run(vi, now)
            return self.advance(vi, now)
        if vi.state is ViState.WAITING or vi.role is Role.STANDBY:
            return self._wait(vi, now)
        if vi.state is ViState.BOOTING:
            return self._launch(vi, now)
        if vi.state is ViState.LAUNCHING:
            return [SendLaunch(vi.number)]
        if vi.state is ViState.RUNNING:  # its container was started again behind our back
            return self.failed(vi, "it began anew by itself", now)
        return []

    def link_down(self, vi: Vi, now: float) -> None:
        """The link ended; who does not call again in time is taken for hung."""
        vi.has_link = False
        if vi.state is ViState.WAITING:
            vi.due_at = now + self.settings.boot_limit_s

    def ready(self, vi: Vi, now: float) -> list[Command]:
        """The service started; what it borrowed for that goes back."""
        if vi.state is not ViState.LAUNCHING:
            return []
        vi.reached(Stage.READY, now)
        self._run(vi, now)
        return self.advance(vi, now)

    def alive(self, vi: Vi, status: Mapping[str, object], now: float) -> None:
        """A sign of life came: what the VI says of itself."""
        vi.status, vi.heard_at = status, now
        vi.is_attached = status.get("attachment") == "attached"
        if vi.is_attached:
            vi.reached(Stage.ATTACHED, now)
        if status.get("answered"):
            vi.reached(Stage.FIRST_CHUNK, now)
        if vi.state is ViState.RUNNING:
            vi.due_at = now + self._hang_s(vi)

    def failed(self, vi: Vi, why: str, now: float, *, for_good: bool = False) -> list[Command]:
        """A VI ended, hangs, or does not start: kill what is left, and try again later."""
        if vi.state not in (*HAS_RUN, ViState.CREATED, ViState.FAILING):
            return []
        if vi.state is not ViState.FAILING:
            vi.restarts += vi.state in HAS_RUN
            self._count_crash(vi, now)
            self._become(vi, ViState.FAILING)
        vi.why = why
        vi.is_attached = vi.has_link = False
        vi.due_at = math.inf
        vi.is_condemned |= for_good
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
        if vi.pending is not None or vi.state not in (*HAS_RUN, ViState.CREATED):
            return []
        vi.why = "its container is gone"
        vi.is_attached = vi.has_link = False
        vi.restarts += vi.state in HAS_RUN
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
        if vi.state in HAS_RUN:
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
        vi.backoff_count = 0
        vi.pardon()
        if vi.state in (ViState.QUARANTINED, ViState.BACKING_OFF):
            return self._start_again(vi, now)
        if vi.state in HAS_RUN:
            vi.restarts += 1
            self._become(vi, ViState.FAILING)
            vi.why = "restarted by an operator"
            vi.due_at = math.inf
            return self.advance(vi, now)
        return []

    def resume(self, vi: Vi, now: float) -> None:
        """Go on with a VI of an earlier run of the controller, whose times are by our clock now.

        What runs calls again, and says whether its service does; the next start of one that
        crashed is due when it was, and no later than its policy would have it.
        """
        starts_at, vi.due_at = vi.due_at, math.inf
        if vi.state in (ViState.WAITING, ViState.LAUNCHING, ViState.RUNNING):
            vi.state = ViState.BOOTING
        if vi.state is ViState.BOOTING:
            vi.due_at = now + self.settings.boot_limit_s
        elif vi.state is ViState.BACKING_OFF:
            vi.due_at = now + self.settings.retry_s
            if starts_at != math.inf:  # an earlier version did not write it down
                latest = now + self._restart_policy(vi).longest_delay_s
                vi.due_at = max(vi.due_at, min(starts_at, latest))

    def retry(self, vi: Vi, now: float) -> list[Command]:
        """Repeat what a node did not answer."""
        vi.retry_at = math.inf
        return [] if vi.pending is None else self._begin(vi, vi.pending, now)

    def due(self, vi: Vi, now: float) -> list[Command]:
        """Act on a state that lasted too long."""
        vi.due_at = math.inf
        match vi.state:
            case ViState.BACKING_OFF:
                return self._start_again(vi, now)
            case ViState.BOOTING | ViState.WAITING:
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
        vi.pending, vi.retry_at = work, math.inf
        vi.touched_at = now
        if work in (Work.START, Work.CREATE):
            vi.is_attached = vi.has_link = False
            if vi.launch is None or Stage.STARTED in vi.launch.took_s:
                vi.launch = LaunchTimes(now)
        if work is Work.CREATE:
            vi.is_astray = False
        vi_type = vi.vi_type
        if work is Work.RESIZE:
            vi_type = vi.resize_to or vi.vi_type
        vi.giving = allotment_of(vi, self.settings, vi_type)
        limit_s = self.settings.stop_limit_s if work is Work.STOP else 0.0
        return [DoWork(vi.node, vi.number, work, vi_type, limit_s, vi.giving)]

    def _again_later(self, vi: Vi, work: Work, now: float) -> list[Command]:
        vi.pending = work  # so that nothing else begins until it is repeated
        vi.retry_at = now + self.settings.retry_s
        return []

    def _needs_limits(self, vi: Vi) -> bool:
        """Tell whether it has a container that runs, or is about to, and is to stay."""
        return not vi.is_leaving and (vi.state is ViState.CREATED or vi.state in HAS_RUN)

    def _is_misfit(self, vi: Vi) -> bool:
        """Tell whether its container has other limits than it should have."""
        return not vi.allotted.is_about(allotment_of(vi, self.settings, vi.vi_type))

    def _given(self, vi: Vi) -> None:
        assert vi.giving is not None, "the work began with it"
        vi.allotted = vi.giving

    def _resized(self, vi: Vi) -> None:
        self._given(vi)
        vi.vi_type = vi.resize_to or vi.vi_type
        vi.resize_to = None

    def _not_resized(self, vi: Vi, text: str, now: float) -> list[Command]:
        """Go on without what was borrowed for a start; what else a VI must have is given again."""
        if vi.boot_cpus:
            vi.boot_cpus = 0.0
            return self.advance(vi, now)
        why = f"its limits cannot be set: {text}"
        if vi.state is ViState.CREATED or (
            vi.state is ViState.WAITING and vi.role is not Role.STANDBY
        ):
            return self.failed(vi, why, now)
        notes: list[Command] = []
        if vi.why != why:
            vi.why = why
            notes.append(Note(f"{vi.service}/{vi.number}: {why}", True))
        return notes + self._again_later(vi, Work.RESIZE, now)

    def _start_again(self, vi: Vi, now: float) -> list[Command]:
        self._become(vi, ViState.CREATED)
        vi.due_at = math.inf
        vi.boot_cpus = self._boot_cpus(vi)
        return self.advance(vi, now)

    def _launch(self, vi: Vi, now: float) -> list[Command]:
        self._become(vi, ViState.LAUNCHING)
        vi.ready_at = None
        vi.due_at = now + self.settings.launch_limit_s
        vi.reached(Stage.LAUNCHED, now)
        return [SendLaunch(vi.number)]

    def _wait(self, vi: Vi, now: float) -> list[Command]:
        """A standby called: it gives back what it borrowed, and waits."""
        if vi.state is ViState.BOOTING:
            self._become(vi, ViState.WAITING)
            vi.boot_cpus = 0.0
        if vi.state is ViState.WAITING:
            vi.due_at = math.inf
            vi.why = ""
        return self.advance(vi, now)

    def _created(self, vi: Vi, outcome: Outcome, text: str, now: float) -> None:
        if outcome is Outcome.DONE:
            self._become(vi, ViState.CREATED)
            vi.reached(Stage.CREATED, now)
            self._given(vi)
            return
        vi.why = text
        self._count_crash(vi, now)
        self._wait_or_quarantine(vi, now)

    def _started(self, vi: Vi, outcome: Outcome, text: str, now: float) -> bool:
        if outcome is Outcome.DONE:
            self._become(vi, ViState.BOOTING)
            vi.reached(Stage.STARTED, now)
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
        if vi.is_condemned or (limit and len(vi.crashes) >= limit):
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
        vi.boot_cpus = 0.0
        if vi.ready_at is None:  # or it runs since before this controller began
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
