"""The parts of `packetcloud bench domain`, each with its control, and what is wrong with what.

A control is the same judge over somebody who does it as it must not be done: it has to find that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from packetcloud.testbed.bench.billing import RECORDS_COUNT, measure_billing
from packetcloud.testbed.bench.domain_place import (
    DATABASES,
    RACE_PLACES,
    DomainPlace,
    EmptyDatabases,
)
from packetcloud.testbed.bench.domain_races import judge_races, measure_rate, naive_races, race
from packetcloud.testbed.bench.failover import measure_failover
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.reservations import (
    REPORT_EVERY_S,
    REPORTING_COUNT,
    measure_reports,
    measure_reservations,
)
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.bench.stale_owner import measure_stale
from packetcloud.testbed.processes import Children

NAIVE_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class DomainPlan:
    """What to measure, and how much of it."""

    parts: Collection[str] = ("rate", "races", "billing", "reports", "failover", "stale")
    databases: Sequence[str] = DATABASES
    rate_s: float = 10.0
    rounds: int = 1000
    """Races."""
    records: int = RECORDS_COUNT
    reporting: int = REPORTING_COUNT
    """Cloudlets that report."""
    failover_s: float = 300.0
    kill_every_s: float = 10.0
    control_s: float = 10.0
    """Of the failover with careless clients."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a part has: its plan, its databases, its processes."""

    plan: DomainPlan
    databases: EmptyDatabases
    children: Children
    progress: Progress

    def place(self) -> DomainPlace:
        """Return a domain in a new database."""
        return DomainPlace(self.databases.make(), self.children.directory / "controllers")


def measure_part(part: str, experiment: Experiment) -> Document:
    """Measure a part; return its section of the report.

    Raises:
        ChildError: a process did not do what it must.
    """
    return _PARTS[part](experiment)


def wrong_with(part: str, found: Mapping[str, float]) -> Iterator[str]:
    """Yield what a part found that must not be, and controls that found nothing."""
    for key in _MUST_BE_ZERO.get(part, ()):
        if found[key]:
            yield f"{key}: {found[key]:g}, must be 0"
    for key in _MUST_BE_FOUND.get(part, ()):
        if not found[key]:
            yield f"{key}: the control found nothing, so this part proves nothing"


def _rate(experiment: Experiment) -> Document:
    place = experiment.place()
    controller = place.start(experiment.children, "rate")
    seconds = experiment.plan.rate_s
    found = asdict(measure_rate(place, controller.child, controller.address, seconds))
    controller.child.stop()
    without = measure_reservations(experiment.databases.make(), seconds)
    return found | {"without_http": asdict(without)}


def _races(experiment: Experiment) -> Document:
    place = experiment.place()
    controller = place.start(experiment.children, "races")
    told = race(place, controller.address, experiment.plan.rounds, experiment.progress)
    controller.child.stop()
    control = judge_races(asyncio.run(naive_races(NAIVE_ROUNDS)), RACE_PLACES)
    return asdict(judge_races(told, RACE_PLACES)) | {
        "places": RACE_PLACES,
        "control_oversold": control.oversold,
        "control_other_answers": control.other_answers,
    }


def _billing(experiment: Experiment) -> Document:
    records = experiment.plan.records
    return asdict(measure_billing(experiment.databases.make(), records, experiment.progress))


def _reports(experiment: Experiment) -> Document:
    cloudlets = experiment.plan.reporting
    found = measure_reports(experiment.databases.make(), cloudlets)
    return asdict(found) | {"cloudlets": cloudlets, "every_s": REPORT_EVERY_S}


def _failover(experiment: Experiment) -> Document:
    plan, children = experiment.plan, experiment.children
    timing = plan.failover_s, plan.kill_every_s
    found = measure_failover(experiment.place(), children, *timing, experiment.progress)
    timing = plan.control_s, plan.control_s / 2
    control = measure_failover(
        experiment.place(), children, *timing, experiment.progress, is_careless=True
    )
    return asdict(found) | {"control_lost": control.lost, "control_doubled": control.doubled}


def _stale(experiment: Experiment) -> Document:
    children = experiment.children
    found = measure_stale(experiment.place().url, children)
    control = measure_stale(experiment.place().url, children, is_fenced=False)
    return asdict(found) | {"control_accepted": control.accepted}


_PARTS: dict[str, Callable[[Experiment], Document]] = {
    "rate": _rate,
    "races": _races,
    "billing": _billing,
    "reports": _reports,
    "failover": _failover,
    "stale": _stale,
}
PARTS = tuple(_PARTS)
_MUST_BE_ZERO = {
    "races": ("oversold", "short_rounds", "other_answers", "failed"),
    "billing": ("errors",),
    "failover": ("lost", "doubled"),
    "stale": ("accepted",),
}
_MUST_BE_FOUND = {
    "races": ("control_oversold", "control_other_answers"),
    "billing": ("control_errors",),
    "failover": ("control_lost", "control_doubled"),
    "stale": ("refused", "control_accepted"),
}
