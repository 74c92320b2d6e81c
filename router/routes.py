"""Where things are: attached hosts, neighbour routers, and the static name table.

A name is looked for in this order: attached here; the name table (late binding: what this router
knows is newer than what the source wrote); hosts that were here a moment ago; the NA in the header.
Source: MobiArch'13 paper, section 3.3; design, section 6, step 6.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from packetcloud.chunk.hop.api import Role
from packetcloud.router.attachment import Attachment
from packetcloud.router.custody import Custody
from packetcloud.router.lines import Lines
from packetcloud.router.settings import RouterNeighbour, RouterSettings

MAX_DETACHED_HOSTS_COUNT = 4096
"""Hosts remembered after they went away, about 2 MiB; the one longest away is forgotten first."""


class NextHop:
    """A host or router that chunks leave to: attached, or away with chunks that wait for it."""

    __slots__ = (
        "attachment",
        "away_since",
        "guid",
        "is_router",
        "leaving",
        "name",
        "waiting",
    )

    def __init__(self, guid: bytes, is_router: bool, name: str, now: float) -> None:
        self.guid = guid
        self.is_router = is_router
        self.name = name
        self.attachment: Attachment | None = None
        self.away_since = now
        self.waiting = Lines()
        """Chunks that wait until it is back, has room for their flow, or may be tried again."""
        self.leaving: dict[int, int] = {}
        """Bytes given to its session and not settled, by the label of the flow."""

    @property
    def waiting_bytes(self) -> int:
        """What waits in memory."""
        return self.waiting.memory_bytes

    def began(self, entry: Custody) -> None:
        """The session has a chunk from now on."""
        label = entry.flow.label
        self.leaving[label] = self.leaving.get(label, 0) + entry.size_bytes

    def settled(self, entry: Custody) -> None:
        """The session has settled it."""
        label = entry.flow.label
        left = self.leaving[label] - entry.size_bytes
        if left:
            self.leaving[label] = left
        else:
            del self.leaving[label]


class Routes:
    """The tables. All lookups are O(1)."""

    def __init__(self, settings: RouterSettings, now: float) -> None:
        self._hosts: dict[bytes, NextHop] = {}
        self._detached: OrderedDict[bytes, None] = OrderedDict()
        self._routers: dict[bytes, NextHop] = {}
        self._by_na: dict[int, NextHop] = {}
        self._names: dict[bytes, int] = {}
        self.forgotten_count = 0
        """Absent hosts that made room for others."""
        self._na = 0
        self._known_for_s = 0.0
        self.configure(settings, now)

    @property
    def host_count(self) -> int:
        return len(self._hosts) - len(self._detached)

    @property
    def detached_host_count(self) -> int:
        return len(self._detached)

    def configure(self, settings: RouterSettings, now: float) -> list[NextHop]:
        """Take new tables; return the routers that are no longer neighbours."""
        self._na = settings.na.value
        self._known_for_s = settings.detached_hold_s
        self._names = {guid.value: na.value for guid, na in settings.names.items()}
        wanted = {neighbour.guid.value: neighbour for neighbour in settings.neighbours}
        removed = [hop for guid, hop in self._routers.items() if guid not in wanted]
        self._routers = {
            guid: self._routers.get(guid) or NextHop(guid, True, neighbour.name, now)
            for guid, neighbour in wanted.items()
        }
        self._by_na = {}
        for guid, neighbour in wanted.items():
            self._routers[guid].name = neighbour.name
            for na in _nas_behind(neighbour):
                self._by_na.setdefault(na, self._routers[guid])
        return removed

    def place_of(self, attachment: Attachment, now: float) -> NextHop | None:
        """Return the place of a host or router that is here now; None: no neighbour of ours."""
        guid = attachment.guid.value
        if attachment.role is Role.ROUTER:
            return self._routers.get(guid)
        self._detached.pop(guid, None)
        hop = self._hosts.get(guid)
        if hop is None:
            hop = self._hosts[guid] = NextHop(guid, False, attachment.guid.short, now)
        return hop

    def detached(self, hop: NextHop, now: float) -> list[NextHop]:
        """Note that `hop` went away; return the hosts that are forgotten to make room for it."""
        hop.attachment = None
        hop.away_since = now
        if hop.is_router or hop.guid not in self._hosts:
            return []
        self._detached[hop.guid] = None
        forgotten = []
        while len(self._detached) > MAX_DETACHED_HOSTS_COUNT:
            guid, _ = self._detached.popitem(last=False)
            forgotten.append(self._hosts.pop(guid))
            self.forgotten_count += 1
        return forgotten

    def resolve(self, destination: bytes, na: int, now: float) -> tuple[NextHop, int] | None:
        """Find the next hop to `destination`, and its NA; None: nobody here knows it."""
        host = self._hosts.get(destination)
        if host is not None and host.attachment is not None:
            return host, self._na
        listed = self._names.get(destination)
        if listed is not None and listed != self._na:
            router = self._by_na.get(listed)
            return (router, listed) if router is not None else None
        if host is not None and now - host.away_since < self._known_for_s:
            return host, self._na
        if listed is not None:
            # The table says that it belongs here, so it is known even before it first attaches.
            return self._expected_host(destination, now), self._na
        if na and na != self._na:
            router = self._by_na.get(na)
            return (router, na) if router is not None else None
        return None

    def resolve_service(self, sid: bytes) -> NextHop | None:
        """Find the next hop to a service that is not at this router."""
        na = self._names.get(sid)
        return self._by_na.get(na) if na is not None else None

    def na_of_service(self, sid: bytes) -> int | None:
        """Return where the name table has a service; None: it does not have it."""
        return self._names.get(sid)

    def routers(self) -> Iterator[NextHop]:
        return iter(self._routers.values())

    def hosts(self) -> Iterator[NextHop]:
        return iter(self._hosts.values())

    def _expected_host(self, guid: bytes, now: float) -> NextHop:
        hop = self._hosts.get(guid)
        if hop is None:
            hop = self._hosts[guid] = NextHop(guid, False, guid[:4].hex(), now)
            self._detached[guid] = None
        return hop


def _nas_behind(neighbour: RouterNeighbour) -> list[int]:
    return [neighbour.na.value, *(na.value for na in neighbour.routes)]
