"""VIs are let out and shut in as the controller sees them; the tables of the machine are played."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.cloudlet import egress_keeper
from packetcloud.cloudlet.bridges import NetworkError
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.egress_counts import EgressCount, EgressCounts
from packetcloud.cloudlet.egress_filters import EgressElements
from packetcloud.cloudlet.egress_keeper import EgressKeeper
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.view import vi_info
from tests.functional.cloudlet_place import CONFIG, Place, fast, placed

__all__ = ["fast"]
pytestmark = pytest.mark.usefixtures("fast")
GRANT = """replicas_max = 4
egress = { allow = ["203.0.113.0/24:443"], denied_per_violation = 10 }
listen = { 80 = 8080 }
"""
FILE = CONFIG.replace("replicas_max = 4\n", GRANT).replace(
    "[[node]]", '[network]\negress_device = "eth0"\n[[node]]', 1
)


class PlayedTables:
    """Keeps what it was told; fails as often as a test wants."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.held = EgressElements()
        self.counts = EgressCounts()
        self.failures = 0

    def admit(self, elements: EgressElements) -> None:
        if self.failures:
            self.failures -= 1
            raise NetworkError("nft: no")
        self.held = elements

    def egress_counts(self) -> EgressCounts:
        return self.counts


@contextlib.asynccontextmanager
async def _kept(folder: Path) -> AsyncIterator[tuple[Place, PlayedTables]]:
    async with placed(folder) as place:
        place.declare(FILE)
        for node in place.nodes.values():
            node.site = replace(node.site, egress_bridge="pcegress0")
        await place.start()
        tables = PlayedTables(place.config.network)
        task = asyncio.create_task(EgressKeeper(tables, place.controller).run())
        try:
            await place.settle()
            yield place, tables
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _addresses(place: Place) -> frozenset[int]:
    return frozenset(vi.address for vi in place.vis("counts"))


def test_who_runs_is_let_out_and_who_goes_is_shut_in(tmp_path: Path) -> None:
    """VIs of the granted service and no others; the port goes with the first slot."""

    async def whole() -> None:
        async with _kept(tmp_path) as (place, tables):
            await place.until(lambda: tables.held.vis == {"counts": _addresses(place)})
            first, second = sorted(place.vis(), key=lambda vi: vi.slot)
            assert tables.held.listeners == {80: (first.address, 8080)}
            (container,) = (
                node.found[place.launches.container_name(first.number)]
                for node in place.nodes.values()
                if node.name == first.node
            )
            assert "eth2" in container.live.devices
            place.controller.wish(lambda n: saw.MigrateWished(n, first.number))
            await place.until(lambda: first.address not in tables.held.vis["counts"])
            await place.settle()
            await place.until(lambda: tables.held.vis == {"counts": _addresses(place)})
            moved = next(vi for vi in place.vis() if vi.slot == first.slot)
            assert tables.held.listeners == {80: (moved.address, 8080)}
            second.is_restricted = True
            place.controller.tell(saw.Tick())
            await place.until(lambda: second.address not in tables.held.vis["counts"])

    asyncio.run(whole())


def test_what_nft_refused_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with _kept(tmp_path) as (place, tables):
            tables.failures = 3
            place.controller.wish(lambda n: saw.LaunchWished(n, "counts"))
            await place.settle()
            await place.until(lambda: tables.held.vis == {"counts": _addresses(place)})
            assert len(_addresses(place)) == 3 and tables.failures == 0

    asyncio.run(whole())
    assert "egress of VIs: nft: no" in caplog.text


def test_denied_tries_are_shown_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; tables that were put there anew begin to count anew."""
    monkeypatch.setattr(egress_keeper, "COUNT_INTERVAL_S", 0.02)

    async def whole() -> None:
        async with _kept(tmp_path) as (place, tables):
            vi = place.vis()[0]
            for denied, total in ((40, 40), (70, 70), (5, 75)):
                tables.counts = EgressCounts({vi.address: EgressCount(denied, 60 * denied, 7, 1)})

                def is_shown(total: int = total) -> bool:
                    info = vi_info(place.controller, place.launches, vi)
                    return info.egress is not None and info.egress.denied_packets == total

                await place.until(is_shown)
            info = vi_info(place.controller, place.launches, vi)
            assert info.egress is not None and info.egress.denied_bytes == 60 * 75
            assert info.egress.granted == [
                "connects to 203.0.113.0/24:443",
                "listens on port 80 (its own 8080)",
            ]
            assert vi.violations == {"egress-denied": 7}
            assert place.controller.egress_totals["counts"].denied_packets == 75

    asyncio.run(whole())
