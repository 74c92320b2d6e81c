"""What is around the router: its address, the hosts attached to it, routers that it reaches.

The router is asked now and then; what it said is forgotten when it is silent for long. The domain
controller finds cloudlets near a host or an NA by this. Source: docs/protocol/channel.md, "Where".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from packetcloud.cloudlet.router_client import (
    RouterClient,
    UnansweredError,
    understanding,
    words_of,
)
from packetcloud.router.schemas import NeighbourInfo

ASK_INTERVAL_S = 5.0
FORGET_AFTER_S = 30.0
"""Chunks go to a host that went away for so long as well."""
MAX_HOSTS_COUNT = 2048
"""A router has at most 65 536 neighbours; those of the lowest GUIDs are told."""
MAX_DISTANCES_COUNT = 1024
NEIGHBOUR_HOPS, BEHIND_HOPS = 1, 2
"""To a neighbour, and to an NA behind one: at least, as no router knows more."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a router said."""

    na: int | None = None
    """None: it has not said it lately."""
    hosts: tuple[str, ...] = ()
    """GUIDs, sorted."""
    hops: Mapping[int, int] = field(default_factory=dict)
    """By NA."""
    left_out_count: int = 0
    """Hosts beyond those that are told."""


class Surroundings:
    """One router's."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router
        self._around = Around()
        self._said_s = 0.0

    def now(self) -> Around:
        """Return what is known, if it is not too old."""
        return self._around if time.monotonic() - self._said_s < FORGET_AFTER_S else Around()

    async def watch(self) -> None:
        """Ask again and again."""
        while True:
            try:
                self._around = await self._ask()
                self._said_s = time.monotonic()
            except UnansweredError:
                pass  # it is silent: `look` says so, and what is known gets older
            await asyncio.sleep(ASK_INTERVAL_S)

    async def _ask(self) -> Around:
        config = await self._router.ask("GET", "/config")
        neighbours = await self._router.ask("GET", "/neighbours")
        for response in (config, neighbours):
            if response.status_code != 200:
                raise UnansweredError(words_of(response))
        with understanding(neighbours):
            listed = [NeighbourInfo.model_validate(one) for one in neighbours.json()]
        with understanding(config):
            return around_of(config.json(), listed)


def around_of(config: Mapping[str, object], neighbours: list[NeighbourInfo]) -> Around:
    """Return what a router's config and its neighbours say.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is another version's config.
    """
    up = {one.guid for one in neighbours if one.is_up}
    hosts = sorted(one.guid for one in neighbours if one.role == "host" and one.is_up)
    hops: dict[int, int] = {}
    tables = config["neighbour"]
    if not isinstance(tables, list):
        raise TypeError("neighbour is no list")
    for table in tables:
        if table["guid"].lower() not in up:
            continue
        hops[int(table["na"])] = NEIGHBOUR_HOPS
        for na in table["routes"]:
            hops.setdefault(int(na), BEHIND_HOPS)
    router = config["router"]
    if not isinstance(router, dict):
        raise TypeError("router is no table")
    nearest = sorted(hops.items(), key=lambda item: (item[1], item[0]))[:MAX_DISTANCES_COUNT]
    left_out_count = max(0, len(hosts) - MAX_HOSTS_COUNT)
    return Around(int(router["na"]), tuple(hosts[:MAX_HOSTS_COUNT]), dict(nearest), left_out_count)
