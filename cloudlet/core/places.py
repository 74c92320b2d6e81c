"""Where a VI may be, and what it is made of: nodes with room, addresses, instances."""

from __future__ import annotations

from collections.abc import Callable, Collection

from packetcloud.cloudlet.core.allotment import WAITING_SIZE
from packetcloud.cloudlet.core.instances import Role, Vi
from packetcloud.cloudlet.core.inventory import Inventory, NodeRoom
from packetcloud.cloudlet.core.placement import Ask, NoRoom, Policy, choose
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.core.values import CloudletSettings, ServiceWish

_TOKEN_BYTES = 32


class Places:
    """Finds places and takes them.

    Args:
        random_bytes: the system's random source.
    """

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        inventory: Inventory,
        policy: Policy,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.settings = settings
        self._saved = saved
        self._inventory = inventory
        self._policy = policy
        self._random_bytes = random_bytes

    def usable_nodes(
        self, service: ServiceWish, node: str | None, not_beside: Vi | None
    ) -> list[str]:
        """Return the nodes that a VI may be placed on; never the one of `not_beside`."""
        return [
            one.name
            for one in self._inventory.nodes.values()
            if one.is_usable
            and (service.nodes is None or one.name in service.nodes)
            and (node is None or one.name == node)
            and (not_beside is None or one.name != not_beside.node)
        ]

    def find_node(
        self, service: ServiceWish, vi_type: str, node: str | None, not_beside: Vi | None
    ) -> str | NoRoom:
        """Return the node for a VI; never the one of `not_beside`. Standbys make room for it."""
        names = self.usable_nodes(service, node, not_beside)
        if not names and service.nodes is not None:
            return NoRoom(_only_there(service.nodes))
        if not names and node is not None:
            return NoRoom(f"node {node} is evacuated, or does not answer: packetcloud node list")
        if not names and not_beside is not None:
            return NoRoom(f"no node but {not_beside.node} answers and takes VIs")
        found = self.choose(service, vi_type, [self._inventory.room(name) for name in names])
        if not isinstance(found, NoRoom):
            return found
        rooms = [self._inventory.room_but_for_standbys(name) for name in names]
        return self.choose(service, vi_type, rooms)

    def choose(
        self, service: ServiceWish, vi_type: str, rooms: Collection[NodeRoom]
    ) -> str | NoRoom:
        """Return the node of those that have room for a VI of a service."""
        kin: dict[str, int] = {}
        for vi in self._saved.vis.values():
            if vi.service == service.name and vi.counts:
                kin[vi.node] = kin.get(vi.node, 0) + 1
        ask = Ask(self.settings.vi_types[vi_type], service.owner is not None, kin)
        return choose(ask, list(rooms), self._policy)

    def choose_to_wait(self, service: ServiceWish, kin: dict[str, int]) -> str | NoRoom:
        """Return the node for a standby: one with the fewest of the service's.

        Args:
            kin: how many each node has.
        """
        names = self.usable_nodes(service, None, None)
        fewest = min((kin.get(name, 0) for name in names), default=0)
        size = self.settings.vi_types[service.vi_type].least(WAITING_SIZE)
        rooms = [self._inventory.room(name) for name in names if kin.get(name, 0) == fewest]
        return choose(Ask(size, service.owner is not None, {}), rooms, self._policy)

    def take(
        self, service: ServiceWish, vi_type: str, node: str, role: Role, now: float
    ) -> Vi | NoRoom:
        """Make a VI on a node; it has its address, and no slot."""
        address = self._free_address()
        if address is None:
            return NoRoom("every address of the data or control network is taken")
        saved = self._saved
        vi = Vi(
            number=saved.next_number,
            service=service.name,
            vi_type=vi_type,
            node=node,
            instance=self._free_instance(),
            token=self._random_bytes(_TOKEN_BYTES).hex(),
            address=address,
            role=role,
            image=service.image,
        )
        vi.touched_at = now
        saved.next_number += 1
        saved.vis[vi.number] = vi
        return vi

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


def _only_there(nodes: frozenset[str]) -> str:
    names = ", ".join(sorted(nodes)) or "none"
    return (
        "its VIs reach the IP network, which is possible on nodes of the controller's machine "
        f"alone ({names}), and none of these takes it"
    )
