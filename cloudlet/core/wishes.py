"""What operators ask for: begun here, watched until it is done or cannot be."""

from __future__ import annotations

from packetcloud.cloudlet.core.commands import Command, OperationEnded
from packetcloud.cloudlet.core.events import (
    EvacuateWished,
    LaunchWished,
    MigrateWished,
    ResizeWished,
    RestartWished,
    StopWished,
    Wish,
)
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.migration import Migrations
from packetcloud.cloudlet.core.placement import NoRoom
from packetcloud.cloudlet.core.saved import Awaited, Operation, Saved
from packetcloud.cloudlet.core.staffing import Staffing
from packetcloud.cloudlet.core.values import CloudletSettings


class _NoSuchThingError(Exception):
    """The wish names what is not there, or what cannot be done with it; the text is for people."""


class Wishes:
    """Operations under way."""

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        inventory: Inventory,
        life: Life,
        migrations: Migrations,
        staffing: Staffing,
    ) -> None:
        self.settings = settings
        self._saved = saved
        self._inventory = inventory
        self._life = life
        self._migrations = migrations
        self._staffing = staffing

    def begin(self, wish: Wish, now: float) -> list[Command]:
        """Begin what was asked for; what cannot be done ends at once and changes nothing."""
        try:
            match wish:
                case LaunchWished():
                    return self._launch(wish, now)
                case StopWished():
                    return self._stop(wish, now)
                case RestartWished():
                    return self._restart(wish, now)
                case ResizeWished():
                    return self._resize(wish, now)
                case MigrateWished():
                    return self._migrate(wish, now)
                case EvacuateWished():
                    return self._evacuate(wish)
        except _NoSuchThingError as error:
            return [OperationEnded(wish.operation, False, str(error))]

    def vi_of(self, number: int) -> int | None:
        """Return which VI an operation under way is about; of a migration the twin."""
        operation = self._saved.operations.get(number)
        if operation is None or operation.awaited is Awaited.EVACUATED:
            return None
        if operation.awaited is Awaited.MIGRATED:
            migration = self._migrations.under_way.get(operation.vi)
            return migration.twin if migration is not None else operation.vi
        return operation.vi

    def go_on(self, now: float) -> list[Command]:
        """End the operations that are done; after every event."""
        commands: list[Command] = []
        for operation in list(self._saved.operations.values()):
            end = self._end_of(operation, now, commands)
            if end is not None:
                self.ended(operation.number)
                commands.append(end)
        return commands

    def ended(self, number: int) -> None:
        """Forget an operation whose end was told."""
        self._saved.operations.pop(number, None)

    def _launch(self, wish: LaunchWished, now: float) -> list[Command]:
        service = self.settings.services.get(wish.service)
        if service is None:
            raise _NoSuchThingError(
                f"no service {wish.service!r}; declared: {_names(self.settings.services)}"
            )
        if wish.vi_type is not None and wish.vi_type not in self.settings.vi_types:
            raise _NoSuchThingError(_no_type(wish.vi_type, self.settings))
        self._check_node(wish.node)
        count = self._saved.counts.get(service.name, service.replicas_min)
        if count >= service.replicas_max:
            raise _NoSuchThingError(
                f"service {service.name} should have {count} VIs already, of at most "
                f"{service.replicas_max} (replicas_max)"
            )
        placed = self._staffing.place(service, now, vi_type=wish.vi_type, node=wish.node)
        if isinstance(placed, NoRoom):
            raise _NoSuchThingError(f"no room for it: {placed.text}")
        self._saved.counts[service.name] = count + 1
        self._watch(Operation(wish.operation, Awaited.RUNNING, placed.number))
        return self._life.advance(placed, now)

    def _stop(self, wish: StopWished, now: float) -> list[Command]:
        vi = self._vi(wish.number)
        if vi.counts and not vi.reservation:  # of a reservation, another takes its place
            count = self._saved.counts.get(vi.service, 0)
            self._saved.counts[vi.service] = max(0, count - 1)
        self._watch(Operation(wish.operation, Awaited.GONE, vi.number))
        vi.why = "stopped by an operator"
        migration = self._migrations.of(vi)
        commands = (
            self._migrations.abort(migration, "the VI is stopped", now)
            if migration is not None
            else []
        )
        if wish.is_drained and vi.state is ViState.RUNNING:
            vi.is_draining = True
            return commands
        if vi.role is not Role.STANDBY:
            vi.role = Role.RETIRED
        return commands + self._life.leave(vi, now)

    def _restart(self, wish: RestartWished, now: float) -> list[Command]:
        vi = self._vi(wish.number)
        if vi.role is Role.STANDBY:
            raise _NoSuchThingError(
                f"VI {vi.number} waits for a service; there is nothing to start again"
            )
        self._watch(Operation(wish.operation, Awaited.RUNNING, vi.number))
        return self._life.release(vi, now)

    def _resize(self, wish: ResizeWished, now: float) -> list[Command]:
        vi = self._vi(wish.number)
        if vi.role is Role.STANDBY:
            raise _NoSuchThingError(
                f"VI {vi.number} waits for a service; it has no size of its own"
            )
        if wish.vi_type not in self.settings.vi_types:
            raise _NoSuchThingError(_no_type(wish.vi_type, self.settings))
        if vi.reservation:
            raise _NoSuchThingError(
                f"VI {vi.number} runs for reservation {vi.reservation}, whose type it has: "
                "allowed: another reservation, at the domain controller"
            )
        if vi.is_barred:
            raise _NoSuchThingError(
                f"VI {vi.number} is in quarantine ({vi.why}); first: packetcloud vi restart "
                f"{vi.number}"
            )
        if vi.resize_to is not None or self._migrations.of(vi) is not None:
            raise _NoSuchThingError(f"VI {vi.number} is being resized or moved already")
        service = self.settings.services[vi.service]
        types = self.settings.vi_types
        more = types[wish.vi_type] - types[vi.vi_type]
        room = self._inventory.room_but_for_standbys(vi.node)
        usable = room.for_third_parties if service.owner is not None else room.for_all
        if not usable.lacking_for(more):
            vi.resize_to = wish.vi_type
            self._watch(Operation(wish.operation, Awaited.RESIZED, vi.number, "", wish.vi_type))
            return self._life.advance(vi, now)
        # A scaling conflict (paper, section 3.2): somebody has to go to a less loaded node. First
        # another one that is small but large enough, then the VI itself, as its new type.
        for other in sorted(self._movable(vi), key=lambda one: types[one.vi_type].cpus):
            freed = self._inventory.room_but_for_standbys(vi.node, other)
            usable_then = freed.for_third_parties if service.owner is not None else freed.for_all
            if usable_then.lacking_for(more):
                continue
            moved = self._staffing.migrate(other, 0, now)
            if not isinstance(moved, NoRoom):
                self._watch(Operation(wish.operation, Awaited.RESIZED, vi.number, "", wish.vi_type))
                return moved
        if vi.state is not ViState.RUNNING:
            raise _NoSuchThingError(f"VI {vi.number} does not run: it can neither grow nor move")
        moved = self._staffing.migrate(vi, wish.operation, now, vi_type=wish.vi_type)
        if isinstance(moved, NoRoom):
            lacking = ", ".join(usable.lacking_for(more))
            raise _NoSuchThingError(
                f"{vi.node} has not enough {lacking}, nobody there can move, and no other node "
                f"has room: {moved.text}"
            )
        self._watch(Operation(wish.operation, Awaited.MIGRATED, vi.number))
        return moved

    def _migrate(self, wish: MigrateWished, now: float) -> list[Command]:
        vi = self._vi(wish.number)
        self._check_node(wish.node)
        if wish.node == vi.node:
            raise _NoSuchThingError(f"VI {vi.number} is on {vi.node} already")
        if vi.state is not ViState.RUNNING or not vi.counts:
            raise _NoSuchThingError(
                f"VI {vi.number} is {vi.state.value}; only one that runs and stays can move"
            )
        if self._migrations.of(vi) is not None:
            raise _NoSuchThingError(f"VI {vi.number} is being moved already")
        moved = self._staffing.migrate(vi, wish.operation, now, wish.node)
        if isinstance(moved, NoRoom):
            raise _NoSuchThingError(f"no room for it: {moved.text}")
        self._watch(Operation(wish.operation, Awaited.MIGRATED, vi.number))
        return moved

    def _evacuate(self, wish: EvacuateWished) -> list[Command]:
        self._check_node(wish.node)
        node = self._inventory.nodes[wish.node]
        node.is_evacuated = not wish.is_over
        if wish.is_over:
            self._saved.evacuated.discard(wish.node)
            return [OperationEnded(wish.operation, True, "")]
        self._saved.evacuated.add(wish.node)
        self._watch(Operation(wish.operation, Awaited.EVACUATED, 0, wish.node))
        return []

    def _end_of(
        self, operation: Operation, now: float, commands: list[Command]
    ) -> OperationEnded | None:
        vi = self._saved.vis.get(operation.vi)
        match operation.awaited:
            case Awaited.RUNNING:
                if vi is None or vi.is_leaving:
                    return operation.ended(False, "the VI was removed meanwhile")
                if vi.state is ViState.RUNNING and vi.is_attached:
                    return operation.ended(True)
                if vi.state is ViState.QUARANTINED:
                    return operation.ended(False, f"in quarantine: {vi.why}")
            case Awaited.GONE:
                if vi is None:
                    return operation.ended(True)
            case Awaited.RESIZED:
                return self._resize_end(operation, vi, now, commands)
            case Awaited.MIGRATED:
                pass  # the migration itself says so
            case Awaited.EVACUATED:
                node = self._inventory.nodes.get(operation.node)
                if node is None or all(
                    one.node != operation.node for one in self._saved.vis.values()
                ):
                    return operation.ended(True)
                if not node.is_evacuated:
                    return operation.ended(False, "called off")
        return None

    def _resize_end(
        self, operation: Operation, vi: Vi | None, now: float, commands: list[Command]
    ) -> OperationEnded | None:
        if vi is None or vi.is_leaving:
            return operation.ended(False, "the VI was removed meanwhile")
        if vi.vi_type == operation.vi_type:
            return operation.ended(True)
        if vi.state is ViState.QUARANTINED:
            vi.resize_to = None
            return operation.ended(False, f"in quarantine: {vi.why}")
        if vi.resize_to is not None or not self._inventory.is_known:
            return None  # after a restart nobody knows yet what room there is
        if vi.pending is None and vi.why.startswith("resize: "):
            text, vi.why = vi.why, ""
            return operation.ended(False, text.removeprefix("resize: "))
        types = self.settings.vi_types
        more = types[operation.vi_type] - types[vi.vi_type]
        room = self._inventory.room_but_for_standbys(vi.node)
        usable = room.for_third_parties if self._inventory.is_third_party(vi) else room.for_all
        if not usable.lacking_for(more):
            vi.resize_to = operation.vi_type
            commands += self._life.advance(vi, now)
            return None
        is_room_coming = any(
            other.node == vi.node
            and (other.is_leaving or other.number in self._migrations.under_way)
            for other in self._saved.vis.values()
        )
        if not is_room_coming:
            return operation.ended(False, "no room was made: a migration failed")
        return None

    def _movable(self, vi: Vi) -> list[Vi]:
        return [
            other
            for other in self._saved.vis.values()
            if other.node == vi.node
            and other is not vi
            and other.counts
            and other.state is ViState.RUNNING
            and self._migrations.of(other) is None
        ]

    def _vi(self, number: int) -> Vi:
        vi = self._saved.vis.get(number)
        if vi is None or vi.is_leaving:
            numbers = sorted(vi.number for vi in self._saved.vis.values() if not vi.is_leaving)
            raise _NoSuchThingError(
                f"no VI {number}; there are: {', '.join(map(str, numbers)) or 'none'}"
            )
        return vi

    def _check_node(self, node: str | None) -> None:
        if node is not None and node not in self._inventory.nodes:
            raise _NoSuchThingError(f"no node {node!r}; nodes: {_names(self._inventory.nodes)}")

    def _watch(self, operation: Operation) -> None:
        self._saved.operations[operation.number] = operation


def _names(names: object) -> str:
    assert isinstance(names, dict) or hasattr(names, "__iter__")
    return ", ".join(sorted(names)) or "none"


def _no_type(name: str, settings: CloudletSettings) -> str:
    return f"no VI type {name!r}; types: {_names(settings.vi_types)}"
