"""What becomes of a VI that does what it must not, or is not what it must be.

A container that breaks the policy is stopped; one that differs from what the controller asked for
is put right. Source: MobiArch'13 paper, section 3.5; docs/how-to/inspect-and-punish.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum

from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.events import ViAtRouter
from packetcloud.cloudlet.core.instances import MAX_EVIDENCE_COUNT, Vi, ViState
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.values import ConductPolicy

EGRESS_DENIED = "egress-denied"
"""The kind of violation that the router knows nothing of."""
MAX_RESTRICTION_S = 86400.0
"""However often it was restricted before."""
_PUT_RIGHT_IN = (
    *(ViState.BOOTING, ViState.WAITING, ViState.LAUNCHING, ViState.RUNNING),
    *(ViState.BACKING_OFF, ViState.QUARANTINED),
)
"""In the others its container is about to be made, changed or removed."""


class Measure(StrEnum):
    """What was done about a VI."""

    RESTORED = "restored"
    """Its container was another than was asked for, and is put right."""
    POLICY = "stopped-policy"
    """Its container was what none may be."""
    RESTRICTED = "restricted"
    RELEASED = "released"
    """Its restriction is over."""
    CONDUCT = "stopped-conduct"
    """It did too often what it may not do."""
    PARDONED = "pardoned"
    """An operator let it start again."""


class Conduct:
    """Judges VIs.

    Args:
        wall_s: returns seconds since 1970, for what is shown, and for what outlives this run.
    """

    def __init__(self, life: Life, wall_s: Callable[[], float]) -> None:
        self.measures: Counter[tuple[str, Measure]] = Counter()
        """By service, since this controller began."""
        self._life = life
        self._wall_s = wall_s

    def broken(self, vi: Vi, violations: tuple[str, ...], now: float) -> list[Command]:
        """The container is what none may be: stop it until an operator lets it start."""
        vi.is_astray = True  # whoever lets it start finds it put right
        if vi.state is ViState.QUARANTINED:
            return []
        why = f"its container is not as it must be: {'; '.join(violations)}"
        commands = self._life.quarantine(vi, why, now)
        if commands:
            self._note(vi, Measure.POLICY, f"stopped: {why}")
        return commands

    def astray(self, vi: Vi, differences: tuple[str, ...], now: float) -> list[Command]:
        """The container is not what was asked for: put it right, as soon as nothing else is done.

        What cannot be put right while it runs is stopped, put right and started again.
        """
        if vi.state not in _PUT_RIGHT_IN or vi.resize_to is not None or vi.is_astray:
            return []
        vi.is_astray = True
        self._note(vi, Measure.RESTORED, f"put right: {'; '.join(differences)}")
        text = f"its container was changed; {vi.record[-1].text}"
        return [Note(f"{vi.service}/{vi.number}: {text}", True), *self._life.advance(vi, now)]

    def judge(
        self, vi: Vi, at_router: ViAtRouter, boot: str, policy: ConductPolicy, now: float
    ) -> list[Command]:
        """Add what the router counted since the last time, and do what follows.

        Args:
            boot: of the router; another one has begun to count anew.

        Too many violations restrict it for a while, each time for longer; far too many, or one
        restriction too many, stop it until an operator lets it start again.
        """
        _note_offences(vi, at_router, boot, now)
        return self._decide(vi, _told(at_router), policy, now)

    def denied(
        self, vi: Vi, packets: int, per_violation: int, policy: ConductPolicy, now: float
    ) -> list[Command]:
        """Add tries to reach what the VI may not in the IP network, and do what follows.

        Args:
            per_violation: so many are one; 0: they are none.
        """
        if per_violation == 0 or not vi.is_judged:
            return []
        count, vi.denied_rest = divmod(vi.denied_rest + packets, per_violation)
        if count == 0:
            return []
        vi.offences.append((now, count))
        known = vi.violations.get(EGRESS_DENIED, 0) + count
        vi.violations = {**vi.violations, EGRESS_DENIED: known}
        return self._decide(vi, f"{EGRESS_DENIED} {known}", policy, now)

    def _decide(self, vi: Vi, told: str, policy: ConductPolicy, now: float) -> list[Command]:
        """Restrict or stop a VI for what it did within the window; `told` is the last of it."""
        total = _recent(vi, policy, now)
        if total >= policy.stop_violations:
            why = f"{total} violations within {policy.window_s:g} s"
            return self._stop(vi, why, told, now)
        if total < policy.restrict_violations or vi.is_restricted:
            return []
        if vi.restrictions >= policy.max_restrictions:
            why = f"{total} violations, after {vi.restrictions} restrictions"
            return self._stop(vi, why, told, now)
        vi.restrictions += 1
        length_s = _length_s(vi, policy)
        vi.is_restricted = True
        vi.restriction_ends_at = now + length_s
        vi.restricted_until_s = self._wall_s() + length_s
        number = f"{vi.restrictions} of {policy.max_restrictions}"
        vi.why = f"restricted for {length_s:g} s ({number}): {total} violations"
        self._note(vi, Measure.RESTRICTED, f"{vi.why}; {told}")
        return [Note(f"{vi.service}/{vi.number}: {vi.record[-1].text}", True)]

    def resume(self, vi: Vi, policy: ConductPolicy, now: float) -> None:
        """Go on with a restriction that an earlier run of the controller began."""
        if vi.is_restricted:
            left_s = vi.restricted_until_s - self._wall_s()
            vi.restriction_ends_at = now + min(max(0.0, left_s), _length_s(vi, policy))

    def due(self, vis: Iterable[Vi], now: float) -> list[Command]:
        """End the restrictions whose time is over; of a VI that was stopped an operator ends it."""
        commands: list[Command] = []
        for vi in vis:
            if now < vi.restriction_ends_at:
                continue
            vi.restriction_ends_at = math.inf
            if vi.state is ViState.QUARANTINED or vi.is_leaving:
                continue
            vi.is_restricted, vi.restricted_until_s = False, 0.0
            if vi.state is ViState.RUNNING:
                vi.why = ""  # in other states it says why the VI does not run
            vi.offences.clear()
            self._note(vi, Measure.RELEASED, "its restriction is over")
            commands.append(Note(f"{vi.service}/{vi.number}: its restriction is over"))
        return commands

    def pardoned(self, vi: Vi) -> None:
        """An operator lets a VI start again; what it is charged with is about to be dropped."""
        if vi.is_restricted or vi.restrictions or vi.state is ViState.QUARANTINED:
            self._note(vi, Measure.PARDONED, "started again by an operator, who drops all charges")

    def _stop(self, vi: Vi, why: str, told: str, now: float) -> list[Command]:
        if vi.state in (ViState.FAILING, ViState.BACKING_OFF, ViState.QUARANTINED):
            return []
        commands = self._life.quarantine(vi, why, now)
        if commands:
            self._note(vi, Measure.CONDUCT, f"stopped: {why}; {told}")
        return commands

    def _note(self, vi: Vi, measure: Measure, text: str) -> None:
        self.measures[vi.service, measure] += 1
        vi.charge(text, self._wall_s())


def _note_offences(vi: Vi, at_router: ViAtRouter, boot: str, now: float) -> None:
    """Add what the router counted since the last time."""
    counted = at_router.violations
    # It counts anew after its own restart, and for a VI that its table had lost for a while.
    is_anew = vi.counted_boot not in ("", boot) or any(
        counted.get(kind, 0) < count for kind, count in vi.counted.items()
    )
    before = {} if is_anew else vi.counted
    news = {kind: count - before.get(kind, 0) for kind, count in counted.items()}
    if any(news.values()):
        vi.offences.append((now, sum(news.values())))
        kinds = {*vi.violations, *news}
        vi.violations = {kind: vi.violations.get(kind, 0) + news.get(kind, 0) for kind in kinds}
        kept = (one for one in vi.evidence if one not in at_router.evidence)
        vi.evidence = (*kept, *at_router.evidence)[-MAX_EVIDENCE_COUNT:]
    vi.counted, vi.counted_boot = dict(counted), boot


def _recent(vi: Vi, policy: ConductPolicy, now: float) -> int:
    """Return how many there were within the window."""
    while vi.offences and vi.offences[0][0] <= now - policy.window_s:
        vi.offences.popleft()
    return sum(count for _, count in vi.offences)


def _length_s(vi: Vi, policy: ConductPolicy) -> float:
    doubled = policy.restrict_s * 2.0 ** min(max(0, vi.restrictions - 1), 30)
    return min(doubled, MAX_RESTRICTION_S)


def _told(at_router: ViAtRouter) -> str:
    """Return what the router said: counts, and the last chunk."""
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(at_router.violations.items()))
    if not at_router.evidence:
        return counts
    last = at_router.evidence[-1]
    return f"{counts}; last: chunk {last.chunk_id} of {last.source}: {last.text}"
