"""From one VI to its twin, with one owner at any time.

    STARTING   the twin starts elsewhere, and attaches to the router as `held`
    HOLDING    the old one gets no new tasks and finishes those that it has
    EXPORTING  its state comes to the controller
    IMPORTING  and goes to the twin
    COMMITTED  the twin is the owner; the router is told in one update; the old one is removed

Before COMMITTED everything is undone on a failure, or when it takes too long; afterwards it is only
completed. Source: design, section 8; docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.cloudlet.core.commands import (
    AwaitIdle,
    Command,
    DropState,
    ExportState,
    ImportState,
    Note,
    OperationEnded,
)
from packetcloud.cloudlet.core.events import IdleAnswer
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.table import RouterTable
from packetcloud.cloudlet.core.values import CloudletSettings

IDLE_RETRY_S = 0.2
"""Pause before the router is asked again whether a VI is idle, when it could not say so."""


class Step(StrEnum):
    """How far a migration is."""

    STARTING = "starting"
    HOLDING = "holding"
    EXPORTING = "exporting"
    IMPORTING = "importing"
    COMMITTED = "committed"


@dataclass(slots=True)
class Migration:
    """One VI on its way. The fields above the line are kept."""

    operation: int
    old: int
    twin: int
    step: Step = Step.STARTING

    # ---- not kept
    due_at: float = math.inf
    """When it has taken too long as a whole."""
    held_at: float | None = None
    """When the old one got no more tasks."""
    held_until: float = math.inf
    """When chunks have waited too long for it."""
    is_asked: bool = False
    """The router was asked to say when the old one is idle."""
    ask_at: float = math.inf
    """When it is to be asked again; infinite: at once."""
    held_by: int = 0
    """The version of the table by which it was held when the router was asked."""
    waits_for: str = ""
    """What it waits for while chunks wait, for people."""


class Migrations:
    """All migrations under way.

    Args:
        vis: by number.
        under_way: by the number of the old VI.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        vis: dict[int, Vi],
        under_way: dict[int, Migration],
        life: Life,
        table: RouterTable,
    ) -> None:
        self.settings = settings
        self.under_way = under_way
        self._vis = vis
        self._life = life
        self._table = table

    def of(self, vi: Vi) -> Migration | None:
        """Return the migration in which a VI is the old one or the twin."""
        if vi.number in self.under_way:
            return self.under_way[vi.number]
        if vi.role is Role.TWIN:
            return next((one for one in self.under_way.values() if one.twin == vi.number), None)
        return None

    def held(self) -> frozenset[int]:
        """Return the numbers of the old VIs that get no new tasks now."""
        steps = (Step.HOLDING, Step.EXPORTING, Step.IMPORTING)
        return frozenset(one.old for one in self.under_way.values() if one.step in steps)

    def begin(self, migration: Migration, now: float) -> None:
        """Take in a migration whose twin was just placed."""
        migration.due_at = now + self.settings.migration_limit_s
        self.under_way[migration.old] = migration

    def go_on(self, now: float) -> list[Command]:
        """Do for each migration what can be done now; after every event."""
        commands: list[Command] = []
        for migration in list(self.under_way.values()):
            commands += self._go_on(migration, now)
        return commands

    def idle(self, vi: Vi, answer: IdleAnswer | None, now: float) -> list[Command]:
        """The router answered whether the old one has a task left."""
        migration = self.under_way.get(vi.number)
        if migration is None or migration.step is not Step.HOLDING:
            return []
        migration.waits_for = self._lacking(answer, migration)
        if migration.waits_for:
            migration.is_asked = False  # asked again until `held_until`
            migration.ask_at = now + IDLE_RETRY_S
            return []
        if not self._has_state(vi):
            return self._commit(migration, now)
        migration.step = Step.EXPORTING
        return [ExportState(vi.number)]

    def exported(self, vi: Vi, is_done: bool, text: str, now: float) -> list[Command]:
        """The state of the old one is here, or cannot be had."""
        migration = self.under_way.get(vi.number)
        if migration is None or migration.step is not Step.EXPORTING:
            return [DropState(vi.number)] if is_done else []
        if not is_done:
            return self.abort(migration, f"its state cannot be had: {text}", now)
        migration.step = Step.IMPORTING
        return [ImportState(migration.old, migration.twin)]

    def imported(self, twin: Vi, is_done: bool, text: str, now: float) -> list[Command]:
        """The twin has the state, or cannot take it."""
        migration = self.of(twin)
        if migration is None or migration.step is not Step.IMPORTING:
            return []
        if not is_done:
            return self.abort(migration, f"the twin cannot take its state: {text}", now)
        return [DropState(migration.old), *self._commit(migration, now)]

    def abort(self, migration: Migration, why: str, now: float) -> list[Command]:
        """Undo a migration: the old one serves on, the twin goes."""
        del self.under_way[migration.old]
        commands: list[Command] = [
            Note(f"VI {migration.old} stays: {why}", True),
            OperationEnded(migration.operation, False, why, migration.old),
            DropState(migration.old),
        ]
        twin = self._vis.get(migration.twin)
        if twin is not None:
            if (old := self._vis.get(migration.old)) is not None:
                old.remember(twin)  # nobody gets rid of charges with a twin
            twin.role = Role.RETIRED
            twin.why = f"the migration was undone: {why}"
            commands += self._life.leave(twin, now)
        return commands

    def due(self, now: float) -> list[Command]:
        """Undo what took too long."""
        commands: list[Command] = []
        for migration in list(self.under_way.values()):
            if migration.step is Step.COMMITTED:
                continue
            if now >= migration.ask_at:
                migration.ask_at = math.inf  # `go_on` asks
            if now >= migration.held_until:
                limit = self.settings.hold_limit_s
                waits_for = f": {migration.waits_for}" if migration.waits_for else ""
                why = f"chunks waited {limit:g} s for it ({migration.step.value}{waits_for})"
                commands += self.abort(migration, why, now)
            elif now >= migration.due_at:
                limit = self.settings.migration_limit_s
                why = f"not done within {limit:g} s ({migration.step.value})"
                commands += self.abort(migration, why, now)
        return commands

    def next_timeout(self) -> float:
        """Return when `due` has something to do."""
        return min(
            (
                min(one.due_at, one.held_until, one.ask_at)
                for one in self.under_way.values()
                if one.step is not Step.COMMITTED
            ),
            default=math.inf,
        )

    def _go_on(self, migration: Migration, now: float) -> list[Command]:
        old, twin = self._vis.get(migration.old), self._vis.get(migration.twin)
        if migration.step is Step.COMMITTED:
            return self._complete(migration, old, twin, now)
        if old is None or old.is_leaving:
            return self.abort(migration, "the VI ends", now)
        if twin is None or twin.is_leaving or twin.state in (ViState.FAILING, ViState.QUARANTINED):
            why = twin.why if twin is not None else "it is gone"
            return self.abort(migration, f"its twin failed: {why}", now)
        if old.is_barred:
            return self.abort(migration, f"the VI was stopped: {old.why}", now)
        if old.state is not ViState.RUNNING:
            if self._is_ready(twin) and not self._has_state(old):
                return self._commit(migration, now)  # nothing is lost with the old one
            if migration.step is not Step.STARTING or self._has_state(old):
                return self.abort(migration, f"the VI itself failed: {old.why}", now)
            return []
        if migration.step is Step.STARTING and self._is_ready(twin):
            migration.step = Step.HOLDING
            migration.held_at = now
            migration.held_until = now + self.settings.hold_limit_s
        if (
            migration.step is Step.HOLDING
            and not migration.is_asked
            and migration.ask_at == math.inf
        ):
            sid = self.settings.services[old.service].sid
            if self._table.is_in_force(sid, old.instance, "held"):
                migration.is_asked = True
                migration.held_by = self._table.version_in_force
                return [AwaitIdle(old.number, max(0.1, migration.held_until - now))]
        return []

    def _lacking(self, answer: IdleAnswer | None, migration: Migration) -> str:
        """Return why an answer does not say that the old one has finished; empty: it does.

        To the router a VI without a session is idle: what it had is in line again. The VI itself
        may be at work on it still, and the next one gets it too. Once it has a session again, it
        has given up what came by the one before.
        """
        if answer is None:
            return "the router did not say whether it has tasks"
        if not answer.is_attached:
            return "it is not attached to the router"
        if not answer.is_idle:
            return "it has tasks"
        if (answer.boot, answer.epoch) != (self._table.boot, self._table.epoch):
            return "the router was restarted meanwhile"
        return "" if answer.version >= migration.held_by else "the answer is an old one"

    def _is_ready(self, twin: Vi) -> bool:
        sid = self.settings.services[twin.service].sid
        return (
            twin.state is ViState.RUNNING
            and twin.is_attached
            and self._table.is_in_force(sid, twin.instance, "held")
        )

    def _commit(self, migration: Migration, now: float) -> list[Command]:
        old, twin = self._vis[migration.old], self._vis[migration.twin]
        migration.step = Step.COMMITTED
        migration.due_at = migration.held_until = math.inf
        old.role, twin.role = Role.RETIRED, Role.OWNER
        old.why = f"moved to VI {twin.number} on {twin.node}"
        twin.slot, twin.owner_epoch = old.slot, old.owner_epoch + 1
        twin.inherit(old)
        text = f"VI {old.number} on {old.node} moved: it is VI {twin.number} on {twin.node}"
        if migration.held_at is not None:
            text += f"; chunks waited {now - migration.held_at:.2f} s"
        return [Note(text)]

    def _complete(
        self, migration: Migration, old: Vi | None, twin: Vi | None, now: float
    ) -> list[Command]:
        """Remove the old one as soon as the router knows of the new owner."""
        if old is not None:
            service = self.settings.services.get(old.service)
            if service is not None and not self._table.lacks(service.sid, old.instance):
                return []
        del self.under_way[migration.old]
        commands: list[Command] = [OperationEnded(migration.operation, True, "", migration.twin)]
        if old is not None:
            commands += self._life.leave(old, now)
        return commands

    def _has_state(self, vi: Vi) -> bool:
        service = self.settings.services.get(vi.service)
        return service is not None and service.has_state
