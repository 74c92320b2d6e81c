"""Tables of a cloudlet controller, as tests write them."""

from __future__ import annotations

from typing import Any

from packetcloud.chunk.names import GUID, NA, SID
from packetcloud.router.cloudlet_table import (
    CloudletTable,
    Destinations,
    ItemReason,
    Put,
    Remove,
    ServiceEntry,
    TableUpdate,
    ViEntry,
    ViState,
)
from packetcloud.router.settings import RouterSettings
from tests.unit.router.router_fakes import FakeNetwork, S, service, settings

SERVING, HELD, RESTRICTED = ViState.SERVING, ViState.HELD, ViState.RESTRICTED
DRAINING = ViState.DRAINING


def vi(
    instance: int,
    state: ViState = SERVING,
    slot: int = 0,
    owner_epoch: int | None = None,
    *,
    is_restricted: bool = False,
) -> ViEntry:
    """A VI whose epoch of ownership is its instance, if nothing else is said."""
    return ViEntry(instance, owner_epoch or instance, slot, state, is_restricted)


def entry(
    *vis: ViEntry,
    sid: SID = S,
    ratio: float = 2.0,
    guids: tuple[GUID, ...] | None = None,
    nas: tuple[NA, ...] = (),
    **changes: Any,
) -> ServiceEntry:
    allowed = Destinations(frozenset(guids), frozenset(nas)) if guids is not None else None
    more = {name: changes.pop(name, None) for name in ("verdicts", "budget", "inspection")}
    return ServiceEntry(service(sid, **changes), vis, ratio, allowed, **more)


def update(
    *items: ServiceEntry | SID,
    version: int = 1,
    base: int | None = None,
    epoch: int = 1,
    controller: str = "c",
    digest: str | None = None,
) -> TableUpdate:
    """An update with these services put in, or taken out."""
    made = tuple(Remove(item) if isinstance(item, SID) else Put(item) for item in items)
    named = digest if digest is not None else repr((version, base, made))
    return TableUpdate(controller, epoch, version, base, made, named)


def no_objection(sid: SID, name: str) -> tuple[ItemReason, str] | None:
    return None


class Controller:
    """Puts one version after the other in force at a router."""

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network

    def put(self, *items: ServiceEntry | SID) -> CloudletTable:
        """Send a whole table for the first time, and changes after that; all must be accepted."""
        core = self.network.core
        assert core.cloudlet is not None
        table = core.cloudlet.table
        base = table.version or None
        sent = update(*items, version=table.version + 1, base=base)
        after = table.apply(sent, core.service_table.why_not_in_table)
        assert not [one for one in after.results if one.reason is not None], after.results
        core.install_table(after, self.network.now)
        self.network.check()
        return after


def with_table(**changes: Any) -> RouterSettings:
    return settings(has_table=True, **changes)


def cloudlet_network(*items: ServiceEntry, **changes: Any) -> tuple[FakeNetwork, Controller]:
    """A router with these services in its table."""
    network = FakeNetwork(with_table(**changes))
    controller = Controller(network)
    controller.put(*items)
    return network, controller
