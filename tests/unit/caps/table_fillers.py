"""Fillers of the caps of the cloudlet's table. Source: router/caps.py."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from packetcloud.chunk.names import SID
from packetcloud.router.cloudlet_api import MAX_UPDATE_BYTES, add_table_paths
from packetcloud.router.cloudlet_schemas import MAX_INSPECTED_SNAP_BYTES
from packetcloud.router.cloudlet_table import (
    MAX_DESTINATIONS_COUNT,
    MAX_ITEMS_COUNT,
    MAX_SERVICES_COUNT,
    MAX_SLOTS_COUNT,
    MAX_VIS_COUNT,
    ItemReason,
)
from packetcloud.router.inspection import MAX_INSPECTION_BYTES
from packetcloud.router.table_service import MAX_WAITERS_COUNT, TableService
from tests.unit.caps.filled import Filled, fills
from tests.unit.router.cloudlet_tables import with_table
from tests.unit.router.router_fakes import A, B, FakeNetwork, S, chunk

PATH = "/v1/cloudlet/table"
Item = dict[str, Any]


class _Router:
    """A router core with its table, and a controller that writes there."""

    def __init__(self, folder: Path) -> None:
        self.net = FakeNetwork(with_table())
        self.table = TableService(
            folder, self.net.core, lambda: self.net.now, lambda: None, lambda _: None, None, "boot"
        )
        self.table.open()
        app = FastAPI()
        add_table_paths(app, lambda: self.table)
        self._app = app
        self.version = 0

    def run(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
        async def working() -> Any:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
                return await work(client)

        return asyncio.run(working())

    def put(self, *items: Item, content: bytes | None = None) -> httpx.Response:
        self.version += 1
        document = {
            "controller": "c",
            "epoch": 1,
            "version": self.version,
            "base_version": self.table.report().version or None,
            "items": items,
        }
        more: dict[str, Any] = {"json": document} if content is None else {"content": content}
        answer: httpx.Response = self.run(lambda client: client.put(PATH, **more))
        return answer

    @property
    def refused(self) -> int:
        return self.table.figures.requests_refused.total()

    @property
    def services_count(self) -> int:
        return len(self.table.report().services)

    def serves(self) -> bool:
        """A chunk goes through whatever is listed."""
        net = self.net
        a, b = net.host(A), net.host(B)
        assert a.chunk(chunk(wants_report=False)) is None
        return len(b.accept_all()) == 1


@contextlib.contextmanager
def _router() -> Iterator[_Router]:
    with tempfile.TemporaryDirectory() as folder:
        router = _Router(Path(folder))
        yield router
        router.table.close()


def _sid(number: int) -> str:
    return SID(number.to_bytes(20, "big")).hex


def _service(number: int, vis: Iterable[Item] = (), **changes: Any) -> Item:
    values = {"sid": _sid(number), "name": f"n{number}", "vis": list(vis)}
    return {"put": values | changes}


def _vi(number: int, slot: int = 0) -> Item:
    return {"instance": number, "owner_epoch": 1, "slot": slot, "state": "held"}


@fills("router", "services of the cloudlet's table")
def services() -> Filled:
    """A controller lists ever more services."""
    with _router() as router:
        items = router.table.figures.items_refused

        def press(first: int, end: int) -> tuple[int, int]:
            router.put(*(_service(number) for number in range(first, end)))
            return router.services_count, items[ItemReason.TOO_MANY_SERVICES]

        cap = MAX_SERVICES_COUNT
        at_cap, counted = press(1, cap + 1)
        beyond, counted_beyond = press(1001, 1004)
        goes_on = router.serves() and router.put(_service(1, priority=1)).is_success
        router.put(*({"remove": _sid(number)} for number in range(1, cap + 1)))
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, router.services_count)


@fills("router", "VIs of the cloudlet's table")
def vis() -> Filled:
    """A controller lists ever more VIs."""
    with _router() as router:
        items = router.table.figures.items_refused

        def press(number: int, count: int) -> tuple[int, int]:
            router.put(_service(number, map(_vi, range(count))))
            listed = sum(len(service.vis) for service in router.table.report().services)
            return listed, items[ItemReason.TOO_MANY_VIS]

        press(1, 24)
        at_cap, counted = press(2, MAX_VIS_COUNT - 24)
        beyond, counted_beyond = press(3, 1)
        goes_on = router.serves() and router.put(_service(3)).is_success
        router.put({"remove": _sid(1)}, {"remove": _sid(2)}, {"remove": _sid(3)})
        left = router.services_count
        return Filled(MAX_VIS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "slots of one service of the cloudlet's table")
def slots() -> Filled:
    """A controller writes ever larger numbers of slots."""
    with _router() as router:

        def press(slot: int) -> tuple[int, int]:
            router.put(_service(1, [_vi(1, slot)]))
            return len(router.net.core.dispatch.services[_bytes(1)].slots), router.refused

        at_cap, counted = press(MAX_SLOTS_COUNT - 1)
        beyond, counted_beyond = press(MAX_SLOTS_COUNT)
        goes_on = router.serves()
        left, _ = press(0)
        cap = MAX_SLOTS_COUNT
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left - 1)


@fills("router", "allowed destinations of one service")
def destinations() -> Filled:
    """A controller allows ever more destinations."""
    with _router() as router:

        def press(count: int) -> tuple[int, int]:
            names = [_sid(number) for number in range(1, count + 1)]
            router.put(_service(1, allowed_destinations=names))
            cloudlet = router.net.core.cloudlet
            assert cloudlet is not None
            allowed = cloudlet.table.services[_bytes(1)].destinations
            assert allowed is not None
            return len(allowed.guids), router.refused

        at_cap, counted = press(MAX_DESTINATIONS_COUNT)
        beyond, counted_beyond = press(MAX_DESTINATIONS_COUNT + 1)
        goes_on = router.serves()
        left, _ = press(0)
        cap = MAX_DESTINATIONS_COUNT
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "items of an update of the cloudlet's table")
def items() -> Filled:
    """A controller sends ever longer updates."""
    with _router() as router:

        def press(count: int) -> tuple[int, int]:
            answer = router.put(*({"remove": _sid(number)} for number in range(1, count + 1)))
            return len(answer.json().get("items", ())), router.refused

        at_cap, counted = press(MAX_ITEMS_COUNT)
        beyond, counted_beyond = press(MAX_ITEMS_COUNT + 1)
        goes_on = router.serves() and router.put(_service(1)).is_success
        cap = MAX_ITEMS_COUNT
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("router", "bytes of an update of the cloudlet's table")
def update_bytes() -> Filled:
    """A controller, or whoever reaches the management API, sends ever larger updates."""
    with _router() as router:
        too_large = router.table.figures.requests_refused

        def press(size: int) -> tuple[int, int]:
            router.put(content=b" " * size)
            return (size if not too_large["too_large"] else 0), too_large["too_large"]

        at_cap, counted = press(MAX_UPDATE_BYTES)
        beyond, counted_beyond = press(MAX_UPDATE_BYTES + 1)
        goes_on = router.serves() and router.put(_service(1)).is_success
        cap = MAX_UPDATE_BYTES
        return Filled(cap, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("router", "requests that wait for a VI to be idle")
def waiters() -> Filled:
    """Whoever reaches the management API asks again and again for a VI that is not idle."""
    with _router() as router:
        net = router.net
        name = S.hex
        router.put({"put": {"sid": name, "name": "s", "vis": [_vi(1) | {"state": "serving"}]}})
        a, one = net.host(A), net.vi(S, 1)
        assert a.chunk(chunk(services=(S,))) is None
        router.put({"put": {"sid": name, "name": "s", "vis": [_vi(1)]}})
        refused, waiting = router.table.figures.requests_refused, router.table._waiters

        async def press(client: httpx.AsyncClient) -> tuple[int, ...]:
            ask = f"{PATH}/idle?sid={name}&instance=1&timeout_s=60"

            async def begin(count: int) -> tuple[int, int]:
                begun.extend(asyncio.ensure_future(client.get(ask)) for _ in range(count))
                while len(waiting) + refused["too_many_waiters"] < len(begun):
                    await asyncio.sleep(0)
                return len(waiting), refused["too_many_waiters"]

            begun: list[asyncio.Future[httpx.Response]] = []
            filled = (*await begin(MAX_WAITERS_COUNT), *await begin(3))
            assert (await client.get(PATH)).is_success
            for task in one.accept_all():
                one.verdict(task)
            answers = [await future for future in begun]
            told = sum(answer.is_success and answer.json()["idle"] for answer in answers)
            return (*filled, told)

        at_cap, counted, beyond, counted_beyond, told = router.run(press)
        goes_on = told == MAX_WAITERS_COUNT
        left = len(waiting)
        return Filled(MAX_WAITERS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("router", "looks at chunks of VIs")
def looks() -> Filled:
    """A VI is inspected, and the disk takes nothing."""
    with _router() as router:
        net = router.net
        inspection = {"one_in": 1, "snap_bytes": MAX_INSPECTED_SNAP_BYTES}
        item = {"sid": S.hex, "name": "s", "inspection": inspection}
        router.put({"put": item | {"vis": [_vi(1) | {"state": "serving"}]}})
        a, b, one = net.host(A), net.host(B), net.vi(S, 1)
        cloudlet = net.core.cloudlet
        assert cloudlet is not None
        kept = cloudlet.inspection
        passed: list[int] = []

        def press(count: int) -> tuple[int, int]:
            for number in range(count):
                assert a.chunk(chunk(payload=bytes(60_000), services=(S,), chunk_id=number)) is None
                (task,) = one.accept_all()
                one.verdict(task)
                passed.append(len(b.accept_all()))
            return kept.ring_bytes, kept.lost_count

        granularity = 62_000
        while kept.ring_bytes + granularity <= MAX_INSPECTION_BYTES:
            filled, counted = press(1)
        beyond, lost = press(3)
        goes_on = all(count == 1 for count in passed)
        kept.take()
        cap = MAX_INSPECTION_BYTES
        left = kept.ring_bytes
        return Filled(cap, filled, counted, beyond, lost, goes_on, left, granularity)


def _bytes(number: int) -> bytes:
    return number.to_bytes(20, "big")
