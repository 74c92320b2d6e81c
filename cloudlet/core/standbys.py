"""Standbys: VIs whose container runs before anybody needs it, and waits for its launch.

To launch a VI is then to give one its limits and its service. A standby belongs to a service, since
its image does; the router does not know of it, and it is no VI that its service should have.
Source: docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

from packetcloud.cloudlet.core.commands import Command, Note
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.life import Life
from packetcloud.cloudlet.core.migration import Migrations
from packetcloud.cloudlet.core.placement import NoRoom
from packetcloud.cloudlet.core.places import Places
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.stages import LaunchTimes
from packetcloud.cloudlet.core.values import CloudletSettings, ServiceWish


class Standbys:
    """Keeps standbys, and gives them to who needs a VI."""

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
        self._saved = saved
        self._inventory = inventory
        self._life = life
        self._migrations = migrations
        self._places = places

    def of(self, service: str) -> list[Vi]:
        """Return the standbys of a service that are to stay."""
        return [
            vi
            for vi in self._saved.vis.values()
            if vi.service == service
            and vi.role is Role.STANDBY
            and not vi.is_draining
            and not vi.is_leaving
        ]

    def take(
        self,
        service: ServiceWish,
        vi_type: str,
        node: str | None,
        not_beside: Vi | None,
        now: float,
    ) -> Vi | None:
        """Return a standby to make a VI of, on a node that has room for its type; None: there is
        none. Its role, slot and epoch are the caller's to say.
        """
        waiting: dict[str, Vi] = {}
        names = self._places.usable_nodes(service, node, not_beside)
        for vi in self.of(service.name):
            if vi.is_ready_to_launch and vi.image == service.image and vi.node in names:
                waiting.setdefault(vi.node, vi)
        rooms = [self._inventory.room(name, {vi.number}) for name, vi in waiting.items()]
        found = self._places.choose(service, vi_type, rooms)
        if isinstance(found, NoRoom):
            return None
        taken = waiting[found]
        taken.vi_type = vi_type
        taken.launch = LaunchTimes(now)
        taken.why = ""
        return taken

    def stand_in(self, now: float) -> list[Command]:
        """Give the slot of a VI that crashed to a standby: at its first crash after a good time.

        One that crashes again and again waits between its attempts like any other.
        """
        commands: list[Command] = []
        for vi in list(self._saved.vis.values()):
            service = self.settings.services.get(vi.service)
            has_just_crashed = (
                vi.state is ViState.FAILING and len(vi.crashes) == 1 and vi.backoff_count == 0
            )
            if service is None or not vi.counts or not has_just_crashed or vi.is_barred:
                continue
            if self._migrations.of(vi) is not None:
                continue
            standby = self.take(service, vi.vi_type, None, None, now)
            if standby is None:
                continue
            standby.role, standby.slot = Role.OWNER, vi.slot
            standby.owner_epoch = vi.owner_epoch + 1
            standby.reservation = vi.reservation
            standby.restarts = vi.restarts
            standby.crashes.extend(vi.crashes)
            standby.backoff_count = 1
            standby.inherit(vi)
            standby.boot_cpus = self._inventory.boot_cpus(standby)
            vi.role = Role.RETIRED
            text = f"{vi.service}/{vi.number}: VI {standby.number} takes its place"
            commands += [Note(text), *self._life.leave(vi, now)]
            commands += self._life.advance(standby, now)
        return commands

    def keep(self, now: float, *, may_make: bool) -> list[Command]:
        """Let go of the standbys that are of no use, and make those that lack.

        Args:
            may_make: nobody lacks a VI, and none is on its way, which their start would make late.
        """
        commands: list[Command] = []
        for node_name in self._inventory.nodes:
            self._make_room(node_name)
        for name, service in self.settings.services.items():
            for vi in self.of(name):
                node = self._inventory.nodes.get(vi.node)
                if vi.image != service.image:
                    vi.is_draining, vi.why = True, "there is a newer image"
                elif node is None or node.is_evacuated:
                    vi.is_draining, vi.why = True, f"node {vi.node} is evacuated"
            standbys = sorted(self.of(name), key=_least_useful)
            for vi in standbys[: max(0, len(standbys) - service.standbys)]:
                vi.is_draining, vi.why = True, "the service has one standby too many"
            for _ in range(service.standbys - len(standbys) if may_make else 0):
                made = self._make(service, now)
                if isinstance(made, NoRoom):
                    break
                commands += self._life.advance(made, now)
        return commands

    def _make_room(self, node: str) -> None:
        """Let go of standbys of a node until what is reserved there fits again."""
        if self._inventory.nodes[node].capacity is None:
            return  # nobody knows yet what it has
        here = [vi for one in self.settings.services for vi in self.of(one) if vi.node == node]
        for vi in sorted(here, key=_least_useful):
            room = self._inventory.room(node)
            is_third_party = self._inventory.is_third_party(vi)
            usable = room.for_third_parties if is_third_party else room.for_all
            if usable.is_overdrawn:
                vi.is_draining, vi.why = True, "its room is needed"

    def _make(self, service: ServiceWish, now: float) -> Vi | NoRoom:
        if not service.image:
            return NoRoom(f"service {service.name} has no image")
        kin: dict[str, int] = {}
        for vi in self.of(service.name):
            kin[vi.node] = kin.get(vi.node, 0) + 1
        node = self._places.choose_to_wait(service, kin)
        if isinstance(node, NoRoom):
            return node
        made = self._places.take(service, service.vi_type, node, Role.STANDBY, now)
        if isinstance(made, Vi):
            made.boot_cpus = self._inventory.boot_cpus(made)
        return made


def _least_useful(vi: Vi) -> tuple[bool, int]:
    """Sort standbys: those that are not ready first, then the youngest."""
    return vi.state is ViState.WAITING, -vi.number
