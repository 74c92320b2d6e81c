"""What a router's config and neighbours say of where it is, and for how long that counts."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from packetcloud.cloudlet import surroundings
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.cloudlet.surroundings import MAX_HOSTS_COUNT, Around, Surroundings, around_of
from packetcloud.router.schemas import NeighbourInfo

CONFIG: dict[str, Any] = {
    "router": {"na": 7},
    "neighbour": [
        {"guid": "aa" * 20, "na": 8, "routes": [9, 10]},
        {"guid": "bb" * 20, "na": 9, "routes": [11]},
        {"guid": "cc" * 20, "na": 12, "routes": [13]},
    ],
}


def neighbour(guid: str, role: str = "host", *, is_up: bool = True) -> NeighbourInfo:
    return NeighbourInfo.model_validate(
        {
            "guid": guid,
            "role": role,
            "name": "",
            "is_up": is_up,
            "address": None,
            "queued_bytes": 0,
            "waiting": 0,
            "waiting_bytes": 0,
            "flows": 0,
        }
    )


NEIGHBOURS = [
    neighbour("aa" * 20, "router"),
    neighbour("bb" * 20, "router"),
    neighbour("cc" * 20, "router", is_up=False),
    neighbour("22" * 20),
    neighbour("11" * 20),
    neighbour("33" * 20, is_up=False),
    neighbour("44" * 20, "service"),
]


def test_hosts_that_are_attached_and_routers_that_answer() -> None:
    """A neighbour is one hop away, what is behind it two, whoever is away is not told."""
    found = around_of(CONFIG, NEIGHBOURS)
    assert found == Around(7, ("11" * 20, "22" * 20), {8: 1, 9: 1, 10: 2, 11: 2})


@pytest.mark.parametrize("more", (0, 1))
def test_so_many_hosts_are_told(more: int) -> None:
    """The others are counted."""
    hosts = [neighbour(f"{number:040x}") for number in range(MAX_HOSTS_COUNT + more)]
    found = around_of(CONFIG, hosts)
    assert (len(found.hosts), found.left_out_count) == (MAX_HOSTS_COUNT, more)


def test_what_a_silent_router_said_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once: it may be starting again."""
    now_s = [100.0]
    is_up = [True]
    monkeypatch.setattr(surroundings.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(surroundings, "ASK_INTERVAL_S", 0.0)

    def answer(request: httpx.Request) -> httpx.Response:
        if not is_up[0]:
            raise httpx.ConnectError("nobody listens")
        listed = [one.model_dump() for one in NEIGHBOURS]
        return httpx.Response(200, json=CONFIG if request.url.path == "/config" else listed)

    async def run() -> None:
        router = RouterClient("http://router", "c1", transport=httpx.MockTransport(answer))
        around = Surroundings(router)
        assert around.now() == Around()
        watching = asyncio.ensure_future(around.watch())
        async with asyncio.timeout(30):
            while around.now().na != 7:
                await asyncio.sleep(0)
        is_up[0] = False
        for _ in range(100):
            await asyncio.sleep(0)
        now_s[0] += surroundings.FORGET_AFTER_S - 1
        assert around.now().na == 7
        now_s[0] += 1
        assert around.now() == Around()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await router.close()

    asyncio.run(run())
