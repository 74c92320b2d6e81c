"""The controller's words at the router's own API: what one writes the other reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Evidence, Role, Vi
from packetcloud.cloudlet.core.table import entry_of
from packetcloud.cloudlet.core.values import ServiceWish
from packetcloud.cloudlet.router_client import MAX_ANSWER_BYTES, RouterClient
from packetcloud.router.cloudlet_table import ItemReason, ViState
from tests.functional.cloudlet_router import CloudletRouter

SID = "a" * 40
OTHER = "b" * 40
WISH = ServiceWish(
    "alpha",
    SID,
    "small",
    router_entry={
        "name": "alpha",
        "priority": 7,
        "fail_policy": "closed",
        "deadline_ms": 5000,
        "grace_s": 10.0,
        "rules_from": "isp",
        "max_output_ratio": 3.0,
        "allowed_destinations": ["c" * 40, 12],
    },
)


def _vi(number: int, **changes: Any) -> Vi:
    return Vi(number, "alpha", "small", "n1", number * 11, "token", number, **changes)


def _push(version: int, base: int | None, *vis: Vi, epoch: int = 3) -> do.PushTable:
    return do.PushTable(epoch, version, base, {SID: entry_of(WISH, vis, frozenset())}, ())


def _is_idle(answer: saw.IdleAnswer | None) -> bool | None:
    return None if answer is None else answer.is_idle


def _run(body: Callable[[CloudletRouter], Awaitable[None]]) -> None:
    async def whole() -> None:
        await body(CloudletRouter())

    asyncio.run(whole())


def test_what_the_core_wants_is_what_the_router_has() -> None:
    """Every state of a VI and every key of a service passes the router's schema."""

    async def body(router: CloudletRouter) -> None:
        client = router.client()
        vis = [_vi(1), _vi(2, slot=1, is_restricted=True), _vi(3, role=Role.TWIN)]
        assert await client.push(_push(5, None, *vis)) == saw.TableAnswered(5, True, {})
        states = {instance: vi.state for instance, vi in router.vis(SID).items()}
        assert states == {11: ViState.SERVING, 22: ViState.RESTRICTED, 33: ViState.HELD}
        (entry,) = router.table.services.values()
        assert (entry.settings.priority, entry.max_output_ratio) == (7, 3.0)
        assert entry.destinations is not None and len(entry.destinations.guids) == 1
        removal = do.PushTable(3, 6, 5, {}, [SID])
        assert await client.push(removal) == saw.TableAnswered(6, True, {})
        assert router.table.services == {}
        await client.close()

    _run(body)


def test_an_item_is_refused_by_itself() -> None:
    async def body(router: CloudletRouter) -> None:
        router.refused[SID] = (ItemReason.OWN_SERVICE, "the config has it")
        answer = await router.client().push(_push(1, None, _vi(1)))
        assert answer == saw.TableAnswered(1, True, {SID: "own_service: the config has it"})

    _run(body)


def test_another_controller_is_told_from_a_wrong_base() -> None:
    """Who is fenced ends; who has a wrong base sends everything."""

    async def body(router: CloudletRouter) -> None:
        await router.client().push(_push(5, None, _vi(1)))
        answer = await router.client().push(_push(7, 4, _vi(1)))
        assert answer == saw.TableAnswered(7, False, {}, None, 5)
        answer = await router.client("c2").push(_push(7, None, _vi(1)))
        assert answer == saw.TableAnswered(7, False, {}, 3)
        answer = await router.client().push(_push(9, None, _vi(1), epoch=2))
        assert answer == saw.TableAnswered(9, False, {}, 3)

    _run(body)


def test_without_its_token_nothing_is_written() -> None:
    async def body(router: CloudletRouter) -> None:
        client = router.client()
        router.token = "another"
        answer = await client.push(_push(5, None, _vi(1)))
        assert isinstance(answer, saw.TableUnanswered) and "401" in answer.text
        assert router.table.version == 0

    _run(body)


def test_it_sees_what_the_router_says() -> None:
    async def body(router: CloudletRouter) -> None:
        client = router.client()
        assert await client.look() == saw.RouterSeen("boot-1", 0, 0, {})
        await client.push(_push(5, None, _vi(1)))
        router.tasks[11], router.violations[11], router.waiting = 4, 2, 9
        evidence = (Evidence("output", "c" * 40, 2, "too much"),)
        seen = saw.ViAtRouter(True, 4, {"output": 2}, evidence)
        service = saw.ServiceAtRouter(9, 2.5, None, {11: seen})
        assert await client.look() == saw.RouterSeen("boot-1", 3, 5, {SID: service})

    _run(body)


def test_it_waits_for_the_last_task() -> None:
    async def body(router: CloudletRouter) -> None:
        client = router.client()
        await client.push(_push(5, None, _vi(1, role=Role.TWIN), _vi(2)))
        router.tasks[11] = 1
        assert _is_idle(await client.await_idle(SID, 11, 0.05)) is False
        asked = asyncio.create_task(client.await_idle(SID, 11, 1000.0))
        await asyncio.sleep(0)
        router.tasks[11] = 0
        router.change()
        assert await asked == saw.IdleAnswer(True, True, "boot-1", 3, 5)
        assert _is_idle(await client.await_idle(SID, 22, 0.05)) is False, "it serves"
        assert await client.await_idle(OTHER, 11, 0.05) is None, "it is not listed"
        router.detached.add(11)
        answer = await client.await_idle(SID, 11, 0.05)
        assert answer is not None and answer.is_idle and not answer.is_attached

    _run(body)


def test_a_router_that_is_off_is_silent_and_nothing_else() -> None:
    async def body(router: CloudletRouter) -> None:
        router.is_up = False
        client = router.client()
        text = "ConnectError: nobody listens"
        assert await client.look() == saw.RouterSilent(text)
        assert await client.push(_push(5, None)) == saw.TableUnanswered(5, text)
        assert await client.await_idle(SID, 11, 0.05) is None

    _run(body)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"items": 3}'),
        (200, b'{"boot_id": "x", "epoch": "y", "version": 1, "services": []}'),
        (200, b'{"boot_id": "x", "epoch": 1, "version": 1, "services": [null]}'),
        (200, b"x" * (MAX_ANSWER_BYTES + 1)),
        (404, b'{"detail": "Not Found"}'),
        (409, b"{}"),
        (503, b'{"reason": "unavailable", "detail": "this router takes no table"}'),
    ],
)
def test_an_answer_that_is_not_understood_is_no_answer(status: int, content: bytes) -> None:
    """Whatever serves there: the controller goes on, and says in words what it heard."""

    async def body(_: CloudletRouter) -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
        client = RouterClient("http://router", "c1", transport=transport)
        seen = await client.look()
        assert isinstance(seen, saw.RouterSilent) and seen.text
        answer = await client.push(_push(5, None, _vi(1)))
        assert isinstance(answer, saw.TableUnanswered) and answer.text
        assert await client.await_idle(SID, 11, 0.05) is None

    _run(body)
