"""Which VIs there should be, and where: counts, places, lost and evacuated nodes."""

from __future__ import annotations

from collections.abc import Mapping

from packetcloud.cloudlet.core.allotment import is_booting
from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.migration import Migration, Migrations
from packetcloud.cloudlet.core.placement import NoRoom
from packetcloud.cloudlet.core.places import Places
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.standbys import Standbys
from packetcloud.cloudlet.core.values import CloudletSettings, ServiceWish


class Staffing:
    """Places VIs, and brings their number to what it should be."""

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        inventory: Inventory,
        life: Life,
        migrations: Migrations,
        places: Places,
    ) -> None:
        self.settings = settings
        self.standbys = Standbys(settings, saved, inventory, life, migrations, places)
        self.no_room: dict[str, str] = {}
        """Why a service has fewer VIs than it should, or `reservation NAME`."""
        self.reserved: Mapping[str, int] = {}
        """How many VIs each reservation should have now."""
        self._stuck: dict[int, str] = {}
        """Why a VI cannot leave its node."""
        self._told = self._stuck
        """The same when it was looked at last: it is told once."""
        self._saved = saved
        self._inventory = inventory
        self._life = life
        self._migrations = migrations
        self._places = places

    def configure(self, settings: CloudletSettings) -> None:
        """Take new settings."""
        self.settings = self.standbys.settings = self._places.settings = settings

    def settle(self, now: float) -> list[Command]:
        """Bring the number of VIs of each service to what it should be; move who must move."""
        commands: list[Command] = []
        self._told, self._stuck = self._stuck, {}
        for name, service in self.settings.services.items():
            wanted = self._saved.counts.setdefault(name, service.replicas_min)
            vis = [
                vi
                for vi in self._saved.vis.values()
                if vi.service == name and vi.counts and not vi.reservation
            ]
            for _ in range(wanted - len(vis) if self._inventory.is_known else 0):
                placed = self.place(service, now)
                if isinstance(placed, NoRoom):
                    if self.no_room.get(name) != placed.text:
                        commands.append(Note(f"service {name} lacks a VI: {placed.text}", True))
                    self.no_room[name] = placed.text
                    break
                self.no_room.pop(name, None)
                commands += self._life.advance(placed, now)
            if len(vis) >= wanted:
                self.no_room.pop(name, None)
            for vi in sorted(vis, key=_least_useful)[: max(0, len(vis) - wanted)]:
                vi.is_draining = True
                vi.why = "the service has one VI too many"
        commands += self._settle_reserved(now)
        for vi in list(self._saved.vis.values()):
            if vi.service not in self.settings.services and not vi.is_leaving:
                vi.role, vi.why = Role.RETIRED, "its service is no longer declared"
                commands += self._life.leave(vi, now)
        commands += self._evacuate(now)
        commands += self._leave_lost(now)
        commands += self.standbys.stand_in(now)
        return commands + self.standbys.keep(now, may_make=self._is_calm)

    def _settle_reserved(self, now: float) -> list[Command]:
        """Bring the number of VIs of each reservation to what it should be."""
        commands: list[Command] = []
        by_reservation: dict[str, list[Vi]] = {name: [] for name in self.reserved}
        for vi in self._saved.vis.values():
            if vi.reservation and vi.counts:
                by_reservation.setdefault(vi.reservation, []).append(vi)
        for name, vis in by_reservation.items():
            one = self._saved.reserved.get(name)
            wanted = self.reserved.get(name, 0)
            service = self.settings.services.get(one.service or "") if one is not None else None
            key = f"reservation {name}"
            if one is not None and service is not None and self._inventory.is_known:
                for _ in range(wanted - len(vis)):
                    placed = self.place(service, now, vi_type=one.vi_type, reservation=name)
                    if isinstance(placed, NoRoom):
                        if self.no_room.get(key) != placed.text:
                            commands.append(Note(f"{key} lacks a VI: {placed.text}", True))
                        self.no_room[key] = placed.text
                        break
                    self.no_room.pop(key, None)
                    commands += self._life.advance(placed, now)
            if len(vis) >= wanted:
                self.no_room.pop(key, None)
            for vi in sorted(vis, key=_least_useful)[: max(0, len(vis) - wanted)]:
                vi.is_draining = True
                vi.why = f"{key} has no use for it now"
        return commands

    def place(
        self,
        service: ServiceWish,
        now: float,
        *,
        vi_type: str | None = None,
        node: str | None = None,
        instead_of: Vi | None = None,
        role: Role = Role.OWNER,
        reservation: str = "",
    ) -> Vi | NoRoom:
        """Make a VI, of a standby if there is one, on the node that `node` names or the policy
        chooses.

        Args:
            instead_of: whose slot it gets, now or when it is the owner, and whose reservation; of
                one that may not start, the new one may not either.
            reservation: for which it runs.
        """
        vi_type = vi_type or (instead_of.vi_type if instead_of is not None else service.vi_type)
        slot = instead_of.slot if instead_of is not None else self._free_slot(service.name)
        is_barred = instead_of is not None and instead_of.is_barred
        made = None
        if not is_barred:
            made = self.standbys.take(service, vi_type, node, instead_of, now)
        if made is None:
            found = self._places.find_node(service, vi_type, node, instead_of)
            if isinstance(found, NoRoom):
                return found
            new = self._places.take(service, vi_type, found, role, now)
            if isinstance(new, NoRoom):
                return new
            made = new
        made.slot, made.role = slot, role
        made.owner_epoch = instead_of.owner_epoch + 1 if instead_of is not None else 1
        made.reservation = instead_of.reservation if instead_of is not None else reservation
        if is_barred:
            made.state = ViState.QUARANTINED
        else:
            made.boot_cpus = self._inventory.boot_cpus(made)
        return made

    def migrate(
        self,
        vi: Vi,
        operation: int,
        now: float,
        node: str | None = None,
        vi_type: str | None = None,
    ) -> NoRoom | list[Command]:
        """Begin to move a VI that runs."""
        service = self.settings.services[vi.service]
        twin = self.place(service, now, vi_type=vi_type, node=node, instead_of=vi, role=Role.TWIN)
        if isinstance(twin, NoRoom):
            return twin
        twin.owner_epoch = vi.owner_epoch  # it is not the owner yet
        self._migrations.begin(Migration(operation, vi.number, twin.number), now)
        return self._life.advance(twin, now)

    def why_lost(self, node: str) -> str:
        """Return why the VIs of a lost node start elsewhere."""
        return f"node {node} does not answer for {self.settings.node_lost_s:g} s"

    def replace(self, vi: Vi, why: str, now: float) -> list[Command]:
        """Give up a VI; another takes its slot as soon as there is room."""
        migration = self._migrations.of(vi)
        commands: list[Command] = []
        if migration is not None:
            commands += self._migrations.abort(migration, why, now)
        if vi.role is Role.OWNER and not vi.is_leaving and not vi.is_draining:
            service = self.settings.services.get(vi.service)
            vi.role = Role.RETIRED
            if service is not None:
                placed = self.place(service, now, instead_of=vi)
                if isinstance(placed, NoRoom):
                    self.no_room[vi.service] = placed.text  # `settle` tries again
                else:
                    placed.inherit(vi)
                    if placed.state is ViState.QUARANTINED:
                        placed.why = vi.why
                    commands += self._life.advance(placed, now)
        vi.role, vi.why = Role.RETIRED, why
        return commands + self._life.leave(vi, now)

    def _evacuate(self, now: float) -> list[Command]:
        commands: list[Command] = []
        budget = self.settings.evacuations_at_once - len(self._migrations.under_way)
        for vi in list(self._saved.vis.values()):
            node = self._inventory.nodes.get(vi.node)
            if node is None or not node.is_evacuated or not vi.counts:
                continue
            if self._migrations.of(vi) is not None or vi.service not in self.settings.services:
                continue
            if vi.state is ViState.RUNNING:
                if budget <= 0:
                    continue
                moved = self.migrate(vi, 0, now)
                if isinstance(moved, NoRoom):
                    self._note_stuck(vi, moved, commands)
                else:
                    budget -= 1
                    commands += moved
            elif vi.state in (ViState.PLACED, ViState.BACKING_OFF, ViState.QUARANTINED):
                service = self.settings.services[vi.service]
                if not isinstance(self._places.find_node(service, vi.vi_type, None, vi), NoRoom):
                    commands += self.replace(vi, f"node {vi.node} is evacuated", now)
        return commands

    def _leave_lost(self, now: float) -> list[Command]:
        """Give up the VIs of lost nodes, but those that run: it is their LXD alone that is away.

        They are given up when nothing is heard of them either, and there is room elsewhere.
        """
        commands: list[Command] = []
        for vi in list(self._saved.vis.values()):
            node = self._inventory.nodes.get(vi.node)
            if node is None or not node.is_lost or vi.is_leaving:
                continue
            heard_before_s = now - vi.heard_at
            if vi.state is ViState.RUNNING and heard_before_s < self.settings.node_lost_s:
                continue
            service = self.settings.services.get(vi.service)
            if vi.counts and service is not None:
                found = self._places.find_node(service, vi.vi_type, None, vi)
                if isinstance(found, NoRoom):  # nobody else would know what it is charged with
                    self._note_stuck(vi, found, commands)
                    continue
            commands += self.replace(vi, self.why_lost(vi.node), now)
        return commands

    @property
    def _is_calm(self) -> bool:
        """Tell whether no VI is on its way, and none lacks."""
        return (
            self._inventory.is_known
            and not self.no_room
            and not any(
                is_booting(vi) and vi.role is not Role.STANDBY and not vi.is_leaving
                for vi in self._saved.vis.values()
            )
        )

    def _note_stuck(self, vi: Vi, why: NoRoom, commands: list[Command]) -> None:
        text = f"cannot leave {vi.node}: {why.text}"
        if not vi.is_barred:
            vi.why = text
        self._stuck[vi.number] = text
        if self._told.get(vi.number) != text:
            commands.append(Note(f"{vi.service}/{vi.number} {text}", True))

    def _free_slot(self, service: str) -> int:
        taken = {
            vi.slot for vi in self._saved.vis.values() if vi.service == service and vi.is_listed
        }
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _least_useful(vi: Vi) -> tuple[bool, int]:
    """Sort VIs: those that do not run first, then the youngest."""
    return vi.state is ViState.RUNNING, -vi.number
