"""Which VIs there should be, and where: counts, places, lost and evacuated nodes."""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.migration import Migration, Migrations
from packetcloud.cloudlet.core.placement import Ask, NoRoom, Policy, choose
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import CloudletSettings, ServiceWish

_TOKEN_BYTES = 32


class Staffing:
    """Places VIs, and brings their number to what it should be.

    Args:
        random_bytes: the system's random source.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        inventory: Inventory,
        life: Life,
        migrations: Migrations,
        policy: Policy,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.settings = settings
        self.no_room: dict[str, str] = {}
        """Why a service has fewer VIs than it should."""
        self._saved = saved
        self._inventory = inventory
        self._life = life
        self._migrations = migrations
        self._policy = policy
        self._random_bytes = random_bytes

    def settle(self, now: float) -> list[Command]:
        """Bring the number of VIs of each service to what it should be; move who must move."""
        commands: list[Command] = []
        for name, service in self.settings.services.items():
            wanted = self._saved.counts.setdefault(name, service.replicas_min)
            vis = [vi for vi in self._saved.vis.values() if vi.service == name and vi.counts]
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
        for vi in list(self._saved.vis.values()):
            if vi.service not in self.settings.services and not vi.is_leaving:
                vi.role, vi.why = Role.RETIRED, "its service is no longer declared"
                commands += self._life.leave(vi, now)
        return commands + self._evacuate(now)

    def place(
        self,
        service: ServiceWish,
        now: float,
        *,
        vi_type: str | None = None,
        node: str | None = None,
        instead_of: Vi | None = None,
        role: Role = Role.OWNER,
    ) -> Vi | NoRoom:
        """Make a VI on the node that `node` names or the policy chooses.

        Args:
            instead_of: whose slot it gets, now or when it is the owner.
        """
        vi_type = vi_type or (instead_of.vi_type if instead_of is not None else service.vi_type)
        found = self.find_node(service, vi_type, node, instead_of)
        if isinstance(found, NoRoom):
            return found
        address = self._free_address()
        if address is None:
            return NoRoom("every address of the data or control network is taken")
        saved = self._saved
        vi = Vi(
            number=saved.next_number,
            service=service.name,
            vi_type=vi_type,
            node=found,
            instance=self._free_instance(),
            token=self._random_bytes(_TOKEN_BYTES).hex(),
            address=address,
            slot=instead_of.slot if instead_of is not None else self._free_slot(service.name),
            role=role,
            owner_epoch=instead_of.owner_epoch + 1 if instead_of is not None else 1,
        )
        vi.touched_at = now
        saved.next_number += 1
        saved.vis[vi.number] = vi
        return vi

    def find_node(
        self, service: ServiceWish, vi_type: str, node: str | None, not_beside: Vi | None
    ) -> str | NoRoom:
        """Return the node for a VI; never the one of `not_beside`."""
        kin: dict[str, int] = {}
        for vi in self._saved.vis.values():
            if vi.service == service.name and vi.counts:
                kin[vi.node] = kin.get(vi.node, 0) + 1
        nodes = [
            one.name
            for one in self._inventory.nodes.values()
            if one.is_usable
            and (node is None or one.name == node)
            and (not_beside is None or one.name != not_beside.node)
        ]
        ask = Ask(self.settings.vi_types[vi_type], service.owner is not None, kin)
        return choose(ask, [self._inventory.room(name) for name in nodes], self._policy)

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
                if not isinstance(self.find_node(service, vi.vi_type, None, vi), NoRoom):
                    commands += self.replace(vi, f"node {vi.node} is evacuated", now)
        return commands

    def _note_stuck(self, vi: Vi, why: NoRoom, commands: list[Command]) -> None:
        text = f"cannot leave {vi.node}: {why.text}"
        if vi.why != text:
            vi.why = text
            commands.append(Note(f"{vi.service}/{vi.number} {text}", True))

    def _free_slot(self, service: str) -> int:
        taken = {
            vi.slot for vi in self._saved.vis.values() if vi.service == service and vi.is_listed
        }
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def _free_address(self) -> int | None:
        """Return a number of addresses that has been free for long: the next one, round about."""
        taken = {vi.address for vi in self._saved.vis.values()}
        numbers = self.settings.addresses
        for offset in range(len(numbers)):
            number = numbers[(self._saved.next_number + offset) % len(numbers)]
            if number not in taken:
                return number
        return None

    def _free_instance(self) -> int:
        taken = {vi.instance for vi in self._saved.vis.values()}
        while True:
            instance = int.from_bytes(self._random_bytes(4), "big")
            if instance and instance not in taken:
                return instance


def _least_useful(vi: Vi) -> tuple[bool, int]:
    """Sort VIs: those that do not run first, then the youngest."""
    return vi.state is ViState.RUNNING, -vi.number
