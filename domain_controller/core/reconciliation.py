"""What cloudlets run against what is reserved: findings, decisions with reasons, figures of drift.

Source: docs/reference/reservations.md, "Advice and drift".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from packetcloud.domain_controller.core.calendar import Conflict
from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.reservations import Reservation, Wanted
from packetcloud.domain_controller.core.slots import SECOND_MS

GRACE_MS = 60 * SECOND_MS
"""VIs take time to start and to end: what differs for so long is drift."""


class Kind(StrEnum):
    """In what a report differs from what is reserved."""

    MISSING = "missing"
    """VIs should run and none does."""
    ORPHAN = "orphan"
    """VIs of a reservation that is over, or that nobody knows."""
    WRONG_TYPE = "wrong_type"
    WRONG_COUNT = "wrong_count"
    """More or fewer than should run; none should, outside of a slot that repeats."""
    OVERBOOKED = "overbooked"
    """More is held than the nodes have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference."""

    kind: Kind
    cloudlet: str
    reservation: str
    text: str
    vis_count: int
    """VIs too many or too few."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same finding in the next report."""
        return self.kind.value, self.cloudlet, self.reservation


@dataclass(frozen=True, slots=True)
class Remind:
    """Tell the cloudlet again what it should make of a reservation: the event `Forgotten`."""

    cloudlet: str
    reservation: str
    why: str


@dataclass(frozen=True, slots=True)
class StopOrphan:
    """Tell the cloudlet to stop what nobody reserved."""

    cloudlet: str
    reservation: str
    why: str


@dataclass(frozen=True, slots=True)
class ShowOnly:
    """Nothing can be done from here; people must see it."""

    cloudlet: str
    why: str


Decision = Remind | StopOrphan | ShowOnly


@dataclass(frozen=True, slots=True)
class Drift:
    """Figures for metrics."""

    counts: Mapping[Kind, int] = field(default_factory=dict)
    """Findings that have lasted longer than the grace, by kind; every kind is there."""
    vis_count: int = 0
    oldest_ms: int = 0
    """How long the oldest of them has lasted."""


def compare(
    reservations: Iterable[Reservation],
    report: CloudletReport,
    overbooked: Conflict | None = None,
) -> list[Finding]:
    """Return in what a cloudlet differs from what it was told and said yes to.

    `reservations`: all that have a directive for this cloudlet; those that have none are over.
    """
    running: dict[str, dict[str, int]] = defaultdict(dict)
    for one in report.running:
        running[one.reservation][one.vi_type] = one.count
    findings: list[Finding] = []
    for reservation in reservations:
        directive = reservation.directive(report.cloudlet)
        if directive is None or directive.wanted is Wanted.GONE:
            continue  # what still runs of it is an orphan
        vis = running.pop(reservation.name, {})
        if directive.is_answered:
            wanted = directive.count if directive.wanted is Wanted.RUNNING else 0
            findings += _differences(reservation, report.cloudlet, wanted, vis)
    for name, vis in running.items():
        count = sum(vis.values())
        text = f"{report.cloudlet} runs {count} VIs of reservation {name}, which has no place there"
        findings.append(Finding(Kind.ORPHAN, report.cloudlet, name, text, count))
    if overbooked is not None:
        text = (
            f"{report.cloudlet} has less than is held from {overbooked.begin_ms} to "
            f"{overbooked.end_ms}: {overbooked.text}"
        )
        findings.append(Finding(Kind.OVERBOOKED, report.cloudlet, "", text, 0))
    return findings


def decide(
    findings: Iterable[Finding],
    since: Mapping[tuple[str, str, str], int],
    now_ms: int,
    grace_ms: int = GRACE_MS,
) -> tuple[list[Decision], dict[tuple[str, str, str], int], Drift]:
    """Return what to do about findings that last, since when each lasts, and the figures.

    `since` is what the last call returned for the same cloudlets.
    """
    decisions: list[Decision] = []
    lasting: dict[tuple[str, str, str], int] = {}
    counts = dict.fromkeys(Kind, 0)
    vis_count = oldest_ms = 0
    for finding in findings:
        first_ms = min(since.get(finding.key, now_ms), now_ms)
        lasting[finding.key] = first_ms
        age_ms = now_ms - first_ms
        if age_ms < grace_ms:
            continue
        counts[finding.kind] += 1
        vis_count += finding.vis_count
        oldest_ms = max(oldest_ms, age_ms)
        decisions.append(_decision(finding, f"{finding.text}, for {age_ms // 1000} s"))
    return decisions, lasting, Drift(counts, vis_count, oldest_ms)


def _differences(
    reservation: Reservation, cloudlet: str, wanted: int, vis: Mapping[str, int]
) -> list[Finding]:
    name, vi_type = reservation.name, reservation.wish.vi_type
    findings: list[Finding] = []
    others = {one: count for one, count in vis.items() if one != vi_type}
    if others:
        count = sum(others.values())
        types = ", ".join(sorted(others))
        text = f"{cloudlet} runs {count} VIs of {name} as {types}; reserved: {vi_type}"
        findings.append(Finding(Kind.WRONG_TYPE, cloudlet, name, text, count))
    found = vis.get(vi_type, 0)
    if found != wanted:
        kind = Kind.MISSING if not vis else Kind.WRONG_COUNT
        text = f"{cloudlet} runs {found} VIs of {name} as {vi_type}; wanted now: {wanted}"
        findings.append(Finding(kind, cloudlet, name, text, abs(found - wanted)))
    return findings


def _decision(finding: Finding, why: str) -> Decision:
    match finding.kind:
        case Kind.ORPHAN:
            return StopOrphan(finding.cloudlet, finding.reservation, why)
        case Kind.OVERBOOKED:
            return ShowOnly(finding.cloudlet, why)
        case Kind.MISSING | Kind.WRONG_TYPE | Kind.WRONG_COUNT:
            return Remind(finding.cloudlet, finding.reservation, why)
