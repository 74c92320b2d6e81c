"""SIGKILLs of a router while a controller writes its table: what was answered is in force."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.identity import Identity
from tests.system.test_router_kills import DurableRouter

KILLS_COUNT = 8
MOST_S = 0.4
"""The router is killed so long after it listens at the most."""
SID = Identity(bytes(32)).sid.hex
SEED = 31


@pytest.fixture
def router(tmp_path: Path) -> Iterator[DurableRouter]:
    router = DurableRouter(tmp_path, '[cloudlet]\npath = "cloudlet"')
    yield router
    router.stop()
    print((tmp_path / "r.log").read_text()[-4000:])


class Controller:
    """Writes one version after the other; the priority of its service says which one it is."""

    def __init__(self) -> None:
        self.answered = 0
        self.given = 0

    def write(self, url: str) -> None:
        """Go on until the router does not answer."""
        with httpx.Client(base_url=url, timeout=10) as client:
            while True:
                self.given += 1
                try:
                    answer = client.put("/v1/cloudlet/table", json=self._update(self.given))
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                self.answered = self.given

    def _update(self, version: int) -> dict[str, Any]:
        vis = [{"instance": 7, "owner_epoch": 1, "slot": 0, "state": "serving"}]
        service = {"sid": SID, "name": "s", "priority": version, "vis": vis}
        items = [{"put": service}]
        is_known = version % 5 and self.answered == version - 1 > 0
        base = version - 1 if is_known else None
        return {
            "controller": "c",
            "epoch": 1,
            "version": version,
            "base_version": base,
            "items": items,
        }


def test_killed_router_has_the_table_that_it_answered(router: DurableRouter) -> None:
    """After each kill the table is the last one answered, or the one that was on its way, whole;
    the boot id is another, and the controller goes on from there."""
    rng = random.Random(SEED)
    controller = Controller()
    boots = set()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(KILLS_COUNT):
            writing = pool.submit(controller.write, f"http://{router.control}")
            time.sleep(rng.uniform(0.05, MOST_S))
            router.kill()
            writing.result()
            router.start()
            shown = router.get("/v1/cloudlet/table")
            assert shown["problem"] == ""
            assert shown["version"] in (controller.answered, controller.given)
            priorities = [service["priority"] for service in shown["services"]]
            # A first kill may come before the first table: version 0 has no service.
            assert priorities == ([shown["version"]] if shown["version"] else [])
            boots.add(shown["boot_id"])
    assert controller.answered > KILLS_COUNT
    assert len(boots) == KILLS_COUNT
